"""The length of a run in steps, and the compiled calls that it is divided into."""

import math
from collections.abc import Sequence

from elbo_lab.configs import Config

# Draws in one compiled call where log_every is not given: about a second on a CPU.
DRAWS_PER_CALL = 50_000


def steps_per_epoch(config: Config, num_train: int) -> int:
    """Full batches in a pass; the remainder of each (newly permuted) pass is left out."""
    return num_train // config.batch_size


def total_steps(config: Config, num_train: int) -> int:
    """Steps of the whole run."""
    return config.epochs * steps_per_epoch(config, num_train)


def steps_per_call(config: Config, num_train: int) -> int:
    """Steps in one compiled call, at most a pass.

    These are `log_every` if it is given. Otherwise they are a divisor of the run's steps, so that
    all calls have the same length and compile once, with about DRAWS_PER_CALL draws in a call.
    """
    total, epoch = total_steps(config, num_train), steps_per_epoch(config, num_train)
    if config.log_every is not None:
        return min(config.log_every, epoch, total)
    wanted = DRAWS_PER_CALL // (config.batch_size * (config.k or 1) * config.m)
    wanted = min(max(wanted, 10), epoch, total)
    divisors = [d for d in range(max(wanted // 2, 1), min(2 * wanted, epoch) + 1) if total % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)), default=wanted)


class Calls(Sequence[tuple[int, int]]):
    """The compiled calls from step `first` on: (first step, last step exclusive) of each.

    Calls have `length` steps between multiples of it; the first and the last may be shorter.
    """

    def __init__(self, first: int, total: int, length: int):
        self.first, self.total, self.length = first, total, length

    def __len__(self) -> int:
        if self.first >= self.total:
            return 0
        return math.ceil(self.total / self.length) - self.first // self.length

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = (self.first // self.length + index) * self.length
        return max(start, self.first), min(start + self.length, self.total)
