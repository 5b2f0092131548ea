"""Cost of a gradient with an inverse autoregressive q(z|x), for each way to need log q.

    python -m benchmarks.flows

mlp at its default widths, 50 latents, 2 steps of 200 units, k = 5 and B = 100.
Time is the process's own (all threads together), so that other processes on the machine disturb it
less; operations are counted by the compiler, without triangular solves.
"""

import functools
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import configs, methods
from elbo_lab.data import Batch, Spec
from elbo_lab.training import hyper

BATCH, ROUNDS = 100, 5
SPEC = Spec("image", (28, 28), 2)
# Posterior, objective and estimator.
ROWS = [
    ("diagonal", "iwae", "reparam"),
    ("diagonal", "iwae", "dreg"),
    ("iaf", "iwae", "reparam"),
    ("iaf", "iwae", "dreg"),
    ("iaf", "iwae", "vimco"),
    ("iaf", "elbo", "stl"),
    ("diagonal", "wake_sleep", None),
    ("iaf", "wake_sleep", None),
]


class Cost(NamedTuple):
    """Cost of one gradient."""

    milliseconds: float  # of the process, median
    gigaflop: float  # by the compiler; a loop counts once, however often it runs


def measure(posterior: str, objective: str, estimator: str | None) -> Cost:
    """Cost of the gradient of the batch's mean loss by all parameters."""
    values = {"posterior": posterior, "objective": objective, "k": 5, "batch_size": BATCH}
    config = configs.make(**values, **({} if estimator is None else {"estimator": estimator}))
    method = methods.make(config, SPEC, BATCH)
    pixels = np.random.default_rng(0).integers(0, 2, (BATCH, SPEC.dim))
    batch = Batch(jnp.asarray(pixels, jnp.float32))
    params, stats = jax.jit(method.init)(jax.random.key(0), batch)
    hparams = hyper.hyperparameters([config])

    def loss(params, key):
        return jnp.mean(method.loss(key, params, stats, batch, hparams).loss)

    program = jax.jit(jax.grad(loss)).lower(params, jax.random.key(1)).compile()
    run = functools.partial(program, params)
    seconds = list(_seconds(run))
    return Cost(1e3 * statistics.median(seconds), program.cost_analysis()["flops"] / 1e9)


def _seconds(run) -> Iterator[float]:
    for i in range(ROUNDS + 1):
        key = jax.random.key(i)
        start = time.process_time()
        jax.block_until_ready(run(key))
        if i:  # The first call touches its memory for the first time.
            yield time.process_time() - start


def main() -> None:
    """Prints the table of docs/systems/flows.md."""
    print("| q(z\\|x) | objective | estimator | ms of a gradient | 10^9 operations |")
    print("|---|---|---|---|---|")
    for posterior, objective, estimator in ROWS:
        cost = measure(posterior, objective, estimator)
        name = f"`{estimator}`" if estimator else "none"
        print(
            f"| `{posterior}` | `{objective}` | {name} | {cost.milliseconds:.0f} "
            f"| {cost.gigaflop:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
