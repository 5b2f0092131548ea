"""A script with a study of two tiny rungs: `python -m tests.cli.tiny_study`."""

from absl import flags

from elbo_lab.cli import folders, run_flags, run_sections, study_flags, sweep_flags
from elbo_lab.studies.study import Choice, Halving, Rung, Study

# Name of a candidate -> its flags. The rate of the third makes its parameters infinite.
CANDIDATES = {
    "slow": {"batch_size": "10", "learning_rate": "0.001"},
    "fast": {"batch_size": "10", "learning_rate": "0.02"},
    "broken": {"batch_size": "10", "learning_rate": "1e38"},
    "large": {"batch_size": "20", "learning_rate": "0.01"},
    "refused": {"batch_size": "50", "learning_rate": "0.01"},
}


def cost(settings):
    return int(settings["batch_size"]) / 10


STUDY = Study(
    "tiny",
    "Which rate is best?",
    {
        **{"objective": "iwae", "k": "2", "held_out": "20", "eval_k": "20"},
        **{"hidden_dims": "8", "latent_dims": "3", "log_every": "2"},
    },
    lambda settings, config_of: [Choice({"candidate": n}, f) for n, f in CANDIDATES.items()],
    halving=Halving((Rung(8, 2), Rung(24, 1)), cost),
    one_core=True,
)


def main() -> int:
    folder = folders.create("results_dir", flags.FLAGS.results_dir)
    return study_flags.conduct(STUDY, "study", results_dir=folder)


if __name__ == "__main__":
    run_flags.define(texts=True, without=run_sections.DISTRIBUTED)
    sweep_flags.define_jobs()
    flags.DEFINE_string("results_dir", None, "folder of the results")
    run_flags.run(main, __doc__)
