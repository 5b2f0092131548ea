"""The noun for the examples of each kind of data (`Spec.kind`)."""


def for_kind(text: str, kind: str) -> str:
    """The text, which speaks of images, in the noun of a kind: codes and vectors are examples.

    Args:
      text: e.g. "nats per image", "2,000 images"; without names that a person gave.
      kind: "image", "token" or "real".
    """
    return text if kind == "image" else text.replace("image", "example")


def short_unit(unit: str) -> str:
    """The unit beside a number: "nats per image" and "nats per example" are just "nats"."""
    return unit.removesuffix(" per image").removesuffix(" per example")


def counted(number: int, noun: str) -> str:
    """A number with its noun in the singular or, with an s, in the plural: "1 pair", "2 pairs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
