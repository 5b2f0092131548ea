"""Learned baselines of the score-function estimator: NVIL (Mnih and Gregor 2014, section 2.3).

    b(x) = c + C(x)

The gradient of q weighs the score of a draw by f - b(x), f being the learning signal, the value of
the bound that q follows. c is the running mean of f - C(x) over the batches before; C is a network
of x that descends 1/2 (f - b(x))^2, or zero. b(x) does not depend on the draws, so that the
gradient of every bound stays unbiased.

Two differences to the paper. There c already contains the batch whose signal it is subtracted from,
which biases the gradient by O(1/B). And the signal is divided there by max(1, its running standard
deviation), which would change the weight of a closed-form KL beside it; Adam removes such a factor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.models.networks import DecoderMLP, Head

BASELINES = ("none", "mean", "network")
# The weight of the old mean in a step, and the tanh units of C (the paper's, section 4).
DECAY, WIDTH = 0.8, 100


class RunningMean(NamedTuple):
    """Exponential average of the batches' means; it is total / weight. Adam's correction for its
    start (Kingma and Ba 2015, section 3).
    """

    total: Array  # [], after t batches sum_s (1 - d) d^(t - s) mean_s, nats
    weight: Array  # [], the same sum of ones, 1 - d^t


class Baseline(NamedTuple):
    """A baseline as pure functions. Its stats are a `RunningMean`, its params those of C."""

    init: Callable[..., tuple[Any, RunningMean]]
    """(key, x [B, D]) -> (params, stats). params are {} without a network."""

    value: Callable[[Any, RunningMean, Array], Array]
    """(params, stats, x [B, D]) -> b(x), nats, [B] or, without a network, []. Differentiable by the
    params of C."""


def make(kind: str) -> Baseline | None:
    """The baseline of a kind in `BASELINES`; None for "none".

    Args:
      kind: "mean" (C is zero) or "network".
    """
    if kind == "none":
        return None
    network = DecoderMLP(1, (WIDTH,), (Head("signal"),), "tanh")

    def init(key: Array, x: Array) -> tuple[Any, RunningMean]:
        params = network.init(key, x)["params"] if kind == "network" else {}
        return params, RunningMean(jnp.zeros(()), jnp.zeros(()))

    def value(params: Any, stats: RunningMean, x: Array) -> Array:
        if kind == "mean":
            return current(stats)
        (output,) = network.apply({"params": params}, x)
        return current(stats) + output[:, 0]

    return Baseline(init, value)


def current(stats: RunningMean) -> Array:
    """c, [], nats; zero before the first batch."""
    is_first = stats.weight == 0
    return stats.total / jnp.where(is_first, 1, stats.weight)


def residual(stats: RunningMean, signal: Array, value: Array) -> Array:
    """f - C(x), [B], nats, of which c is the running mean.

    Args:
      stats: before the batch.
      signal: f, [B], nats.
      value: b(x) with these stats, [B] or [], nats.
    """
    return signal - value + current(stats)


def updated(stats: RunningMean, residuals: Array) -> RunningMean:
    """The running mean of f - C(x) after a batch with these residuals, [B], nats."""
    return RunningMean(
        DECAY * stats.total + (1 - DECAY) * jnp.mean(residuals),
        DECAY * stats.weight + (1 - DECAY),
    )


def loss(signal: Array, value: Array) -> Array:
    """1/2 (f - b(x))^2, [B], nats squared, whose gradient reaches the baseline alone."""
    return 0.5 * jnp.square(jax.lax.stop_gradient(signal) - value)
