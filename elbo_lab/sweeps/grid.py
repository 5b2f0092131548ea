"""Grids of configurations: their cells, what is trained in one program, and how long it takes.

A cell is one choice of every axis, and stands for R replicates: Configs of one seed each.
Replicates of any cells that differ in seeds and numeric hyper-parameters alone share a compiled
program.
"""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from elbo_lab import configs, training
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.models.mlp import MLPOptions
from elbo_lab.models.registry import MODELS
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE

# Replicates in one program at most: their states, and on a GPU their activations, lie in memory
# together, and what is trained together is lost together.
LARGEST_GROUP = 32
# A step of one image and one draw, in draws: what the step takes beside its draws (measured on a
# CPU: 0.9 ms and 0.21 ms a draw at B = 20), and a draw of the evaluation, which has no gradient.
STEP_OVERHEAD, EVALUATION_DRAW = 4.0, 0.4
# What a process takes before its first step and after its last, about 10 s on a CPU.
GROUP_OVERHEAD = 1e6


class Cell(NamedTuple):
    """One choice of every axis."""

    values: dict[str, str]  # axis -> the text of its value
    config: Config | None  # with its replicates; None if the choice cannot be trained
    reason: str = ""  # why it cannot

    @property
    def name(self) -> str:
        """ "objective=iwae, k=5"; of a grid without axes, its objective and K."""
        values = self.values
        if not values and self.config:
            config = self.config
            values = {"objective": config.objective, "k": config.k}
            values = {name: value for name, value in values.items() if value is not None}
            values = values or {"model": config.model}
        return ", ".join(f"{name}={value}" for name, value in values.items())


class Group(NamedTuple):
    """Replicates that are trained in one program."""

    config: Config  # what they share; replicates is their number
    replicas: tuple[Config, ...]  # one seed each
    directory: str | None = None  # the name that its run has already

    @property
    def name(self) -> str:
        """A directory's name, the same for the same replicas."""
        if self.directory is not None:
            return self.directory
        config = self.config
        estimator = f"-{config.estimator}" if config.estimator else ""
        return f"{configs.label(config)}{estimator}-{digest(self.replicas)}"


def digest(replicas: Sequence[Config]) -> str:
    """Eight hexadecimal digits that tell lists of replicates apart."""
    return configs.digest_of([configs.told_apart_by(replica) for replica in replicas])


def expand(
    axes: Mapping[str, Sequence[str]],
    make: Callable[[dict[str, str]], Config],
    applies: Callable[[str, dict[str, str]], bool] = lambda name, values: True,
) -> list[Cell]:
    """All cells of a grid, the last axis varying fastest.

    An axis that does not apply to some cells, as a setting of one model family to the cells of
    another, has `NOT_APPLICABLE` there for all of its values, which make one cell.

    Args:
      axes: the values of each axis, as texts.
      make: a choice of every axis that applies -> its Config; a UserError makes the cell a skipped
        one.
      applies: (axis, a choice of every axis) -> whether the axis applies. One that applies to no
        choice is passed to `make` all the same, which refuses it.

    Raises:
      UserError: a value that cannot be trained in any cell, with the reason of its first cell.
    """
    choices = [dict(zip(axes, choice, strict=True)) for choice in itertools.product(*axes.values())]
    kept = [name for name in axes if not any(applies(name, values) for values in choices)]
    rows = [
        tuple(
            text if name in kept or applies(name, values) else NOT_APPLICABLE
            for name, text in values.items()
        )
        for values in choices
    ]
    cells = []
    for row in dict.fromkeys(rows):
        values = dict(zip(axes, row, strict=True))
        try:
            given = {name: text for name, text in values.items() if text != NOT_APPLICABLE}
            cells.append(Cell(values, make(given)))
        except UserError as error:
            cells.append(Cell(values, None, str(error)))
    check_values(cells)
    return cells


def check_values(cells: Sequence[Cell]) -> None:
    """Raises a UserError for a value that cannot be trained in any cell, with the reason of its
    first cell.
    """
    if all(cell.config is None for cell in cells):
        raise UserError(cells[0].reason)
    for name in cells[0].values:
        for text in dict.fromkeys(cell.values[name] for cell in cells):
            if text == NOT_APPLICABLE:
                continue
            having = [cell for cell in cells if cell.values[name] == text]
            if all(cell.config is None for cell in having):
                raise UserError(having[0].reason)


