"""A sweep's grid on the command line: every flag of Config takes one value or several."""

import inspect
import itertools
from collections.abc import Sequence

from absl import flags

from elbo_lab import configs, losses
from elbo_lab.cli import flag_values, mixture_checks, run_flags, validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.objective_options import GAN
from elbo_lab.sweeps import grid

# Flags that take one value for the whole grid.
SINGLE = ("replicates",)
# Flag -> the argument of an objective's function, which not every objective takes.
_ARGUMENTS = {"m": "num_outer", "estimator": "estimator"}


def axes_from_flags() -> tuple[dict[str, str], dict[str, list[str]]]:
    """The flags of one value, which all cells share, and the axes: the flags of several values.

    Returns:
      Flag -> text, and flag -> texts.

    Raises:
      UserError: one of several values is empty, or a flag of `SINGLE` has several values.
    """
    shared, axes = {}, {}
    for name in run_flags.setting_names():
        flag = flags.FLAGS[name]
        if not flag.present:
            continue
        texts = split(name, flag.value or "")
        # An empty text on its own is valid: it unsets what a protocol sets.
        if "" in texts and len(texts) > 1:
            raise UserError(f"--{name}={flag.value} has an empty value.")
        if len(texts) > 1 and name in SINGLE:
            raise UserError(f"--{name} must be one number for the whole grid; got {flag.value!r}.")
        if len(texts) == 1:
            shared[name] = texts[0]
        else:
            axes[name] = texts
    for name in ("protocol", "budget"):
        if flags.FLAGS[name].present:
            shared[name] = str(getattr(flags.FLAGS, name))
    return shared, axes


def split(name: str, text: str) -> list[str]:
    """Splits a flag's text at semicolons if it has any, else at commas; duplicates are dropped.

    A text of sizes or points is never split at commas, which belong to the value.
    """
    separator = ";" if ";" in text or flag_values.holds_commas(name) else ","
    return list(dict.fromkeys(part.strip() for part in text.split(separator)))


def cells() -> list[grid.Cell]:
    """The cells that the command line describes, including those that cannot be trained.

    A flag that only some model families, objectives or optimizers have applies to the cells of
    those.

    Raises:
      UserError: a value is invalid in every cell, or the flags cannot be read.
    """
    shared, axes = axes_from_flags()

    def applies_to(name: str, values: dict[str, str]) -> bool:
        return applies(name, shared | values)

    combinations = [
        dict(zip(axes, texts, strict=True)) for texts in itertools.product(*axes.values())
    ]
    without_cells = unused(shared, combinations)

    def make(values: dict[str, str]) -> Config:
        return checked(of_cell(shared, values, without_cells))

    return grid.expand(axes, make, applies_to)


def unused(shared: dict[str, str], cells: Sequence[dict[str, str]]) -> set[str]:
    """The flags of `shared` that apply to none of the cells."""
    return {n for n in shared if not any(applies(n, shared | values) for values in cells)}


def of_cell(shared: dict[str, str], values: dict[str, str], kept: set[str]) -> dict[str, str]:
    """The flags of one cell: those of `shared` that apply to it, and its own.

    Args:
      shared: flag -> text, what all cells share.
      values: flag -> text, of the cell.
      kept: flags that are kept although they do not apply, of `unused`: `checked` refuses them.
    """
    texts = {n: t for n, t in shared.items() if n in kept or applies(n, shared | values)}
    return texts | values


def applies(name: str, texts: dict[str, str]) -> bool:
    """Returns True if a flag has a meaning for the configuration that `texts` describe.

    It has none if it is a setting of another model family, objective or optimizer, or an argument
    that the objective does not take. For an unknown choice the answer is True.

    Args:
      name: the flag.
      texts: flag -> text, of all flags.
    """
    try:
        base = Config()
        if "protocol" in texts:
            base = run_flags.protocol("protocol", texts["protocol"])
        changes = {n: texts[n] for n in configs.settings_classes() if texts.get(n)}
        if configs.replace(base, model=changes.get("model", base.model)).objective is None:
            changes.pop("objective", None)
        config = configs.replace(base, **changes)
    except UserError:
        return True
    if texts.get(name) == "":  # unsets what a protocol sets; valid for every configuration
        return True
    if config.model == "mixture" and mixture_checks.needs_gradient(config, name):
        return texts.get("fit", config.model_options.fit) != "em"
    if name == "objective":
        return config.objective is not None
    if name == "k":
        return config.k is not None
    if name == "score_baseline" and texts.get("estimator"):
        return texts["estimator"] == "score"
    if name in _ARGUMENTS:
        function = losses.OBJECTIVES.get(config.objective)
        return function is not None and _ARGUMENTS[name] in inspect.signature(function).parameters
    return name not in configs.option_types() or name in configs.own_settings(config)


def checked(texts: dict[str, str]) -> Config:
    """The configuration that flags (flag -> text) describe, with its objective's defaults.

    Raises:
      UserError: a text is not a value of its flag, or settings cannot work together.
    """
    config = run_flags.config_of(texts)
    validation.check(config)
    return configs.resolved(config)


def baseline(cells: list[grid.Cell], text: str | None) -> int:
    """The index of the cell that the others are compared with.

    Args:
      cells: the whole grid.
      text: "objective=elbo,k=1", or with semicolons if a value holds a comma. If empty or None, the
        first cell that can be trained is taken, or the first but for GANs, which have no quantity
        to compare by.

    Raises:
      UserError: the text is not of that form, or names no cell that is trained.
    """
    if not text:
        trained = [i for i, cell in enumerate(cells) if cell.config is not None]
        return next((i for i in trained if cells[i].config.objective != GAN), trained[0])
    wanted = {}
    for part in text.split(";" if ";" in text else ","):
        name, equals, value = part.strip().partition("=")
        if not equals:
            raise UserError(
                "--baseline must be of the form objective=elbo,k=1 (with semicolons if a value "
                f"holds a comma); got {text!r}."
            )
        wanted[name.strip().lstrip("-")] = value.strip()
    return grid.find(cells, wanted)
