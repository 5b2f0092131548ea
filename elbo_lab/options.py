"""Settings of one model family, objective or optimizer: frozen dataclasses of `option` fields.

    @dataclasses.dataclass(frozen=True)
    class MLPOptions:
        latent_dims: tuple[int, ...] = option((50,), "latent dimensions of each layer", least=1)

Each field defines a setting's default, its flag, its line of `--help`, its range, its choices, and
whether it may follow a course over the steps (`schedules.course`).
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

# The type of a traced option: a number, or the text of its course over the steps,
# "linear:0:1:5000".
Hyper = float | str

# Settings that have an effect only with some values of another one: setting -> (the other, its
# values).
ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "encoder_steps": ("dequantization", ("variational",)),  # uniform noise has no encoder
    "noise_depth": ("dequantization", ("variational",)),
    "noise_width": ("dequantization", ("variational",)),
    "likelihood_variance": ("likelihood", ("gaussian_fixed",)),
    "likelihood_components": ("likelihood", ("logistic_mixture",)),
    "posterior_rank": ("posterior", ("lowrank",)),
    "posterior_depth": ("posterior", ("iaf",)),
    "posterior_width": ("posterior", ("iaf",)),
    "posterior_min_kl": ("posterior", ("diagonal",)),
    "prior_components": ("prior", ("mixture", "vamp")),
    "gradient_penalty": ("gan_loss", ("wasserstein",)),
    "prior_flow": ("prior", ("flow",)),
    "prior_depth": ("prior", ("flow",)),
    "prior_width": ("prior", ("flow",)),
    "kernel_size": ("rnn", ("row",)),
    "activation": ("text_decoder", ("positionwise",)),
    "decoder_dropout": ("text_decoder", ("autoregressive",)),
}


class Option(NamedTuple):
    """Description of a setting, except for its name, type and default."""

    help: str
    choices: tuple[str, ...] | None = None
    least: float | None = None  # the least valid value; for a tuple, of each of its numbers
    most: float | None = None  # the greatest valid value, likewise
    traced: bool = False  # an argument of the compiled step, so that it may follow a course
    above: float | None = None  # an exclusive lower bound
    infinite: bool = False  # True if inf and -inf are valid too
    below: float | None = None  # an exclusive upper bound
    may_be_empty: bool = False  # True if a tuple of no numbers is valid
    odd: bool = False  # True if only odd numbers of least..most are valid


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    traced: bool = False,
    above: float | None = None,
    infinite: bool = False,
    below: float | None = None,
    may_be_empty: bool = False,
    odd: bool = False,
) -> Any:
    """A dataclass field that is a setting; see `Option`."""
    description = Option(
        help, choices, least, most, traced, above, infinite, below, may_be_empty, odd
    )
    return dataclasses.field(default=default, metadata={"option": description})


def has_effect(name: str, values: Mapping[str, Any]) -> bool:
    """False for a setting that another one's value makes meaningless.

    Args:
      name: of the setting.
      values: of all settings, by name; a family, objective or optimizer without the other setting
        always uses this one.
    """
    if name not in ONLY_WITH:
        return True
    other, valid = ONLY_WITH[name]
    return other not in values or values[other] in valid


def options_of(settings: Any) -> dict[str, Option]:
    """The options of a dataclass (the class or an instance), by name."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(settings)}


def values_of(settings: Any) -> dict[str, Any]:
    """The values of an instance's options, by name."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def types_of(settings: Any) -> dict[str, Any]:
    """The type annotations of the options of a dataclass (the class or an instance), by name."""
    return _annotations(settings if isinstance(settings, type) else type(settings))


def plain_type(annotation: Any) -> type:
    """The plain type of an annotation: int for `int | None`, tuple for `tuple[int, ...]`, and the
    first type of any other union.
    """
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    return typing.get_origin(annotation) or annotation


@functools.cache
def _annotations(settings: type) -> dict[str, Any]:
    return typing.get_type_hints(settings)
