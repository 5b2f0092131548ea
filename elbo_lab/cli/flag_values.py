"""Texts of the command line as values of a configuration."""

from collections.abc import Collection

from absl import flags

from elbo_lab.errors import UserError


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
