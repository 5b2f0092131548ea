"""Refuses values of settings of a model family or an objective that are out of range.

Ranges and choices are those of the settings' own lines (`elbo_lab.options`).
"""

import math
import typing
from typing import Any

import numpy as np

from elbo_lab import configs, schedules
from elbo_lab.errors import UserError
from elbo_lab.options import Option, options_of, plain_type, types_of, values_of

# The positive numbers that float32 holds; it rounds larger ones to infinity, and arithmetic takes
# smaller ones for zero.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
FLOAT32 = f"that float32 holds ({SMALLEST:.2g} to {LARGEST:.2g})"
LARGEST_COUNT = int(np.iinfo(np.int32).max)
# Layers are made one by one by Python.
LARGEST_DEPTH = 100


def check_options(settings: Any) -> None:
    """Raises a UserError for a value out of its range or not among its choices.

    Args:
      settings: an instance of a dataclass of `option` fields.
    """
    values, annotations = values_of(settings), types_of(settings)
    for name, about in options_of(settings).items():
        value, annotation = values[name], annotations[name]
        if value is None and type(None) in typing.get_args(annotation):
            continue
        kind = plain_type(annotation)
        if about.choices is not None:
            _check_choice(name, value, about.choices)
        elif kind is tuple:
            _check_sizes(name, value, about)
        elif about.traced or kind is float:
            _check_number(name, value, about)
        elif annotation in (int, int | None):
            check_count(name, value, 0 if about.least is None else about.least, about.most)


def in_float32(number: float) -> bool:
    """Whether float32 holds a number to its precision: as no infinity, and as 0 only if it is 0."""
    return number == 0 or SMALLEST <= abs(number) <= LARGEST


def check_count(name: str, value: int, least: float = 1, most: float | None = None) -> None:
    """Raises a UserError for a whole number out of its range."""
    if value < least:
        raise UserError(f"--{name} must be at least {least}; got {value}.")
    most = LARGEST_COUNT if most is None else most
    if value > most:
        raise UserError(f"--{name} must be at most {most}; got {value}.")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"--{name} must be one of {', '.join(choices)}; got {value!r}.")


def _check_sizes(name: str, sizes: tuple[int, ...], about: Option) -> None:
    least = 1 if about.least is None else about.least
    if not sizes or any(size < least for size in sizes):
        raise UserError(
            f"--{name} must be whole numbers of at least {least}, separated by commas; got "
            f"{configs.shown(sizes)!r}."
        )
    if about.most is not None and max(sizes) > about.most:
        raise UserError(f"--{name} must be at most {about.most} each; got {configs.shown(sizes)}.")
    if len(sizes) > LARGEST_DEPTH:
        raise UserError(
            f"--{name} must be at most {LARGEST_DEPTH} sizes, each of which is compiled on its "
            f"own; got {len(sizes):,}."
        )


def _check_number(name: str, value: float | str, about: Option) -> None:
    ends = (value,)
    if isinstance(value, str):
        try:
            start, end, steps = schedules.course_numbers(value)[1]
        except ValueError:
            raise UserError(f"--{name} must be {schedules.SYNTAX}; got {value!r}.") from None
        ends = (start, end)
        if not in_float32(steps) or abs(end - start) > LARGEST:
            raise UserError(
                f"--{name} must be a course whose STEPS and END - START are numbers {FLOAT32}; "
                f"got {value!r}."
            )
    if about.infinite and value in (-math.inf, math.inf):
        return
    fits = [_is_in_range(end, about) for end in ends]
    if all(fits) and all(map(in_float32, ends)):
        return
    valid = _valid(about)
    if any(fit and 0 < abs(end) < SMALLEST for fit, end in zip(fits, ends, strict=True)):
        valid += f" (float32 takes less than {SMALLEST:.2g} for 0)"
    raise UserError(f"--{name} must be a number {valid}; got {value}.")


def _is_in_range(number: float, about: Option) -> bool:
    least = -math.inf if about.least is None else about.least
    above = -math.inf if about.above is None else about.above
    most = math.inf if about.most is None else about.most
    return least <= number <= most and (number > above or about.above is None)


def _valid(about: Option) -> str:
    """The range in words."""
    most = f"at most {LARGEST if about.most is None else about.most:.3g}"
    if about.above is not None:
        return f"above {about.above} and {most}"
    if about.least is not None:
        return f"of at least {about.least} and {most}"
    if about.most is not None:
        return f"of {most}"
    return "that float32 can hold" + (", inf or -inf" if about.infinite else "")
