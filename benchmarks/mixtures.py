"""Speed of EM for a mixture of Gaussians with full covariances, in turns with other libraries."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.peers import OURS, common, ours
from benchmarks.training import for_all
from benchmarks.workers import Worker, in_turns, settings_of, spread, workers
from elbo_lab import configs, methods
from elbo_lab.data import Batch
from elbo_lab.runs.examples import FIRST_ROWS

# Iterations of EM that are timed together.
ITERATIONS = 20
# Relative difference of two values of log p(x) that float32 may cause: 80 of its roundings.
TOLERANCE = 1e-5


class Size(NamedTuple):
    """The data and the mixture that is fitted to them."""

    points: int
    dims: int
    components: int


SIZE = Size(10_000, 50, 20)


def measure_mixtures(
    peers: Sequence[str], rounds: int, say: Callable[[str], None], size: Size = SIZE
) -> dict[str, Any]:
    """Seconds of `ITERATIONS` iterations of EM from the same start, and ratios to peers.

    A turn goes from the start to the end. The log-likelihoods of all rows are compared there.

    Args:
      peers: rows besides ours.
      rounds: alternations.
      say: called with a sentence about each peer that does not run.
      size: of the data and the mixture.

    Raises:
      RuntimeError: a peer has another log-likelihood at the start or at the end.
    """

    def start(row: str) -> Worker:
        # Our full-batch iteration is a call of its own.
        return Worker(row, folder, 1 if row == OURS else ITERATIONS, cache=cache)

    with (
        tempfile.TemporaryDirectory() as cache,
        task_folder(size) as folder,
        workers([OURS, *peers], start, say) as running,
    ):
        compared = compared_fits(running, say)
        seconds = in_turns([fitting_turn(worker) for worker in running.values()], rounds)
        memory = {row: worker.ask("memory")["mb"] for row, worker in running.items()}
    return {
        **size._asdict(),
        "iterations": ITERATIONS,
        "rows": {
            row: {
                "seconds": statistics.median(seconds[:, i]),
                "ours_over_this": spread(seconds[:, i] / seconds[:, 0]),
                "peak_memory_mb": memory[row],
                **compared[row],
            }
            for i, row in enumerate(running)
        },
    }


def fitting_turn(worker: Worker) -> Callable[[], float]:
    """A function that goes back to the start, and returns the seconds of the iterations."""

    def turn() -> float:
        worker.ask("restart")
        return worker.ask("train", ITERATIONS // worker.steps)["seconds"]

    return turn


def compared_fits(
    running: dict[str, Worker], say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Mean log p(x) of the data at the start and after the iterations, for every row.

    The rows must agree in both. The time of these first iterations includes compilation. A peer
    that fails is removed from `running`.

    Args:
      running: row -> worker; ours is the first.
      say: called with a sentence about each peer that fails.

    Raises:
      RuntimeError: a row disagrees with ours.
    """
    lines: dict[str, dict[str, float]] = {}

    def compare(row: str, worker: Worker) -> None:
        first_seconds = fitting_turn(worker)()
        reached = worker.ask("bound", 1)["values"][0]
        worker.ask("restart")
        start = worker.ask("bound", 1)["values"][0]
        line = {"log_px_at_start": start, "log_px_reached": reached, "first_seconds": first_seconds}
        if row != OURS:
            for name in ("log_px_at_start", "log_px_reached"):
                check_agreement(row, name, lines[OURS][name], line[name])
        lines[row] = line

    for_all(running, compare, say)
    return lines


def check_agreement(row: str, name: str, own: float, theirs: float) -> None:
    """Raises a RuntimeError if a row's log p(x) differs from ours by more than float32 rounding."""
    if not abs(own - theirs) <= TOLERANCE * abs(own):  # also for NaN
        raise RuntimeError(
            f"{row} has another log-likelihood, {name} = {theirs:.6f}; ours is {own:.6f}."
        )


@contextlib.contextmanager
def task_folder(size: Size = SIZE) -> Iterator[str]:
    """Writes a task: draws of a random mixture, and the start of EM as `experiments.run` makes it.

    A step of EM sees all points, so that their order is not shuffled.
    """
    x = draws_of_mixture(size)
    options = {"components": size.components, "likelihood": "gaussian", "shuffle": False}
    config = configs.make(model="mixture", batch_size=len(x), **options)
    method = methods.make(config, ours.spec_for(x), len(x))
    start = jax.jit(method.init)(jax.random.key(0), Batch(x[:FIRST_ROWS]))
    settings = settings_of(config) | {"options": options}
    with tempfile.TemporaryDirectory() as folder:
        common.write_task(folder, settings, x, x, ours.arrays_of(*start))
        yield folder


def draws_of_mixture(size: Size) -> np.ndarray:
    """Draws of a mixture of Gaussians whose parameters are random, [N, D], float32.

    Means lie about as far from each other as a component is wide. A covariance is W / (2 D), with W
    of a Wishart law of 2 D degrees of freedom.
    """
    rng = np.random.default_rng(0)
    dims = size.dims
    component = rng.integers(size.components, size=size.points)
    x = np.zeros((size.points, dims), np.float32)
    for k in range(size.components):
        rows = component == k
        mean = rng.normal(0, 0.5, dims)
        factor = rng.normal(0, (2 * dims) ** -0.5, (2 * dims, dims))
        x[rows] = mean + rng.normal(size=(rows.sum(), 2 * dims)) @ factor
    return x
