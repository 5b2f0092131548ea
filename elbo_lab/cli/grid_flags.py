"""A grid on the command line: every flag of Config with one value or several."""

import inspect
import itertools

from absl import flags

from elbo_lab import configs, losses
from elbo_lab.cli import flag_values, run_flags, validation
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.sweeps import grid

SINGLE = ("replicates",)
# Flags for arguments that not every objective takes, with the arguments' names.
_ARGUMENTS = {"m": "num_outer", "estimator": "estimator"}


def axes_from_flags() -> tuple[dict[str, str], dict[str, list[str]]]:
    """What all cells share (flag -> text), and the axes: flags of several values.

    Raises:
      UserError: an empty value, or several of a flag that takes one.
    """
    shared, axes = {}, {}
    for name in run_flags.setting_names():
        flag = flags.FLAGS[name]
        if not flag.present:
            continue
        texts = split(name, flag.value or "")
        if (
            "" in texts and len(texts) > 1
        ):  # An empty text alone may leave out what a protocol sets.
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
    """The values of a flag, each once: at semicolons if there are any, else at commas (but those of
    lists of sizes and of points belong to a value).
    """
    separator = ";" if ";" in text or flag_values.holds_commas(name) else ","
    return list(dict.fromkeys(part.strip() for part in text.split(separator)))


def cells() -> list[grid.Cell]:
    """The cells that the command line describes, those skipped included.

    A flag that only some model families or objectives have applies to the cells of those.

    Raises:
      UserError: a value that is invalid in every cell, or no axis can be read.
    """
    shared, axes = axes_from_flags()

    def own(name: str, values: dict[str, str]) -> bool:
        return applies(name, shared | values)

    choices = [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
    partial = [name for name in shared if any(own(name, values) for values in choices)]

    def make(values: dict[str, str]) -> Config:
        common = {n: t for n, t in shared.items() if n not in partial or own(n, values)}
        return checked(common | values)

    return grid.expand(axes, make, own)


def applies(name: str, texts: dict[str, str]) -> bool:
    """Whether a flag means something to the configuration that flags given as texts describe: not
    if it is a setting of another model family or objective, or an argument that the objective does
    not take. An unknown family or objective has any.
    """
    try:
        base = Config()
        if "protocol" in texts:
            base = run_flags.protocol("protocol", texts["protocol"])
        changes = {n: texts[n] for n in ("model", "objective") if texts.get(n)}
        if configs.replace(base, model=changes.get("model", base.model)).objective is None:
            changes.pop("objective", None)
        config = configs.replace(base, **changes)
    except UserError:
        return True
    if texts.get(name) == "":  # leaves out what a protocol sets, if anything
        return True
    if name == "objective":
        return config.objective is not None
    if name == "k":
        return config.k is not None
    if name in _ARGUMENTS:
        function = losses.OBJECTIVES.get(config.objective)
        return function is not None and _ARGUMENTS[name] in inspect.signature(function).parameters
    return name not in configs.option_types() or name in configs.own_settings(config)


def checked(texts: dict[str, str]) -> Config:
    """The configuration of flags given as texts, with its objective's own defaults.

    Raises:
      UserError: a text that is no value of its flag, or settings that cannot work together.
    """
    config = run_flags.config_of(texts)
    validation.check(config)
    return validation.resolved(config)


def baseline(found: list[grid.Cell], text: str | None) -> int:
    """The index of the cell that others are compared with: the first valid one if none is named.

    Args:
      found: all cells.
      text: "objective=elbo,k=1", separated by semicolons where a value holds a comma.

    Raises:
      UserError: the text is not of that form, or names no cell that is trained.
    """
    wanted = {}
    if text:
        for part in text.split(";" if ";" in text else ","):
            name, equals, value = part.strip().partition("=")
            if not equals:
                raise UserError(
                    f"--baseline must be as objective=elbo,k=1 (with semicolons where a value "
                    f"holds a comma); got {text!r}."
                )
            wanted[name.strip().lstrip("-")] = value.strip()
    return grid.find(found, wanted)
