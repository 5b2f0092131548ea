"""Milliseconds of a training step with each optimizer, on one core, in turns."""

import os
import statistics
from typing import Any

from benchmarks.limits import step_products
from benchmarks.peers import OPTIMIZERS, REFERENCE, REFERENCE_BATCH, SOAP_PARTS
from benchmarks.peers.common import NUM_IMAGES
from benchmarks.training import PLANNED, planned_calls, training_turn
from benchmarks.workers import Worker, in_turns, spread, task_folder, workers

# The model is the IWAE paper's, with 5 draws inside the bound.
BATCHES, K = (100, 250, 1000), 5
# The row whose step is little more than the gradient.
GRADIENT = "sgd"
# The steps of a call are a multiple of this, so that each call has its share of SOAP's renewals.
PERIOD = 10


def measure_optimizers(batch: int, rounds: int, burst: float) -> dict[str, Any]:
    """Milliseconds of a step of each optimizer at one batch size, alternating in rounds.

    Every worker is bound to the same core, and only one computes at a time.

    Args:
      batch: B.
      rounds: alternations.
      burst: seconds of a turn, which has at least one call of ten steps.

    Returns:
      "rows": optimizer -> the median "ms" of a step, its ratio "over_reference" to a step of Adam
      with batches of 100, and "ms_beyond_gradient", the difference from a step of sgd.
      "soap_ms": part of SOAP's step -> milliseconds. Ratios and differences are taken within a
      round: median and quartiles.

    Raises:
      RuntimeError: an optimizer does not run.
    """
    core = last_core()

    def start(row: str) -> Worker:
        at = REFERENCE_BATCH if row == REFERENCE else batch
        return Worker(row, folder, steps_of_call(at, burst), core=core)

    with (
        task_folder(batch, K) as folder,
        workers([*OPTIMIZERS, REFERENCE], start, _stop) as running,
    ):
        turns = [training_turn(worker, planned_calls(worker, burst)) for worker in running.values()]
        seconds = in_turns(turns, rounds)
    ms = {row: 1e3 * seconds[:, i] for i, row in enumerate(running)}
    return {
        "batch": batch,
        "k": K,
        "rows": {
            row: {
                "ms": statistics.median(ms[row]),
                "over_reference": spread(ms[row] / ms[REFERENCE]),
                "ms_beyond_gradient": spread(ms[row] - ms[GRADIENT]),
            }
            for row in OPTIMIZERS
        },
        "soap_ms": {
            part: spread(ms[with_part] - ms[without])
            for part, (with_part, without) in SOAP_PARTS.items()
        },
    }


def steps_of_call(batch: int, burst: float) -> int:
    """A multiple of ten steps that take about `burst` seconds; at most a pass over the images."""
    flop = sum(product.flop for product in step_products(batch, K))
    periods = max(1, round(burst * PLANNED / flop / PERIOD))
    return PERIOD * min(periods, NUM_IMAGES // batch // PERIOD)


def last_core() -> int | None:
    """The last core that this process may use; None if processes cannot be bound to cores."""
    # macOS has no sched_getaffinity.
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _stop(sentence: str) -> None:
    """Raises a RuntimeError: all rows are of this library, so that none may fail."""
    raise RuntimeError(sentence)
