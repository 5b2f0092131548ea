"""Gradient estimators compared with the exact gradient, for models whose latents can be summed."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.evaluation.gradients import gradient_statistics
from elbo_lab.evaluation.gradients.gradient_statistics import Groups, LossFn, Moments

# Largest probability that a comparison of unbiased estimators calls any of them biased.
LEVEL = 0.01
# One constant for each use of keys.
_PILOT, _MAIN = range(2)


class Estimator(NamedTuple):
    """A loss whose gradient estimates the exact one, and the parameters at which it is taken."""

    loss_fn: LossFn  # (key, params, x [B, D]) -> [B]
    params: Any


class Quality(NamedTuple):
    """An estimator's gradient of one batch, relative to the length of the exact gradient |g|."""

    variance: float  # of one gradient, summed over parameters, over |g|^2
    bias: float  # length of (mean gradient - g) over |g|, without the noise's expected part
    cosine: float  # of the angle between the mean gradient and g
    is_biased: bool  # by Hotelling's test; all tests together err with probability LEVEL
    resolution: float  # a bias along g of this size is found with probability 0.9


def exact_gradient(estimator: Estimator, x: Array, groups: Groups) -> np.ndarray:
    """The gradient [P] of the mean loss of an estimator without randomness.

    Args:
      estimator: its loss does not depend on its key.
      x: [B, D].
      groups: gives one group of parameters.
    """

    @jax.jit
    def gradient(params: Any, x: Array) -> dict[str, Array]:
        def mean_loss(params: Any) -> Array:
            return jnp.mean(estimator.loss_fn(jax.random.key(0), params, x))

        return gradient_statistics.flat(groups(jax.grad(mean_loss)(params)))

    (vector,) = gradient(estimator.params, x).values()
    return np.asarray(vector, np.float64)


def compare(
    estimators: Mapping[str, Estimator],
    exact: np.ndarray,
    x: Array,
    groups: Groups,
    number: int,
    seed: int = 0,
) -> dict[str, Quality]:
    """The quality of each estimator against an exact gradient.

    Pilots of a quarter of the gradients give the directions of the tests for bias, so that the
    tests' draws are independent of their directions.

    Args:
      estimators: by name.
      exact: [P], of the same group of parameters.
      x: [B, D], the batch.
      groups: gives one group of parameters.
      number: gradients of each estimator.
      seed: of keys and of random directions.

    Raises:
      ArithmeticError: a gradient is not finite.
    """
    names, key = list(estimators), jax.random.key(seed)
    samplers = {
        name: gradient_statistics.make_sampler(own.loss_fn, groups)
        for name, own in estimators.items()
    }

    def draw(name: str, use: int, number: int, directions: np.ndarray) -> Moments:
        (group,) = groups(estimators[name].params)
        own_key = jax.random.fold_in(jax.random.fold_in(key, use), names.index(name))
        drawn = gradient_statistics.sample(
            samplers[name], own_key, estimators[name].params, x, {group: directions}, number
        )
        return drawn[group]

    shape = (gradient_statistics.num_directions(len(names)), len(exact))
    zeros = np.zeros(shape)
    pilots = [draw(name, _PILOT, max(2, number // 4), zeros) for name in names]
    oracle = _without_noise(exact, zeros)
    directions = gradient_statistics.bias_directions(
        oracle, [(pilot, oracle) for pilot in pilots], np.random.default_rng(seed)
    )
    oracle, length = _without_noise(exact, directions), np.linalg.norm(exact)
    qualities = {}
    for i, name in enumerate(names):
        moments = draw(name, _MAIN, number, directions)
        rows = gradient_statistics.rows_of(i, len(names))
        level = LEVEL / len(names)
        bias = gradient_statistics.bias_test(moments, oracle, rows, level)
        mean = moments.gradient
        qualities[name] = Quality(
            variance=float(np.sum(moments.gradient_squares) / (number - 1) / length**2),
            bias=bias.norm,
            cosine=float(mean @ exact / (np.linalg.norm(mean) * length)),
            is_biased=bias.p_value < level,
            resolution=bias.resolution,
        )
    return qualities


def _without_noise(gradient: np.ndarray, directions: np.ndarray) -> Moments:
    """Moments of infinitely many gradients that are all equal."""
    number = len(directions)
    return Moments(
        count=math.inf,
        gradient=gradient,
        gradient_squares=np.zeros_like(gradient),
        along=directions @ gradient,
        along_squares=np.zeros((number, number)),
        ratio=math.nan,
        ratio_squares=0.0,
    )
