"""Checks settings of families, objectives and optimizers against their ranges and choices.

Each setting states its range and choices in its own field (`elbo_lab.options`).
"""

import math
import typing
from typing import Any

import numpy as np

from elbo_lab import configs, schedules
from elbo_lab.errors import UserError
from elbo_lab.options import Option, options_of, plain_type, types_of, values_of

# The range of positive normal float32 numbers. Larger ones round to infinity; arithmetic flushes
# smaller ones to zero.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
FLOAT32 = f"that float32 holds ({SMALLEST:.2g} to {LARGEST:.2g})"
LARGEST_COUNT = int(np.iinfo(np.int32).max)
# Python builds, and XLA compiles, each layer on its own.
LARGEST_DEPTH = 100


def check_options(settings: Any) -> None:
    """Raises a UserError for a value that is out of its range or not one of its choices.

    Args:
      settings: an instance of a dataclass of `option` fields.
    """
    values, annotations = values_of(settings), types_of(settings)
    for name, option in options_of(settings).items():
        value, annotation = values[name], annotations[name]
        if value is None and type(None) in typing.get_args(annotation):
            continue
        kind = plain_type(annotation)
        if option.choices is not None:
            _check_choice(name, value, option.choices)
        elif kind is tuple:
            _check_sizes(name, value, option)
        elif option.traced or kind is float:
            check_number(name, value, option)
        elif annotation in (int, int | None):
            _check_odd(name, value, option)
            check_count(name, value, 0 if option.least is None else option.least, option.most)


def in_float32(number: float) -> bool:
    """Returns True if float32 holds a number to its precision: not as inf, and as 0 only for 0."""
    return number == 0 or SMALLEST <= abs(number) <= LARGEST


def check_count(name: str, value: int, least: float = 1, most: float | None = None) -> None:
    """Raises a UserError for a whole number out of its range."""
    if value < least:
        raise UserError(f"--{name} must be at least {least}; got {value}.")
    most = LARGEST_COUNT if most is None else most
    if value > most:
        raise UserError(f"--{name} must be at most {most}; got {value}.")


def _check_odd(name: str, value: int, option: Option) -> None:
    """Raises a UserError for an even number, or one out of its range, where it must be odd."""
    if option.odd and not (value % 2 and option.least <= value <= option.most):
        raise UserError(
            f"--{name} must be an odd number in {option.least}..{option.most}; got {value}."
        )


def check_number(name: str, value: float | str, option: Option) -> None:
    """Raises a UserError for a number, or a course over the steps, out of its range."""
    ends = (value,)
    if isinstance(value, str):
        try:
            course = schedules.course_parts(value)
        except ValueError:
            raise UserError(f"--{name} must be {schedules.SYNTAX}; got {value!r}.") from None
        ends = (course.start, course.end)
        if not in_float32(course.length) or abs(course.end - course.start) > LARGEST:
            raise UserError(
                f"--{name} must be a course whose STEPS and END - START are numbers {FLOAT32}; "
                f"got {value!r}."
            )
    if option.infinite and value in (-math.inf, math.inf):
        return
    is_rounded_up = any(_is_rounded_up(end, option) for end in ends)
    if all(_is_in_range(end, option) and in_float32(end) for end in ends) and not is_rounded_up:
        return
    valid = _range_in_words(option)
    if is_rounded_up:
        valid += f" (float32 rounds it to {option.below})"
    if any(_is_in_range(end, option) and 0 < abs(end) < SMALLEST for end in ends):
        valid += f" (float32 takes less than {SMALLEST:.2g} for 0)"
    raise UserError(f"--{name} must be a number {valid}; got {value}.")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"--{name} must be one of {', '.join(choices)}; got {value!r}.")


def _check_sizes(name: str, sizes: tuple[int, ...], option: Option) -> None:
    if not sizes and option.may_be_empty:
        return
    least = 1 if option.least is None else option.least
    if not sizes or any(size < least for size in sizes):
        raise UserError(
            f"--{name} must be whole numbers of at least {least}, separated by commas; got "
            f"{configs.flag_text(sizes)!r}."
        )
    if option.most is not None and max(sizes) > option.most:
        raise UserError(
            f"--{name} must be at most {option.most} each; got {configs.flag_text(sizes)}."
        )
    if len(sizes) > LARGEST_DEPTH:
        raise UserError(
            f"--{name} must have at most {LARGEST_DEPTH} sizes, each of which is compiled on its "
            f"own; got {len(sizes):,}."
        )


def _is_in_range(number: float, option: Option) -> bool:
    least = -math.inf if option.least is None else option.least
    most = math.inf if option.most is None else option.most
    above = -math.inf if option.above is None else option.above
    below = math.inf if option.below is None else option.below
    return least <= number <= most and above < number < below


def _is_rounded_up(number: float, option: Option) -> bool:
    """True if float32 rounds a number below the exclusive bound to that bound."""
    return (
        option.below is not None
        and _is_in_range(number, option)
        and np.float32(number) >= np.float32(option.below)
    )


def _range_in_words(option: Option) -> str:
    most = f"at most {LARGEST if option.most is None else option.most:.3g}"
    if option.below is not None:
        most = f"below {option.below}"
    if option.above is not None:
        return f"above {option.above} and {most}"
    if option.least is not None:
        return f"of at least {option.least} and {most}"
    if option.most is not None:
        return f"of {most}"
    return "that float32 can hold" + (", inf or -inf" if option.infinite else "")
