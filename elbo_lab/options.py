"""Settings of one model family or one objective: frozen dataclasses of `option` fields.

    @dataclasses.dataclass(frozen=True)
    class MLPOptions:
        latent_dims: tuple[int, ...] = option((50,), "latent dimensions of each layer", least=1)

One such line gives the setting's default, its flag, its line of `--help`, its range, its choices,
and whether it may follow a course over the steps.
"""

import dataclasses
from typing import Any, NamedTuple


class Option(NamedTuple):
    """What is known of a setting besides its name, type and default."""

    help: str
    choices: tuple[str, ...] | None = None
    least: float | None = None  # the least valid value, of each number of a tuple
    most: float | None = None
    traced: bool = False  # a step reads it as an argument, and it may follow a course


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    traced: bool = False,
) -> Any:
    """A dataclass field that is a setting; see `Option`."""
    about = Option(help, choices, least, most, traced)
    return dataclasses.field(default=default, metadata={"option": about})


def options_of(settings: Any) -> dict[str, Option]:
    """The options of a dataclass or of an instance of it, by name."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(settings)}
