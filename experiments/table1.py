"""Table 1 of the IWAE paper (Burda et al. 2016), ours beside the paper's.

    python -m experiments.table1 --manual_dir=mnist --k=1,5 --budget=0.01
    python -m experiments.table1 --data=mnist,omniglot --layers=1,2 --k=1,5,50

Cells are trained as those of experiments.sweep are, in the folder sweep under --workdir, and the
same command goes on with what is missing; runs that an earlier version left in --workdir are taken
over. A table of what is there stands at the end, also after Ctrl-C.
"""

from pathlib import Path

from absl import flags

from elbo_lab.cli import flag_values, folders, protocols, run_flags, study_flags, sweep_flags
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.studies import table1, table1_results

# Flags that hold for all cells, and those of how they are trained.
SHARED = ("protocol", "budget", "seed", "replicates", "eval_k")
RUN = ("data_dir", "manual_dir", "platform", "compilation_cache_dir", "tensorboard")
RUN += ("overwrite", "shard_batch", "stream")


def main() -> int:
    """Flags -> cells -> a sweep -> results and table. Returns the exit status."""
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
    folder, workdir = folders.create(flag, values[flag].value), Path(values.workdir).expanduser()
    earlier = sorted(workdir.glob(table1_results.EARLIER))
    settings = {name: str(values[name].value) for name in SHARED}
    kept = table1.kept_in(study, folder)
    return study_flags.conduct(kept, "table1", settings, workdir / "sweep", earlier)


def define() -> None:
    """The script's flags."""
    flags.DEFINE_string("data", "mnist", "data sets; mnist and omniglot are the paper's")
    flags.DEFINE_string("layers", "1", "stochastic layers, of 1, 2")
    flags.DEFINE_string("models", "vae,iwae", "objectives, of vae (the ELBO), iwae")
    flags.DEFINE_string("k", "1,5,50", "K, draws inside the bound (vae: draws that are averaged)")
    flags.DEFINE_string("protocol", table1.PROTOCOL, f"of {', '.join(protocols.PROTOCOLS)}")
    flags.DEFINE_float("budget", 1.0, "share of the protocol's passes over the data")
    flags.DEFINE_integer("seed", Config.seed, "of the first replicate", 0)
    flags.DEFINE_integer("replicates", 1, "runs of each cell, of a seed each", 1)
    flags.DEFINE_integer("eval_k", Config.eval_k, "draws per test image of the NLL", 1)
    flags.DEFINE_bool("print_config", False, "print the cells' configurations as JSON, and end")
    flags.DEFINE_string("workdir", "runs/table1", "where the cells' runs are")
    flags.DEFINE_string("results_dir", None, "where results are written (--workdir if not given)")
    run_flags.define_run(*RUN)
    sweep_flags.define_jobs()


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
