"""Reproduces Table 1 of the IWAE paper (Burda et al. 2016), with the paper's numbers beside ours.

    python -m experiments.table1 --manual_dir=mnist --k=1,5 --budget=0.01
    python -m experiments.table1 --data=mnist,omniglot --layers=1,2 --k=1,5,50

Cells are trained as by experiments.sweep, in the folder `sweep` of --workdir, and the same command
trains what is missing. Runs of an earlier version in --workdir are moved there. The table of the
complete cells is printed at the end, also after Ctrl-C.
"""

from pathlib import Path

from absl import flags

from elbo_lab.cli import flag_values, folders, protocols, run_flags, study_flags, sweep_flags
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.studies import table1, table1_results

# Flags of the configuration that all cells share, and flags of how they are trained.
SHARED = ("protocol", "budget", "seed", "replicates", "eval_k", "init_from")
RUN = ("data_dir", "manual_dir", "platform", "compilation_cache_dir", "tensorboard")
RUN += ("overwrite", "shard_batch", "stream")


def main() -> int:
    """Runs the study, and writes a file for each complete cell. Returns the exit status."""
    values = flags.FLAGS
    if not values.workdir:
        raise UserError(f"--workdir must be a folder; got {values.workdir!r}.")
    run_flags.protocol("protocol", values.protocol)
    study = table1.study(
        flag_values.choices("data", values.data),
        flag_values.choices("layers", values.layers, table1.LAYERS),
        flag_values.choices("models", values.models, table1.MODELS),
        [str(k) for k in flag_values.counts("k", values.k)],
    )
    flag = "results_dir" if values.results_dir else "workdir"
    study = table1.kept_in(study, folders.create(flag, values[flag].value))
    workdir = Path(values.workdir).expanduser()
    earlier = sorted(workdir.glob(table1_results.EARLIER))
    settings = {n: str(values[n].value) for n in SHARED if values[n].value is not None}
    return study_flags.conduct(study, "table1", settings, workdir / "sweep", earlier)


def define() -> None:
    """Defines the script's flags."""
    flags.DEFINE_string("data", "mnist", "data sets; mnist and omniglot are the paper's")
    flags.DEFINE_string("layers", "1", "stochastic layers, one or more of 1, 2")
    flags.DEFINE_string("models", "vae,iwae", "objectives, one or more of vae (the ELBO), iwae")
    flags.DEFINE_string("k", "1,5,50", "K, draws inside the bound (vae: draws that are averaged)")
    flags.DEFINE_string("protocol", table1.PROTOCOL, f"one of {', '.join(protocols.PROTOCOLS)}")
    flags.DEFINE_float("budget", 1.0, "multiple of the protocol's epochs")
    flags.DEFINE_integer("seed", Config.seed, "seed of the first replicate", 0)
    flags.DEFINE_integer("replicates", 1, "runs of each cell, with a seed each", 1)
    flags.DEFINE_integer("eval_k", Config().eval_k, "draws per test image of the NLL", 1)
    flags.DEFINE_string("init_from", None, "run at whose parameters all cells start")
    flags.DEFINE_bool("print_config", False, "print the cells' configurations as JSON, and exit")
    flags.DEFINE_string("workdir", "runs/table1", "folder of the runs")
    flags.DEFINE_string("results_dir", None, "folder of the results (if not given, --workdir)")
    run_flags.define_run(*RUN)
    sweep_flags.define_jobs()


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
