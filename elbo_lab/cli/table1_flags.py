"""The flags of Table 1's script: its cells, and the command that is stored."""

import shlex
from collections.abc import Sequence

from absl import flags

from elbo_lab.cli import protocols, run_flags, sweep_flags
from elbo_lab.cli.flag_values import counts
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.studies import table1
from elbo_lab.studies.study import Choice, Texts

_RUN = ("data_dir", "manual_dir", "platform", "compilation_cache_dir", "tensorboard")
_RUN += ("overwrite", "shard_batch", "stream")
_OWN = (*_RUN, "workdir", "results_dir", "jobs")  # of this machine: they decide no numbers


def settings() -> Texts:
    """What all cells share.

    Raises:
      UserError: an unknown protocol.
    """
    run_flags.protocol("protocol", flags.FLAGS.protocol)
    names = ("protocol", "budget", "seed", "replicates", "eval_k")
    return {name: str(flags.FLAGS[name].value) for name in names}


def choices() -> list[Choice]:
    """The cells that the flags name.

    Raises:
      UserError: an unknown choice.
    """
    values = flags.FLAGS
    data = values.data.split(",")
    if "" in data:
        raise UserError(
            f"--data must be names of data sets, separated by commas; got {values.data!r}."
        )
    return table1.choices(
        settings(),
        data,
        choices_of("layers", values.layers, tuple(table1.LAYERS)),
        choices_of("models", values.models, tuple(table1.MODELS)),
        [str(k) for k in sorted(counts("k", values.k))],
    )


def choices_of(flag: str, text: str, valid: Sequence[str]) -> list[str]:
    """The values of a list flag.

    Raises:
      UserError: one that is not valid.
    """
    given = text.split(",")
    if not set(given) <= set(valid):
        raise UserError(
            f"--{flag} must be of {', '.join(valid)}, separated by commas; got {text!r}."
        )
    return given


def command() -> str:
    """The command, of the flags that decide numbers: folders are everyone's own."""
    given = [
        flags.FLAGS[name].serialize()
        for name in flags.FLAGS
        if flags.FLAGS[name].present and name not in _OWN
    ]
    return shlex.join(["python", "-m", "experiments.table1", *given])


def define() -> None:
    """The script's flags."""
    flags.DEFINE_string("data", "mnist", "data sets; mnist and omniglot are the paper's")
    flags.DEFINE_string("layers", "1", "stochastic layers, of 1, 2")
    flags.DEFINE_string("models", "vae,iwae", "objectives, of vae (the ELBO), iwae")
    flags.DEFINE_string("k", "1,5,50", "K, draws inside the bound (vae: draws that are averaged)")
    flags.DEFINE_string("protocol", "burda2015_code", f"of {', '.join(protocols.PROTOCOLS)}")
    flags.DEFINE_float("budget", 1.0, "share of the protocol's passes over the data")
    flags.DEFINE_integer("seed", Config.seed, "of the first replicate", 0)
    flags.DEFINE_integer("replicates", 1, "runs of each cell, of a seed each", 1)
    flags.DEFINE_integer("eval_k", Config.eval_k, "draws per test image of the NLL", 1)
    flags.DEFINE_string("workdir", "runs/table1", "where the cells' runs are")
    flags.DEFINE_string("results_dir", None, "where results are written (--workdir if not given)")
    run_flags.define_run(*_RUN)
    sweep_flags.define_jobs()
