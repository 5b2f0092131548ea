"""The flags of Table 1's script: its cells, their data sets, and the command that is stored."""

import dataclasses
import shlex

from absl import flags

from elbo_lab import data
from elbo_lab.cli import protocols, run_flags, validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.studies import table1_results

LATENTS = {1: (50,), 2: (100, 50)}
MODELS = {"vae": "elbo", "iwae": "iwae"}
OWN_FLAGS = (
    *("workdir", "results_dir", "data_dir", "manual_dir"),
    *("platform", "compilation_cache_dir", "tensorboard"),
)


def loaded(cells: list[table1_results.Cell]) -> dict[str, data.Dataset]:
    """The cells' data sets by name.

    Raises:
      UserError: one cannot be had, or does not go with a cell's configuration.
    """
    datasets = {
        name: run_flags.load_data("data", name)
        for name in dict.fromkeys(cell.config.dataset for cell in cells)
    }
    for cell in cells:
        validation.check_data(cell.config, datasets[cell.config.dataset])
    return datasets


def command() -> str:
    """The command, of the flags that decide numbers: folders are everyone's own."""
    given = [
        flags.FLAGS[name].serialize()
        for name in flags.FLAGS
        if flags.FLAGS[name].present and name not in OWN_FLAGS
    ]
    return shlex.join(["python", "-m", "experiments.table1", *given])


def cells_from_flags() -> list[table1_results.Cell]:
    """The cells that the flags name, the quick ones first, and each once: IWAE of one draw is VAE.

    Raises:
      UserError: an unknown choice, or a configuration that cannot work.
    """
    values = flags.FLAGS
    if "" in values.data.split(","):
        raise UserError(
            f"--data must be names of data sets, separated by commas; got {values.data!r}."
        )
    found = []
    for k in numbers("k", values.k):
        for layers in numbers("layers", values.layers, tuple(LATENTS)):
            for name in values.data.split(","):
                for model in choices_of("models", values.models, tuple(MODELS)):
                    found.append(cell(name, layers, "vae" if k == 1 else model, k))
    return list(dict.fromkeys(found))


def cell(name: str, layers: int, model: str, k: int) -> table1_results.Cell:
    """One cell of the table as a configuration."""
    values = flags.FLAGS
    config = dataclasses.replace(
        run_flags.protocol("protocol", values.protocol),
        dataset=name,
        objective=MODELS[model],
        k=k,
        latent_dims=LATENTS[layers],
        seed=values.seed,
        replicates=values.replicates,
        eval_k=values.eval_k,
    )
    if name == "omniglot" and config.held_out:
        config = dataclasses.replace(config, held_out=1345)
    config = run_flags.within_budget(config, values.budget)
    validation.check(config)
    config = validation.resolved(config)
    return table1_results.Cell(name, layers, model, k, values.protocol, values.budget, config)


def choices_of(flag: str, text: str, choices: tuple) -> list[str]:
    """The values of a list flag.

    Raises:
      UserError: one that is not among the choices.
    """
    found = text.split(",")
    for value in found:
        if value not in choices:
            raise UserError(f"--{flag} must be of {', '.join(choices)}; got {value!r}.")
    return found


def numbers(flag: str, text: str, choices: tuple[int, ...] | None = None) -> list[int]:
    """The values of a list flag as numbers of at least 1, rising.

    Raises:
      UserError: one that is none, or not among the choices.
    """
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1 or (choices and not set(found) <= set(choices)):
        valid = f"of {', '.join(map(str, choices))}" if choices else "whole numbers of at least 1"
        raise UserError(f"--{flag} must be {valid}, separated by commas; got {text!r}.")
    return found


def define() -> None:
    """The script's flags."""
    flags.DEFINE_string("data", "mnist", "data sets; mnist and omniglot are the paper's")
    flags.DEFINE_string("layers", "1", "stochastic layers, of 1, 2")
    flags.DEFINE_string("models", "vae,iwae", "objectives, of vae (the ELBO), iwae")
    flags.DEFINE_string("k", "1,5,50", "K, draws inside the bound (vae: draws that are averaged)")
    flags.DEFINE_string("protocol", "burda2015_code", f"of {', '.join(protocols.PROTOCOLS)}")
    flags.DEFINE_float("budget", 1.0, "share of the protocol's passes over the data")
    flags.DEFINE_integer("seed", Config.seed, "of the first replicate", 0)
    flags.DEFINE_integer("replicates", 1, "runs of each cell, in one compiled program", 1)
    flags.DEFINE_integer("eval_k", Config.eval_k, "draws per test image of the NLL", 1)
    flags.DEFINE_string("workdir", "runs/table1", "where the cells' directories are")
    flags.DEFINE_string("results_dir", None, "where results are written (--workdir if not given)")
    run_flags.define_run(
        "data_dir", "manual_dir", "platform", "compilation_cache_dir", "tensorboard"
    )
