"""Converts the texts of flags to the values of a configuration."""

import re
import typing
from collections.abc import Collection
from typing import Any

from absl import flags

from elbo_lab import configs
from elbo_lab.errors import UserError
from elbo_lab.options import options_of, plain_type


class OptionalParser(flags.ArgumentParser):
    """Parses an empty text as None, and any other text by the given parser."""

    def __init__(self, parser: flags.ArgumentParser):
        self.parser, self.syntactic_help = parser, parser.syntactic_help

    def parse(self, text):
        """Returns the value of a text."""
        return None if text == "" else self.parser.parse(text)

    def flag_type(self) -> str:
        """The name that absl has for the type."""
        return self.parser.flag_type()


def message(error: flags.Error, among: flags.FlagValues) -> str:
    """The message of absl's error, without Python's words for a value of a wrong type."""
    match = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if not match or match[1] not in among:
        return f"{str(error).rstrip('.')}."
    name, value = match.groups()
    if out_of_range := re.search(r" is not (.*(?:integer|number|range).*)$", str(error)):
        valid = re.sub("^integer", "an integer", out_of_range[1])
    else:
        kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        valid = kinds.get(among[name].flag_type(), "text")
    return f"--{name} must be {valid}; got {value!r}."


def with_dashes(sentence: str, *others: str) -> str:
    """A message of the library with its names of settings as flags: "--width must be ...".

    A name is one where a value follows, as in "condition=label", or "must".

    Args:
      sentence: the message.
      others: names of flags that are no settings of a configuration.
    """
    names = "|".join((*configs.SHARED, *configs.option_types(), *others))
    return re.sub(rf"(?<![\w-])(?=(?:{names})(?:=| must\b))", "--", sentence)


def define_optional_count(name: str, text: str, least: int) -> None:
    """Defines a flag whose value is a whole number of at least `least`, or None by default."""
    flags.DEFINE(OptionalParser(flags.IntegerParser(least)), name, None, text)


def flag_type(name: str) -> type:
    """The type of the flag of a model family's, an objective's or an optimizer's setting.

    It is str where `value_of` parses the text.
    """
    annotation = configs.option_types()[name]
    kind = plain_type(annotation)
    return str if _is_traced(name) or _is_partition(annotation) or kind is tuple else kind


def value_of(name: str, value: Any) -> Any:
    """Converts the value of a flag to the value of the configuration's field.

    Raises:
      UserError: the text of sizes or points holds something that is not a number.
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
    """Returns True if one value of a setting may hold commas: a list of sizes or of points."""
    annotation = configs.option_types().get(name)
    return _is_partition(annotation) or plain_type(annotation) is tuple


def _is_traced(name: str) -> bool:
    """Returns True if the setting is an argument of each step."""
    options = (options_of(settings).get(name) for settings in configs.option_classes())
    return any(option is not None and option.traced for option in options)


def _is_partition(annotation: Any) -> bool:
    """Returns True for `int | tuple[float, ...]`: a number of steps, or points."""
    members = typing.get_args(annotation)
    return {int, tuple} <= {typing.get_origin(member) or member for member in members}


def number_or_course(text: str | None) -> float | str | None:
    """Converts "4" and "constant:4" to 4.0; returns any other text for `validation.check`."""
    try:
        return None if text is None else float(text.removeprefix("constant:"))
    except ValueError:
        return text


def partition(text: str | None) -> int | tuple[float, ...] | None:
    """Parses a number of steps, "5", or points, "0,0.1,1".

    Raises:
      UserError: the text is neither.
    """
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
    """Parses "200,200" as the value of the flag `name`.

    Raises:
      UserError: a part is not a whole number. The message names the flag.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--{name} must be whole numbers of at least 1, separated by commas; got {text!r}."
        ) from None


def counts(name: str, text: str) -> tuple[int, ...]:
    """Parses "1,4,16" as the value of the flag `name`; duplicates are dropped.

    Raises:
      UserError: a part is not a whole number of at least 1. The message names the flag.
    """
    numbers = tuple(dict.fromkeys(sizes(name, text)))
    if min(numbers) < 1:
        raise UserError(
            f"--{name} must be whole numbers of at least 1, separated by commas; got {text!r}."
        )
    return numbers


def indices(name: str, text: str) -> tuple[int, ...]:
    """Parses "0,3,5" as the value of the flag `name`.

    Raises:
      UserError: a part is not a whole number of at least 0. The message names the flag.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(
            f"--{name} must be whole numbers of at least 0, separated by commas; got {text!r}."
        )
    return tuple(map(int, parts))


def choices(name: str, text: str, valid: Collection[str] = ()) -> list[str]:
    """Parses "vae,iwae" as the value of the flag `name`; duplicates are dropped.

    Args:
      name: the flag.
      text: its value.
      valid: the valid parts; if empty, every part that is not empty is valid.

    Raises:
      UserError: a part is not valid. The message names the flag.
    """
    parts = list(dict.fromkeys(text.split(",")))
    if "" in parts or (valid and not set(parts) <= set(valid)):
        kind = f"one or more of {', '.join(valid)}" if valid else "names"
        raise UserError(f"--{name} must be {kind}, separated by commas; got {text!r}.")
    return parts
