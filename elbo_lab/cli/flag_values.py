"""Texts of the command line as values of a configuration."""

import typing
from collections.abc import Collection
from typing import Any

from absl import flags

from elbo_lab import configs
from elbo_lab.errors import UserError
from elbo_lab.options import options_of, plain_type


class OptionalParser(flags.ArgumentParser):
    """Reads an empty text as None, and every other one as the parser that it is given."""

    def __init__(self, parser: flags.ArgumentParser):
        self.parser, self.syntactic_help = parser, parser.syntactic_help

    def parse(self, text):
        """The value of a text."""
        return None if text == "" else self.parser.parse(text)

    def flag_type(self) -> str:
        """The type as absl names it."""
        return self.parser.flag_type()


def define_optional_count(name: str, text: str, least: int) -> None:
    """Defines a flag of a whole number that need not be given."""
    flags.DEFINE(OptionalParser(flags.IntegerParser(least)), name, None, text)


def flag_type(name: str) -> type:
    """The type that a flag reads a setting of a model family or an objective as: str for what
    `value_of` reads on.
    """
    annotation = configs.option_types()[name]
    kind = plain_type(annotation)
    return str if _is_traced(name) or _is_partition(annotation) or kind is tuple else kind


def value_of(name: str, value: Any) -> Any:
    """The value that a configuration has of a flag's.

    Raises:
      UserError: sizes or points that are not numbers.
    """
    annotation = configs.option_types().get(name)
    if value is None or annotation is None:
        return value
    if _is_traced(name):
        return number_or_course(value)
    if _is_partition(annotation):
        return partition(value)
    return sizes(name, value) if plain_type(annotation) is tuple else value


def holds_commas(name: str) -> bool:
    """Whether the text of a setting's value may hold commas: sizes, or points."""
    annotation = configs.option_types().get(name)
    return _is_partition(annotation) or plain_type(annotation) is tuple


def _is_traced(name: str) -> bool:
    about = (options_of(settings).get(name) for settings in configs.option_classes())
    return any(each is not None and each.traced for each in about)


def _is_partition(annotation: Any) -> bool:
    """Whether it is a number of steps or points, `int | tuple[float, ...]`."""
    kinds = [typing.get_origin(each) or each for each in typing.get_args(annotation)]
    return {int, tuple} <= set(kinds)


def number_or_course(text: str | None) -> float | str | None:
    """A number where the text is one (constant:4 is 4); else the text, for `validation.check`."""
    try:
        return None if text is None else float(text.removeprefix("constant:"))
    except ValueError:
        return text


def partition(text: str | None) -> int | tuple[float, ...] | None:
    """5 or (0, 0.1, 1)."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--partition must be a number of steps, or points separated by commas; got {text!r}."
        ) from None


def sizes(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--{name} must be whole numbers of at least 1, separated by commas; got {text!r}."
        ) from None


def counts(name: str, text: str) -> tuple[int, ...]:
    """ "1,4,16" as numbers of at least 1, each once.

    Raises:
      UserError: a text that is none; the sentence names the flag.
    """
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise UserError(
            f"--{name} must be whole numbers of at least 1, separated by commas; got {text!r}."
        )
    return numbers


def choices(name: str, text: str, valid: Collection[str] = ()) -> list[str]:
    """ "vae,iwae" as texts, each once.

    Raises:
      UserError: an empty text, or one that is not valid; the sentence names the flag.
    """
    given = list(dict.fromkeys(text.split(",")))
    if "" in given or valid and not set(given) <= set(valid):
        kind = f"of {', '.join(valid)}" if valid else "names"
        raise UserError(f"--{name} must be {kind}, separated by commas; got {text!r}.")
    return given
