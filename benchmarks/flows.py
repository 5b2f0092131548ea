"""Cost of a gradient with an inverse autoregressive q(z|x), for each way to need log q.

    python -m benchmarks.flows

mlp at its default widths, 50 latents, 2 steps of 200 units, k = 5 and B = 100; then the flow alone
at these sizes, ours beside NumPyro's, under a likelihood that costs nothing.
Time is the process's own (all threads together), so that other processes on the machine disturb it
less; operations are counted by the compiler, without triangular solves.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.example_libraries import stax
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.distributions.transforms import PermuteTransform
from numpyro.nn import AutoregressiveNN

from elbo_lab import configs, losses, methods
from elbo_lab.data import Batch, Spec
from elbo_lab.distributions import Flow
from elbo_lab.models import flows
from elbo_lab.training import hyper

BATCH, ROUNDS = 100, 5
LATENTS, HIDDEN, STEPS, DRAWS = 50, 200, 2, 5
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
# Estimators of the ELBO with the flow alone: log q of the draw, and log q as a function of z.
ESTIMATORS = ("reparam", "stl")


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

    return cost(loss, params)


def our_flow(key: Array) -> tuple[Any, Callable[..., Flow]]:
    """Parameters of the steps, and (parameters, mean, standard deviation, [B, L] each) -> q."""
    step = flows.iaf(LATENTS, (HIDDEN,), "tanh")

    def posterior(params: Any, mean: Array, scale: Array) -> Flow:
        base = dist.Normal(mean, scale).to_event(1)
        return Flow(base, flows.bijections(step, params, [None] * STEPS))

    return flows.init(step, STEPS, key), posterior


def numpyro_flow(key: Array) -> tuple[Any, Callable[..., dist.Distribution]]:
    """The same law but for the gate: NumPyro's steps have a shift and a log scale."""
    init, apply = AutoregressiveNN(LATENTS, [HIDDEN], nonlinearity=stax.Tanh)
    params = [init(step_key, (LATENTS,))[1] for step_key in jax.random.split(key, STEPS)]
    order = jnp.arange(LATENTS)[::-1]

    def posterior(params: Any, mean: Array, scale: Array) -> dist.Distribution:
        steps = []
        for i, own in enumerate(params):
            steps += [PermuteTransform(order)] if i else []
            steps.append(InverseAutoregressiveTransform(functools.partial(apply, own)))
        return dist.TransformedDistribution(dist.Normal(mean, scale).to_event(1), steps)

    return params, posterior


def measure_flow(make: Callable[[Array], tuple[Any, Callable]], estimator: str) -> Cost:
    """Cost of the gradient of the ELBO by a flow's parameters, and its base's mean and scale."""
    steps, posterior = make(jax.random.key(0))
    params = steps, jnp.zeros((BATCH, LATENTS)), jnp.full((BATCH, LATENTS), 0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, LATENTS)), jnp.float32)
    prior = dist.Normal(jnp.zeros(LATENTS), 1.0).to_event(1)

    def loss(params, key):
        options = {"num_samples": DRAWS, "estimator": estimator, "vectorized": True}
        arguments = posterior(*params), prior, lambda z: -0.5 * jnp.sum((z - x) ** 2, axis=-1)
        return jnp.mean(losses.elbo(key, *arguments, **options)[0])

    return cost(loss, params)


def cost(loss: Callable[[Any, Array], Array], params: Any) -> Cost:
    """Cost of the gradient of loss(params, key)."""
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
    """Prints the tables of docs/systems/flows.md."""
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
    print("\n| flow alone | estimator | ms of a gradient | 10^9 operations |")
    print("|---|---|---|---|")
    for name, make in (("ours", our_flow), ("NumPyro", numpyro_flow)):
        for estimator in ESTIMATORS:
            own = measure_flow(make, estimator)
            print(
                f"| {name} | `{estimator}` | {own.milliseconds:.1f} | {own.gigaflop:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
