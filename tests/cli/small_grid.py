"""A script with studies of a few of their cells: `python -m tests.cli.small_grid NAME`."""

from absl import flags

from elbo_lab.cli import folders, run_flags, run_sections, study_flags, sweep_flags
from elbo_lab.studies.registry import STUDIES
from elbo_lab.studies.study import Choice, ConfigOf, Texts

# Name of a study -> values of the cells that are trained. Tests of the studies check all cells.
CELLS = {
    "codebooks": [{"num_codes": "8"}, {"num_codes": "512"}, {"beta": "0.1"}],
    "discrete": [
        {"estimator": name}
        for name in ("enumerate", "score", "score, learned baseline", "vimco", "rws")
    ],
    "disentangle": [
        {"objective": "beta_vae", "weight": "1"},
        {"objective": "beta_vae", "weight": "8"},
        {"objective": "beta_tcvae", "weight": "4"},
    ],
}


def main(name: str) -> int:
    study = STUDIES[name]

    def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
        every = study.choices(settings, config_of)
        return [c for c in every if any(own.items() <= c.values.items() for own in CELLS[name])]

    folder = folders.create("results_dir", flags.FLAGS.results_dir)
    return study_flags.conduct(study._replace(choices=choices), "study", results_dir=folder)


if __name__ == "__main__":
    run_flags.define(texts=True, without=run_sections.DISTRIBUTED)
    sweep_flags.define_jobs()
    flags.DEFINE_string("results_dir", None, "folder of the results")
    run_flags.run(main, __doc__, words=1)
