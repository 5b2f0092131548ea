"""Schedules: functions from the step to a factor of the learning rate or to a hyper-parameter.

The schedule of a hyper-parameter, written as "linear:0:1:5000", is called its course.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

Schedule = Callable[[Array], Array]


def constant(total_steps: int) -> Schedule:
    """1 at every step."""
    del total_steps
    return lambda step: jnp.ones((), jnp.float32)


def cosine(total_steps: int) -> Schedule:
    """1/2 (1 + cos(pi step / total_steps)): from 1 to 0 (Loshchilov and Hutter 2017, eq. 5)."""
    return lambda step: 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0)))


def burda(total_steps: int) -> Schedule:
    """10^(-i/7) for a share 3^i of the run, i = 0..7 (Burda et al. 2016, section 5, where the
    shares are of 3,280 = sum_i 3^i passes).
    """
    return _burda_stages(total_steps, [10.0 ** (-i / 7.0) for i in range(8)])


def burda_rounded(total_steps: int) -> Schedule:
    """`burda` with factors rounded to two digits: 1, .72, .52, .37, .27, .19, .14, .1 (the public
    code of Burda et al. 2016).
    """
    return _burda_stages(total_steps, [round(10.0 ** (1 - i / 7.0), 1) / 10 for i in range(8)])


def warmup(steps: int) -> Schedule:
    """min(1, (step + 1) / steps): 1 / steps at the first step, 1 from the last step of the warm-up.

    Schedules of the learning rate are multiplied by it.
    """
    return lambda step: jnp.minimum((step + 1) / steps, 1.0)


def _burda_stages(total_steps: int, factors: list[float]) -> Schedule:
    # Steps at which stages 0..6 end: (3^(i+1) - 1) / 2 = sum_{j<=i} 3^j of the 3,280 passes.
    ends = [total_steps * ((3 ** (i + 1) - 1) / 2) / 3280 for i in range(7)]

    def factor(step: Array) -> Array:
        stage = jnp.sum(step >= jnp.asarray(ends))
        return jnp.asarray(factors, jnp.float32)[stage]

    return factor


# Schedules of the learning rate's factor, by their names in --lr_schedule.
LR_SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "burda": burda,
    "burda_rounded": burda_rounded,
}


def linear_between(start: float, end: float, steps: float) -> Schedule:
    """Linear from start to end in `steps` steps, then end (Sonderby et al. 2016, eq. 17)."""
    return lambda step: start + (end - start) * jnp.minimum(step / steps, 1.0)


def cosine_between(start: float, end: float, steps: float) -> Schedule:
    """Half a cosine from start to end in `steps` steps, then end."""
    return lambda step: start + (end - start) * (1.0 - cosine(steps)(step))


def cyclical_between(start: float, end: float, period: float) -> Schedule:
    """Linear from start to end in the first half of every period, end in the second half (Fu et al.
    2019, eq. 6 and 7, with R = 0.5).
    """
    return lambda step: start + (end - start) * jnp.minimum(2.0 * (step % period) / period, 1.0)


# Courses of a hyper-parameter, by the name before the first colon of their text.
COURSES: dict[str, Callable[[float, float, float], Schedule]] = {
    "linear": linear_between,
    "cosine": cosine_between,
    "cyclical": cyclical_between,
}
SYNTAX = (
    f"a number, or {', '.join(f'{name}:START:END:STEPS' for name in COURSES)} (STEPS: a number of "
    "steps, or a share of the run as 20%)"
)


class Course(NamedTuple):
    """The parts of a course's text."""

    name: str  # one of COURSES
    start: float
    end: float
    length: float  # steps, or a share of the run in (0, 1]
    is_share: bool

    def steps(self, total_steps: float) -> float:
        """The length in steps, of a run of `total_steps`."""
        return self.length * total_steps if self.is_share else self.length


def course_parts(text: str) -> Course:
    """The parts of "linear:0:1:5000" or "linear:0:1:20%".

    Raises:
      ValueError: the text has another form, its number of steps is less than one, or its share of
        the run is not in (0, 100] percent.
    """
    name, *numbers = text.split(":")
    if name not in COURSES or len(numbers) != 3:
        raise ValueError(text)
    is_share = numbers[2].endswith("%")
    numbers[2] = numbers[2].removesuffix("%")
    try:
        start, end, length = map(float, numbers)
    except ValueError:
        raise ValueError(text) from None
    if not (0 < length <= 100 if is_share else length >= 1):
        raise ValueError(text)
    return Course(name, start, end, length / 100 if is_share else length, is_share)


def course(text: str, total_steps: int) -> Schedule:
    """The schedule of a text such as "linear:0:1:5000": step -> value, float32.

    Args:
      text: see `course_parts`.
      total_steps: steps of the whole run, for a length that is a share of it.
    """
    parts = course_parts(text)
    # A share of a short run is at least one step.
    steps = max(parts.steps(total_steps), 1.0)
    schedule = COURSES[parts.name](parts.start, parts.end, steps)
    return lambda step: jnp.asarray(schedule(step), jnp.float32)
