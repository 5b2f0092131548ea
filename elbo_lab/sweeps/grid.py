"""Grids of configurations: their cells, the groups that share a program, and their training time.

A cell is one value of every axis. It has R replicates, which are Configs of one seed each.
Replicates, of the same or of different cells, share a compiled program if they differ in seeds and
numeric hyper-parameters alone.
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

# Largest number of replicates in one program. Their states, and on a GPU their activations, are in
# memory at once, and a crash loses all of them.
LARGEST_GROUP = 32
# The unit of work is the time of one draw in a training step of one image. Measured on a CPU at
# B = 20, a step takes 0.9 ms and 0.21 ms more for each draw: about 4 draws of overhead. A draw of
# the evaluation has no gradient.
STEP_OVERHEAD, EVALUATION_DRAW = 4.0, 0.4
# Work of a process before its first and after its last step, about 10 s on a CPU.
GROUP_OVERHEAD = 1e6


class Cell(NamedTuple):
    """One value of every axis."""

    values: dict[str, str]  # axis -> the text of its value
    config: Config | None  # with its replicates; None if these values cannot be trained
    reason: str = ""  # why they cannot be trained

    @property
    def name(self) -> str:
        """ "objective=iwae, k=5": the values; in a grid without axes, the objective and K."""
        values = self.values
        if not values and self.config:
            own = {"objective": self.config.objective, "k": self.config.k}
            own = {name: value for name, value in own.items() if value is not None}
            values = own or {"model": self.config.model}
        return ", ".join(f"{name}={value}" for name, value in values.items())


class Group(NamedTuple):
    """Replicates that are trained in one program."""

    config: Config  # of the first replicate, with the number of replicates
    replicas: tuple[Config, ...]  # one seed each
    directory: str | None = None  # name of an existing run directory; None: derived from replicas

    @property
    def name(self) -> str:
        """Name of the run directory; the same replicas have the same name."""
        if self.directory is not None:
            return self.directory
        config = self.config
        estimator = f"-{config.estimator}" if config.estimator else ""
        return f"{configs.label(config)}{estimator}-{digest(self.replicas)}"


def digest(replicas: Sequence[Config]) -> str:
    """Eight hexadecimal digits that identify a list of replicates."""
    return configs.digest_of([configs.digest_values(replica) for replica in replicas])


def expand(
    axes: Mapping[str, Sequence[str]],
    make: Callable[[dict[str, str]], Config],
    applies: Callable[[str, dict[str, str]], bool] = lambda name, values: True,
) -> list[Cell]:
    """All cells of a grid, the last axis varying fastest.

    An axis may not apply to a cell, such as a setting of one model family to the cells of another.
    The cell then has the value `NOT_APPLICABLE`, and cells that are equal by this become one.

    Args:
      axes: axis -> texts of its values.
      make: (axis -> text, of all axes that apply) -> Config. A UserError is the reason why the cell
        is skipped.
      applies: (axis, axis -> text) -> True if the axis applies to that cell. An axis that applies
        to no cell is passed to `make`, which refuses it.

    Raises:
      UserError: a value cannot be trained in any cell; the message is the first cell's reason.
    """
    combinations = [
        dict(zip(axes, texts, strict=True)) for texts in itertools.product(*axes.values())
    ]
    unused = {name for name in axes if not any(applies(name, values) for values in combinations)}

    def shown(values: dict[str, str]) -> tuple[str, ...]:
        return tuple(
            text if name in unused or applies(name, values) else NOT_APPLICABLE
            for name, text in values.items()
        )

    cells = []
    for row in dict.fromkeys(map(shown, combinations)):
        values = dict(zip(axes, row, strict=True))
        applicable = {name: text for name, text in values.items() if text != NOT_APPLICABLE}
        try:
            cells.append(Cell(values, make(applicable)))
        except UserError as error:
            cells.append(Cell(values, None, str(error)))
    check_values(cells)
    return cells


def check_values(cells: Sequence[Cell]) -> None:
    """Raises a UserError if a value cannot be trained in any cell; the message is the reason of the
    first cell with that value.
    """
    if all(cell.config is None for cell in cells):
        raise UserError(cells[0].reason)
    for name in cells[0].values:
        for text in dict.fromkeys(cell.values[name] for cell in cells):
            if text == NOT_APPLICABLE:
                continue
            with_value = [cell for cell in cells if cell.values[name] == text]
            if all(cell.config is None for cell in with_value):
                raise UserError(with_value[0].reason)


def find(cells: Sequence[Cell], wanted: Mapping[str, str]) -> int:
    """The index of the first cell that has the wanted values and can be trained.

    Args:
      cells: the grid.
      wanted: axis -> text, of some axes.

    Raises:
      UserError: there is no such axis or no such cell, or all such cells are skipped.
    """
    shown = ",".join(f"{name}={value}" for name, value in wanted.items())
    axes = list(cells[0].values)
    for name in wanted:
        if name not in axes:
            choices = ", ".join(axes) or "none"
            raise UserError(
                f"--baseline={shown} must name axes of the grid ({choices}); got {name!r}."
            )
    matches = [
        i
        for i, cell in enumerate(cells)
        if all(cell.values[name] == text for name, text in wanted.items())
    ]
    if not matches:
        raise UserError(f"--baseline={shown} is not a cell of the grid.")
    for i in matches:
        if cells[i].config is not None:
            return i
    raise UserError(f"--baseline={shown} is a skipped cell: {cells[matches[0]].reason}")


def program(config: Config) -> Config:
    """The part of a config that is compiled: replicates with an equal part share a program.

    Courses ("linear:0:1:5000") and infinite orders (alpha = -inf or inf) are compiled; other
    hyper-parameters are arguments of the step.
    """
    numbers = {
        name: 0.0
        for name, value in configs.traced(config).items()
        if isinstance(value, float | int) and math.isfinite(value)
    }
    return configs.replace(config, seed=0, replicates=1, learning_rate=0.0, **numbers)


def groups(replicas: Iterable[Config], work: Callable[[Config], float], jobs: int) -> list[Group]:
    """Splits replicates into groups of one program each, ordered by decreasing work.

    With several jobs, the replicates of a program are split over several groups if the last job
    then ends earlier.

    Args:
      replicas: one seed each; duplicates are dropped.
      work: replicate -> its work, in the units of `training_work`.
      jobs: number of groups that run at the same time.
    """
    programs: dict[Config, list[Config]] = {}
    for replica in dict.fromkeys(replicas):
        programs.setdefault(program(replica), []).append(replica)

    def size(part: Sequence[Config]) -> float:
        return len(part) * work(part[0])  # replicates of one program take equally long

    def split(largest: float) -> list[Sequence[Config]]:
        parts = [
            part
            for replicates in programs.values()
            for part in _parts(replicates, size(replicates), largest)
        ]
        return sorted(parts, key=size, reverse=True)

    def makespan(parts: Sequence[Sequence[Config]]) -> float:
        return time_left([GROUP_OVERHEAD + size(part) for part in parts], [], jobs, 1.0)

    total = sum(size(replicates) for replicates in programs.values())
    num_shares = range(1, 4 * jobs + 1) if jobs > 1 and total > 0 else (1,)
    candidates = [split(total / number) for number in num_shares]
    # Take the fewest groups that need no more than a tenth above the shortest time.
    longest = 1.1 * min(makespan(parts) for parts in candidates)
    fast = [parts for parts in candidates if makespan(parts) <= longest]
    return [group(part) for part in min(fast, key=len)]


def _parts(replicates: Sequence[Config], size: float, largest: float) -> list[Sequence[Config]]:
    """Splits replicates of one program into the fewest nearly equal parts within a largest size.

    A part has at least one replicate, also if that exceeds the size, and at most `LARGEST_GROUP`.

    Args:
      replicates: of one program.
      size: their work in total.
      largest: work of a part; 0: any.
    """
    count = math.ceil(len(replicates) / LARGEST_GROUP)
    if largest > 0:
        count = max(count, math.ceil(size / largest - 1e-9))  # less a rounding error
    count = min(count, len(replicates))
    ends = [round(i * len(replicates) / count) for i in range(count + 1)]
    return [replicates[start:end] for start, end in itertools.pairwise(ends)]


def group(replicas: Sequence[Config]) -> Group:
    """A group of replicates that share a program."""
    shared = dataclasses.replace(replicas[0], replicates=len(replicas))
    return Group(shared, tuple(replicas))


def training_work(config: Config, num_train: int) -> float:
    """Work of training one replicate; the unit is one draw in a step of one image of the default
    model.
    """
    steps = training.total_steps(config, num_train - config.held_out)
    draws = config.batch_size * ((config.k or 1) * config.m + STEP_OVERHEAD)
    return steps * draws * _relative_cost(config)


def evaluation_work(config: Config, num_test: int) -> float:
    """Work of evaluating one replicate, in the units of `training_work`."""
    draws = 1 if config.k is None else config.eval_k  # a model without draws is evaluated once
    return EVALUATION_DRAW * num_test * draws * _relative_cost(config)


def time_left(waiting: Sequence[float], running: Sequence[float], jobs: int, rate: float) -> float:
    """Seconds until the last group ends, if a free job always takes the next waiting group.

    Args:
      waiting: work of each group that has not begun, in order.
      running: work left of each group that runs.
      jobs: number of groups that run at the same time.
      rate: work per second of one job.
    """
    # For each job, the work after which it is free; a heap, whose first entry is the least.
    free_after = [*running, *[0.0] * (jobs - len(running))]
    heapq.heapify(free_after)
    for work in waiting:
        heapq.heapreplace(free_after, free_after[0] + work)
    return max(free_after) / rate


def _relative_cost(config: Config) -> float:
    """Estimated cost of one draw of one image, relative to the default model's.

    It decides how replicates are grouped and the time left that is shown, not the results. For mlp
    it counts multiplications. Every other family has one measured number for its default sizes.
    """
    if config.model != "mlp":
        return MODELS[config.model].relative_cost
    return _multiplications(config.model_options) / _multiplications(MLPOptions())


def _multiplications(model: MLPOptions) -> int:
    """Multiplications of the generation network for one draw of a 784-pixel image."""
    total, lower = 0, 784
    for i, latents in enumerate(model.latent_dims):
        hidden = model.hidden_dims if i == 0 else model.upper_hidden_dims
        widths = (lower, *hidden, latents)
        total += sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))
        lower = latents
    return total