def find(cells: Sequence[Cell], wanted: Mapping[str, str]) -> int:
    """The index of the first cell that has the wanted values.

    Raises:
      UserError: no axis of such a name, no such cell, or one that is skipped.
    """
    shown = ",".join(f"{name}={value}" for name, value in wanted.items())
    axes = list(cells[0].values)
    for name in wanted:
        if name not in axes:
            choices = ", ".join(axes) or "none"
            raise UserError(f"--baseline={shown} names no axis of the grid ({choices}): {name!r}.")
    found = [i for i, c in enumerate(cells) if all(c.values[n] == v for n, v in wanted.items())]
    if not found:
        raise UserError(f"--baseline={shown} is no cell of the grid.")
    valid = [i for i in found if cells[i].config is not None]
    if not valid:
        raise UserError(f"--baseline={shown} is a cell that is skipped: {cells[found[0]].reason}")
    return valid[0]


def program(config: Config) -> Config:
    """What of a config is compiled in: equal for replicates that can be trained in one program.

    Courses ("linear:0:1:5000") and infinite orders (alpha = -inf or inf) are compiled in; other
    numbers are arguments of the step.
    """
    numbers = {
        name: 0.0
        for name, value in configs.traced(config).items()
        if isinstance(value, float | int) and math.isfinite(value)
    }
    return configs.replace(config, seed=0, replicates=1, learning_rate=0.0, **numbers)


def groups(replicas: Iterable[Config], work: Callable[[Config], float], jobs: int) -> list[Group]:
    """Replicates in groups of one program each, the longest first.

    With several jobs, a program's replicates are spread over several groups where that makes all
    end earlier.

    Args:
      replicas: one seed each; equal ones count once.
      work: of a replicate, in the units of `training_work`.
      jobs: groups that run at the same time.
    """
    programs: dict[Config, list[Config]] = {}
    for replica in dict.fromkeys(replicas):
        programs.setdefault(program(replica), []).append(replica)

    def size(part: Sequence[Config]) -> float:
        return len(part) * work(part[0])  # the replicates of a program take equally long

    def spread(largest: float) -> list[Sequence[Config]]:
        parts = [p for same in programs.values() for p in _parts(same, size(same), largest)]
        return sorted(parts, key=size, reverse=True)

    def end(parts: Sequence[Sequence[Config]]) -> float:
        return time_left([GROUP_OVERHEAD + size(part) for part in parts], [], jobs, 1.0)

    total = sum(map(size, programs.values()))
    shares = range(1, 4 * jobs + 1) if jobs > 1 and total > 0 else (1,)
    found = [spread(total / share) for share in shares]
    # Fewer programs where that costs less than a tenth.
    soon = 1.1 * min(map(end, found))
    return [group(part) for part in min((p for p in found if end(p) <= soon), key=len)]


def _parts(same: Sequence[Config], size: float, largest: float) -> list[Sequence[Config]]:
    """Replicates in as few nearly equal parts as keeps each within a size, as far as it can be."""
    count = math.ceil(len(same) / LARGEST_GROUP)
    if largest > 0:
        count = max(count, math.ceil(size / largest - 1e-9))
    count = min(count, len(same))
    ends = [round(i * len(same) / count) for i in range(count + 1)]
    return [same[a:b] for a, b in itertools.pairwise(ends)]


def group(replicas: Sequence[Config]) -> Group:
    """A group of replicates that share a program."""
    shared = dataclasses.replace(replicas[0], replicates=len(replicas))
    return Group(shared, tuple(replicas))


def training_work(config: Config, num_train: int) -> float:
    """Time to train one replicate, in units of one draw of a step of one image."""
    steps = training.total_steps(config, num_train - config.held_out)
    draws = config.batch_size * ((config.k or 1) * config.m + STEP_OVERHEAD)
    return steps * draws * _size(config)


def evaluation_work(config: Config, num_test: int) -> float:
    """Time to evaluate one replicate, in the units of `training_work`."""
    draws = 1 if config.k is None else config.eval_k  # what has no bound is measured once
    return EVALUATION_DRAW * num_test * draws * _size(config)


def time_left(waiting: Sequence[float], running: Sequence[float], jobs: int, rate: float) -> float:
    """Seconds until the last job ends, if each takes up the next group when it is free.

    Args:
      waiting: work of the groups that have not begun, in their order.
      running: work left of those that run.
      jobs: how many run at the same time.
      rate: work per second of one job.
    """
    free = [*running, *[0.0] * (jobs - len(running))]
    heapq.heapify(free)
    for work in waiting:
        heapq.heapreplace(free, free[0] + work)
    return max(free) / rate


def _size(config: Config) -> float:
    """Multiplications of the generation network for a 784-pixel image, of the default's; for other
    families than mlp what the registry says of their default sizes.
    """
    if config.model != "mlp":
        return MODELS[config.model].work

    def count(model: MLPOptions) -> int:
        total, below = 0, 784
        for i, latents in enumerate(model.latent_dims):
            hidden = model.upper_hidden_dims if i else model.hidden_dims
            widths = (below, *hidden, latents)
            total += sum(a * b for a, b in itertools.pairwise(widths))
            below = latents
        return total

    return count(config.model_options) / count(MLPOptions())
