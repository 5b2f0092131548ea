"""Training, evaluation and replicates: this library, its peers and the limit in alternation."""

import dataclasses
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

# Floating-point operations per second by which bursts are planned.
PLANNED = 60e9
# Steps (at least) after which the bounds are compared, and draws of each comparison.
COMPARED_STEPS, COMPARED_DRAWS = 60, 8
# Standard errors by which two bounds of the same parameters may differ.
TOLERANCE = 5


def measure_train(
    batch: int, k: int, peers: Sequence[str], rounds: int, burst: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Steps per second, fractions of the limits and ratios to peers, alternating in rounds.

    Args:
      batch, k: the cell.
      peers: rows beside ours.
      rounds: alternations.
      burst: seconds of a turn.
      say: takes what people should know.
    """
    products = step_products(batch, k)
    flop = sum(p.flop for p in products)
    # Compiled loops take the steps of a turn in one call, the others in ten.
    # One call of ours is a pass over the images at most.
    piece = max(1, min(int(burst * PLANNED / flop / 10), NUM_IMAGES // batch // 10))
    with (
        task_folder(batch, k) as folder,
        workers(
            [OURS, *peers],
            lambda row: Worker(row, folder, 10 * piece if row in SCANNED else piece),
            say,
        ) as running,
    ):
        bounds = compared_bounds(running, 10 * piece * -(-COMPARED_STEPS // (10 * piece)), say)
        calls = {row: planned_calls(worker, burst) for row, worker in running.items()}
        alone = limits(products, burst, 100e9)
        times = max(3, int(burst * 100e9 / flop))
        together = Timed(*repeated([f for p in products for f in kernels(p)], times), times)

        turns = [training_turn(worker, calls[row]) for row, worker in running.items()]
        turns += [lambda: sum(t.once() for t in alone), together.once]
        seconds = in_turns(turns, rounds)
        memory = {row: worker.ask("memory")["mb"] for row, worker in running.items()}
    own, limit, joint = seconds[:, 0], seconds[:, -2], seconds[:, -1]
    lines = {}
    for i, row in enumerate(running):
        fraction = spread(limit / seconds[:, i])
        lines[row] = {
            "steps_per_s": 1 / statistics.median(seconds[:, i]),
            "fraction": fraction["median"],
            "fraction_quartiles": fraction["quartiles"],
            "ours_over_this": spread(seconds[:, i] / own),
            "peak_memory_mb": memory[row],
            **bounds[row],
        }
    return {
        "batch": batch,
        "k": k,
        "limit_steps_per_s": 1 / statistics.median(limit),
        "limit_gflop_per_s": flop / statistics.median(limit) / 1e9,
        "fraction_of_together": statistics.median(joint / own),
        "rows": lines,
    }


def training_turn(worker: Worker, calls: int, replicates: int = 1) -> Callable[[], float]:
    """() -> seconds of a replicate's step."""
    steps = calls * worker.steps * replicates
    return lambda: worker.ask("train", calls)["seconds"] / steps


# Rows whose calls are one compiled program.
SCANNED = (OURS, "numpyro")


def planned_calls(worker: Worker, burst: float) -> int:
    """Calls of about `burst` seconds, after one to settle."""
    worker.ask("train", 1)
    seconds = worker.ask("train", 1)["seconds"]
    return max(1, round(burst / seconds))


def compared_bounds(
    running: dict[str, Worker], steps: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Mean L_k of the same images in every row: at the common initial parameters, where they must
    agree, and after `steps` steps of each one's own training. A peer that fails at it, as one does
    whose compiler is not installed, is named to `say` and leaves `running`.
    """
    found: dict[str, dict[str, Any]] = {}

    def compare(row: str, worker: Worker) -> None:
        start = mean_and_error(worker.ask("bound", COMPARED_DRAWS)["values"])
        check_agreement(row, found[OURS]["bound_at_start"] if found else start, start)
        worker.ask("train", steps // worker.steps)
        end = mean_and_error(worker.ask("bound", COMPARED_DRAWS)["values"])
        found[row] = {"bound_at_start": start, "bound_after": end, "bound_after_steps": steps}

    for_all(running, compare, say)
    return found


def for_all(
    running: dict[str, Worker],
    do: Callable[[str, Worker], None],
    say: Callable[[str], None],
) -> None:
    """Does something with every worker; those that fail at it leave `running`, ours excepted."""
    for row, worker in list(running.items()):
        try:
            do(row, worker)
        except Failed as failure:
            if row == OURS:
                raise
            say(f"{row} does not run here: {failure}")
            del running[row]


def mean_and_error(values: Sequence[float]) -> list[float]:
    """Mean and standard error of independent values."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))]


def check_agreement(row: str, ours: list[float], theirs: list[float]) -> None:
    """Raises RuntimeError if two bounds of the same parameters differ beyond their errors."""
    allowed = TOLERANCE * float(np.hypot(ours[1], theirs[1])) + 1e-3
    if not abs(ours[0] - theirs[0]) <= allowed:
        raise RuntimeError(
            f"{row} computes another bound at the same parameters: {theirs[0]:.3f}, "
            f"ours {ours[0]:.3f} +- {allowed:.3f}."
        )


def measure_evaluate(
    peers: Sequence[str], rounds: int, burst: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """L_5000 in images per second, against the generation network's products alone."""
    method = method_of_draws(DRAWS)
    start = Batch(jnp.zeros((1, DATA_DIM))), jnp.full(DATA_DIM, 0.13)
    params, stats = jax.jit(method.init)(jax.random.key(0), *start)
    evaluator = evaluation.make_evaluator(method)
    size = evaluator.batch_size
    rows = models.make(Config(), SPEC).rows
    products = decoder_products(rows, backward=False)
    flop = sum(p.flop for p in products)
    # Seconds per image: an image is DRAWS rows of the products.
    passes = DRAWS / rows
    spread_out = jax.default_backend() == "cpu" and setup.cores() > 1
    own = [OURS, OURS_SPREAD] if spread_out else [OURS]
    number = min(size * (setup.cores() if spread_out else 1), COMPARED_IMAGES)
    with (
        task_folder(size, 5) as folder,
        workers([*own, *peers], lambda row: Worker(row, folder, 1), say) as running,
    ):
        # An own evaluation compares the values and compiles.
        values: dict[str, float] = {}

        def compare(row: str, worker: Worker) -> None:
            values[row] = worker.ask("evaluate", number)["value"]

        for_all(running, compare, say)
        alone = limits(products, burst, 100e9)

        def turn(worker: Worker) -> Callable[[], float]:
            return lambda: worker.ask("evaluate", number)["seconds"] / number

        turns = [turn(worker) for worker in running.values()]
        turns.append(lambda: sum(t.once() for t in alone) * passes)
        seconds = in_turns(turns, rounds)
    limit = seconds[:, -1]
    rows = {
        row: {
            "images_per_s": 1 / statistics.median(seconds[:, i]),
            "fraction": spread(limit / seconds[:, i])["median"],
            "fraction_quartiles": spread(limit / seconds[:, i])["quartiles"],
            "ours_over_this": spread(seconds[:, i] / seconds[:, 0]),
            "value": values[row],
        }
        for i, row in enumerate(running)
    }
    images = Batch(jnp.zeros((size, DATA_DIM)))
    return {
        "draws": DRAWS,
        "images": number,
        "limit_images_per_s": 1 / statistics.median(limit),
        "limit_gflop_per_s": flop * passes / statistics.median(limit) / 1e9,
        "rows": rows,
        "temporary_bytes": {
            str(k): evaluation.make_evaluator(method_of_draws(k))
            .run.lower(jax.random.key(1), params, stats, images)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
            for k in (500, 5000, 50000)
        },
    }


def method_of_draws(num_draws: int) -> Method:
    """The default model, evaluated with so many draws."""
    return methods.make(dataclasses.replace(Config(), k=5, eval_k=num_draws), SPEC)


def measure_replicates(
    numbers: Sequence[int], cells: Sequence[tuple[int, int]], rounds: int, burst: float
) -> list[dict[str, Any]]:
    """Throughput of R replicates in one program, in steps of a replicate, relative to R = 1."""
    found = []
    for batch, k in cells:
        flop = sum(p.flop for p in step_products(batch, k))
        steps = min(max(4, int(burst * PLANNED / flop / 2)), NUM_IMAGES // batch)
        with (
            task_folder(batch, k) as folder,
            workers(
                [str(number) for number in numbers],
                lambda number, folder=folder, steps=steps: Worker(OURS, folder, steps, int(number)),
                print,
            ) as running,
        ):
            turns = [
                training_turn(worker, planned_calls(worker, burst), int(number))
                for number, worker in running.items()
            ]
            seconds = in_turns(turns, rounds)
        for i, number in enumerate(running):
            found.append(
                {
                    "batch": batch,
                    "k": k,
                    "replicates": int(number),
                    "replicate_steps_per_s": 1 / statistics.median(seconds[:, i]),
                    "throughput_over_one": spread(seconds[:, 0] / seconds[:, i]),
                }
            )
    return found


def measure_peer_start(
    rows: Sequence[str], rounds: int, folder: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds from a process's start to the end of its first ten steps (B = 20, k = 5), with empty
    compilation caches and with full ones.
    """
    found = {}
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
            found[row] = {"cold_s": statistics.median(cold), "warm_s": statistics.median(warm)}
    return found
