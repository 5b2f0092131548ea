"""Table 1 of the IWAE paper (Burda et al. 2016), ours beside the paper's.

    python -m experiments.table1 --manual_dir=mnist --k=1,5 --budget=0.01
    python -m experiments.table1 --data=mnist,omniglot --layers=1,2 --k=1,5,50

Cells are trained as those of experiments.sweep are, in the folder sweep under --workdir, and the
same command goes on with what is missing; runs that an earlier version left in --workdir are taken
over. A table of what is there stands at the end, also after Ctrl-C. --k takes several values and is
1,5,50 if not given, --workdir is runs/table1; other flags of a configuration hold for every cell.
"""

from pathlib import Path

from absl import flags

from elbo_lab.cli import flag_values, folders, run_flags, study_flags, sweep_flags
from elbo_lab.errors import UserError
from elbo_lab.studies import table1, table1_results


def main() -> int:
    """Flags -> cells -> a sweep -> results and table. Returns the exit status."""
    values = flags.FLAGS
    if not values.workdir:
        raise UserError(f"--workdir must be a folder; got {values.workdir!r}.")
    study = table1.study(
        flag_values.choices("data", values.data),
        flag_values.choices("layers", values.layers, table1.LAYERS),
        flag_values.choices("models", values.models, table1.MODELS),
        [str(k) for k in flag_values.counts("k", values.k)],
    )
    flag = "results_dir" if values.results_dir else "workdir"
    folder, workdir = folders.made(flag, values[flag].value), Path(values.workdir).expanduser()
    earlier = sorted(workdir.glob(table1_results.EARLIER))
    kept = table1.kept_in(study, folder)
    return study_flags.conduct(kept, "table1", {"k"}, workdir / "sweep", earlier)


if __name__ == "__main__":
    run_flags.define(texts=True, without=run_flags.DISTRIBUTED)
    for name, default in (
        ("k", "1,5,50"),
        ("protocol", table1.PROTOCOL),
        ("workdir", "runs/table1"),
    ):
        flags.FLAGS.set_default(name, default)
    flags.DEFINE_string("data", "mnist", "data sets; mnist and omniglot are the paper's")
    flags.DEFINE_string("layers", "1", "stochastic layers, of 1, 2")
    flags.DEFINE_string("models", "vae,iwae", "objectives, of vae (the ELBO), iwae")
    flags.DEFINE_string("results_dir", None, "where results are written (--workdir if not given)")
    sweep_flags.define_jobs()
    run_flags.run(main, __doc__)
