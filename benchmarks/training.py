"""Speed of training, evaluation and replicates: this library, its peers and the limit, in turns."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.limits import Timed, decoder_products, kernels, limits, repeated, step_products
from benchmarks.peers import OURS, OURS_SPREAD
from benchmarks.peers.common import DATA_DIM, DRAWS, NUM_IMAGES
from benchmarks.peers.ours import SPEC
from benchmarks.workers import (
    COMPARED_IMAGES,
    Failed,
    Worker,
    in_turns,
    spread,
    task_folder,
    workers,
)
from elbo_lab import evaluation, methods, models
from elbo_lab.configs import Config
from elbo_lab.data import Batch
from elbo_lab.devices import setup
from elbo_lab.methods import Method

# Floating-point operations per second by which the steps of a turn are planned, and the repetitions
# of a matrix product.
PLANNED, PLANNED_LIMIT = 60e9, 100e9
# Steps (at least) after which the bounds are compared, and draws of each comparison.
COMPARED_STEPS, COMPARED_DRAWS = 60, 8
# Standard errors by which two bounds of the same parameters may differ.
TOLERANCE = 5
# Rows whose calls are one compiled program.
SCANNED = (OURS, "numpyro")


def measure_train(
    batch: int, k: int, peers: Sequence[str], rounds: int, burst: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Steps per second, fractions of the limits and ratios to peers, alternating in rounds.

    Args:
      batch, k: the cell.
      peers: rows besides ours.
      rounds: alternations.
      burst: seconds of a turn.
      say: called with a sentence about each peer that does not run.
    """
    products = step_products(batch, k)
    flop = sum(product.flop for product in products)
    # Compiled loops take the steps of a turn in one call, which is at most a pass over the images.
    # The others take them in ten calls.
    steps = max(1, min(int(burst * PLANNED / flop / 10), NUM_IMAGES // batch // 10))
    scanned_steps = 10 * steps

    def start(row: str) -> Worker:
        return Worker(row, folder, scanned_steps if row in SCANNED else steps)

    with task_folder(batch, k) as folder, workers([OURS, *peers], start, say) as running:
        compared_steps = scanned_steps * math.ceil(COMPARED_STEPS / scanned_steps)
        bounds = compared_bounds(running, compared_steps, say)
        calls = {row: planned_calls(worker, burst) for row, worker in running.items()}
        alone = limits(products, burst, PLANNED_LIMIT)
        times = max(3, int(burst * PLANNED_LIMIT / flop))
        run, carry = repeated([f for product in products for f in kernels(product)], times)
        together = Timed(run, carry, times)

        turns = [training_turn(worker, calls[row]) for row, worker in running.items()]
        turns += [lambda: sum(timed.once() for timed in alone), together.once]
        seconds = in_turns(turns, rounds)
        memory = {row: worker.ask("memory")["mb"] for row, worker in running.items()}
    ours, limit, joint = seconds[:, 0], seconds[:, -2], seconds[:, -1]
    lines = {}
    for i, row in enumerate(running):
        fraction = spread(limit / seconds[:, i])
        lines[row] = {
            "steps_per_s": 1 / statistics.median(seconds[:, i]),
            "fraction": fraction["median"],
            "fraction_quartiles": fraction["quartiles"],
            "ours_over_this": spread(seconds[:, i] / ours),
            "peak_memory_mb": memory[row],
            **bounds[row],
        }
    return {
        "batch": batch,
        "k": k,
        "limit_steps_per_s": 1 / statistics.median(limit),
        "limit_gflop_per_s": flop / statistics.median(limit) / 1e9,
        "fraction_of_together": statistics.median(joint / ours),
        "rows": lines,
    }


def training_turn(worker: Worker, calls: int, replicates: int = 1) -> Callable[[], float]:
    """A function that trains `calls` calls and returns the seconds of a replicate's step."""
    steps = calls * worker.steps * replicates
    return lambda: worker.ask("train", calls)["seconds"] / steps


def planned_calls(worker: Worker, burst: float) -> int:
    """The number of calls that take about `burst` seconds."""
    worker.ask("train", 1)  # warm-up
    seconds = worker.ask("train", 1)["seconds"]
    return max(1, round(burst / seconds))


def compared_bounds(
    running: dict[str, Worker], steps: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Mean L_k of the same images for every row, before and after training.

    At the common initial parameters the rows must agree. A peer that fails, for example because its
    compiler is not installed, is removed from `running`.

    Args:
      running: row -> worker; ours is the first.
      steps: number of steps of training.
      say: called with a sentence about each peer that fails.

    Raises:
      RuntimeError: a row disagrees with ours at the initial parameters.
    """
    bounds: dict[str, dict[str, Any]] = {}

    def compare(row: str, worker: Worker) -> None:
        start = mean_and_error(worker.ask("bound", COMPARED_DRAWS)["values"])
        if row != OURS:
            check_agreement(row, bounds[OURS]["bound_at_start"], start)
        worker.ask("train", steps // worker.steps)
        end = mean_and_error(worker.ask("bound", COMPARED_DRAWS)["values"])
        bounds[row] = {"bound_at_start": start, "bound_after": end, "bound_after_steps": steps}

    for_all(running, compare, say)
    return bounds


def for_all(
    running: dict[str, Worker],
    action: Callable[[str, Worker], None],
    say: Callable[[str], None],
) -> None:
    """Calls action(row, worker) for every worker.

    A peer that fails is removed from `running`, and `say` is called with a sentence about it.

    Raises:
      Failed: our worker fails.
    """
    for row, worker in list(running.items()):
        try:
            action(row, worker)
        except Failed as failure:
            if row == OURS:
                raise
            say(f"{row} does not run here: {failure}")
            del running[row]


def mean_and_error(values: Sequence[float]) -> list[float]:
    """Mean and standard error of independent values."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))]


def check_agreement(row: str, ours: list[float], theirs: list[float]) -> None:
    """Raises a RuntimeError if two bounds (mean, error) of the same parameters differ too much."""
    allowed = TOLERANCE * float(np.hypot(ours[1], theirs[1])) + 1e-3
    if not abs(ours[0] - theirs[0]) <= allowed:  # also for NaN
        raise RuntimeError(
            f"{row} computes another bound at the same parameters: {theirs[0]:.3f}; ours is "
            f"{ours[0]:.3f} +- {allowed:.3f}."
        )


def measure_evaluate(
    peers: Sequence[str], rounds: int, burst: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """L_5000 in images per second, relative to the generation network's matrix products.

    Args: see `measure_train`.
    """
    method = method_of_draws(DRAWS)
    first_row, mean = Batch(jnp.zeros((1, DATA_DIM))), jnp.full(DATA_DIM, 0.13)
    params, stats = jax.jit(method.init)(jax.random.key(0), first_row, mean)
    evaluator = evaluation.make_evaluator(method)
    size = evaluator.batch_size
    rows_at_once = models.make(Config(), SPEC).rows
    products = decoder_products(rows_at_once, backward=False)
    flop = sum(product.flop for product in products)
    # An image has DRAWS rows.
    passes_per_image = DRAWS / rows_at_once
    several_devices = jax.default_backend() == "cpu" and setup.cores() > 1
    own_rows = [OURS, OURS_SPREAD] if several_devices else [OURS]
    number = min(size * (setup.cores() if several_devices else 1), COMPARED_IMAGES)
    with (
        task_folder(size, 5) as folder,
        workers([*own_rows, *peers], lambda row: Worker(row, folder, 1), say) as running,
    ):
        # A first evaluation, which compiles; its value is stored.
        values: dict[str, float] = {}

        def compare(row: str, worker: Worker) -> None:
            values[row] = worker.ask("evaluate", number)["value"]

        for_all(running, compare, say)
        alone = limits(products, burst, PLANNED_LIMIT)

        def turn(worker: Worker) -> Callable[[], float]:
            return lambda: worker.ask("evaluate", number)["seconds"] / number

        turns = [turn(worker) for worker in running.values()]
        turns.append(lambda: sum(timed.once() for timed in alone) * passes_per_image)
        seconds = in_turns(turns, rounds)
    limit = seconds[:, -1]
    lines = {}
    for i, row in enumerate(running):
        fraction = spread(limit / seconds[:, i])
        lines[row] = {
            "images_per_s": 1 / statistics.median(seconds[:, i]),
            "fraction": fraction["median"],
            "fraction_quartiles": fraction["quartiles"],
            "ours_over_this": spread(seconds[:, i] / seconds[:, 0]),
            "value": values[row],
        }
    return {
        "draws": DRAWS,
        "images": number,
        "limit_images_per_s": 1 / statistics.median(limit),
        "limit_gflop_per_s": flop * passes_per_image / statistics.median(limit) / 1e9,
        "rows": lines,
        "temporary_bytes": {
            str(k): temporary_bytes(k, params, stats, size) for k in (500, 5000, 50000)
        },
    }


def temporary_bytes(num_draws: int, params: Any, stats: Any, batch_size: int) -> int:
    """Temporary memory of the compiled evaluation of a batch, bytes."""
    evaluator = evaluation.make_evaluator(method_of_draws(num_draws))
    images = Batch(jnp.zeros((batch_size, DATA_DIM)))
    program = evaluator.run.lower(jax.random.key(1), params, stats, images).compile()
    return program.memory_analysis().temp_size_in_bytes


def method_of_draws(num_draws: int) -> Method:
    """The method of the default model, evaluated with `num_draws` draws."""
    return methods.make(dataclasses.replace(Config(), k=5, eval_k=num_draws), SPEC)


def measure_replicates(
    numbers: Sequence[int], cells: Sequence[tuple[int, int]], rounds: int, burst: float
) -> list[dict[str, Any]]:
    """Throughput of R replicates in one program, in steps of a replicate, relative to R = 1."""
    return [line for batch, k in cells for line in _replicates(numbers, batch, k, rounds, burst)]


def _replicates(
    numbers: Sequence[int], batch: int, k: int, rounds: int, burst: float
) -> list[dict[str, Any]]:
    """The throughput of each number of replicates in one cell."""
    flop = sum(product.flop for product in step_products(batch, k))
    steps = min(max(4, int(burst * PLANNED / flop / 2)), NUM_IMAGES // batch)

    def start(number: str) -> Worker:
        return Worker(OURS, folder, steps, int(number))

    with (
        task_folder(batch, k) as folder,
        workers([str(number) for number in numbers], start, print) as running,
    ):
        turns = [
            training_turn(worker, planned_calls(worker, burst), int(number))
            for number, worker in running.items()
        ]
        seconds = in_turns(turns, rounds)
    return [
        {
            "batch": batch,
            "k": k,
            "replicates": int(number),
            "replicate_steps_per_s": 1 / statistics.median(seconds[:, i]),
            "throughput_over_one": spread(seconds[:, 0] / seconds[:, i]),
        }
        for i, number in enumerate(running)
    ]


def measure_peer_start(
    rows: Sequence[str], rounds: int, folder: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds from process start to the end of the first ten steps (B = 20, k = 5).

    Returns:
      Row -> "cold_s", with an empty compilation cache, and "warm_s", with a filled one.
    """
    result = {}
    with task_folder(20, 5) as task:
        for row in rows:
            cold, warm = [], []
            try:
                for i in range(rounds):
                    cache = f"{folder}/{row}{i}"
                    for seconds in (cold, warm):
                        start = time.perf_counter()
                        worker = Worker(row, task, 10, cache=cache)
                        worker.ask("train", 1)
                        seconds.append(time.perf_counter() - start)
                        worker.close()
            except Failed as failure:
                say(f"{row} does not run here: {failure}")
                continue
            result[row] = {"cold_s": statistics.median(cold), "warm_s": statistics.median(warm)}
    return result
