"""Bounds as functions of log-weights: `log_w` [K, *batch] -> [*batch], in nats.

With draws z_1..z_K ~ q(z|x), log_w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x). A bound knows
nothing about how the draws were made or how it will be differentiated (`estimators.py`), and
returns the quantity itself; only objectives negate it.

**Range.** Values and derivatives have the accuracy that `elbo_lab.losses` documents for log-weights
of magnitude up to 1e6, any distance apart, and for infinite ones:

* Draws of zero weight (log_w = -inf) stand for log-weights of -t, the same t for all of them: value
  and derivatives are the limits as t grows. Where *every* weight is zero the value is -inf and the
  derivatives are those of any other K equal log-weights, the first being 1/K each.
* Log-weights of +inf stand for +t likewise, so that they share the first derivative of `iwae`
  equally. The value is +inf, but for `renyi` with alpha > 1, which follows the least log-weights,
  and `sumo`, which may stop before them. The mean of both infinities (`elbo`, `ciwae`, `tvo`) is
  NaN.

Parameters that are known while tracing are checked, and raise ValueError; traced ones are used as
they are. A bound with parameters becomes a function of log-weights by binding them, e.g.
`functools.partial(miwae, num_outer=8)`. Any function of the same type is a bound. A bound of your
own whose derivative jumps returns its value through `once_differentiable(value, message)`, so that
estimator="dreg" and Hessians raise the message instead of being wrong; see `vr_max`.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.losses.arguments import is_integer
from elbo_lab.losses.debiased import (
    ROULETTE_KNEE,
    check_order,
    jackknife,
    roulette_survival,
    sumo,
)
from elbo_lab.losses.derivatives import once_differentiable
from elbo_lab.losses.log_means import (
    LARGE,
    as_column,
    as_log_weights,
    as_parameter,
    greatest,
    infinite_part,
    is_known,
    log_mean_exp,
    over_batch,
    power_mean,
    to_finite,
)

__all__ = [
    "ROULETTE_KNEE",
    "check_order",
    "ciwae",
    "cubo",
    "elbo",
    "iwae",
    "jackknife",
    "log_mean_exp",
    "miwae",
    "once_differentiable",
    "partition_points",
    "renyi",
    "roulette_survival",
    "sumo",
    "tvo",
    "vr_max",
]

# Most steps of `tvo`; it needs the log-weights' memory once per step.
MOST_STEPS = 1000


def elbo(log_w: Array) -> Array:
    """Evidence lower bound, the mean log-weight: 1/K sum_k log_w_k (textbook 13.4; Kingma and
    Welling 2014, eq. 7).

    Args:
      log_w: log-weights [K, *batch], nats.

    Returns:
      [*batch], nats. Population: a lower bound on log p(x), the gap being KL(q(z|x) || p(z|x))
      (textbook 13.3). Finite K: unbiased for it at every K; a larger K lowers its variance only.
    """
    return jnp.mean(as_log_weights(log_w), axis=0)


def iwae(log_w: Array) -> Array:
    """Importance-weighted bound: log 1/K sum_k exp(log_w_k) (Burda et al. 2016, eq. 8).

    Args:
      log_w: log-weights [K, *batch], nats.

    Returns:
      [*batch], nats. Population (expectation over draws): a lower bound on log p(x) that rises
      with K, from the ELBO at K = 1 to log p(x) as K grows. Finite K: one evaluation is an
      estimate whose expectation is that bound; it is below log p(x) on average, not surely.
    """
    return log_mean_exp(as_log_weights(log_w))


def miwae(log_w: Array, num_outer: int) -> Array:
    """Mean of M independent importance-weighted bounds: 1/M sum_m log 1/K sum_k exp(log_w_mk)
    (Rainforth et al. 2018, eq. 10).

    Args:
      log_w: log-weights [M * K, *batch], nats; the K draws of one inner bound are adjacent.
      num_outer: M.

    Returns:
      [*batch], nats. Population: the IWAE-K bound, a lower bound on log p(x). Finite M: unbiased
      for it; M lowers its variance only. M = 1 is `iwae`, K = 1 is `elbo`.

    Raises:
      ValueError: M is not an integer of at least 1, or does not divide the number of log-weights.
    """
    log_w = as_log_weights(log_w)
    if not is_integer(num_outer) or num_outer < 1 or log_w.shape[0] % num_outer:
        raise ValueError(
            f"num_outer must divide the number of log-weights, {log_w.shape[0]}; got {num_outer}."
        )
    grouped = log_w.reshape(num_outer, -1, *log_w.shape[1:])  # [M, K, *batch]
    return jnp.mean(jax.vmap(iwae)(grouped), axis=0)


def ciwae(log_w: Array, beta: Array | float) -> Array:
    """Convex combination of the ELBO and the IWAE bound: beta mean_k log_w_k + (1 - beta)
    log 1/K sum_k exp(log_w_k) (Rainforth et al. 2018, eq. 12).

    Args:
      log_w: log-weights [K, *batch], nats.
      beta: the ELBO's share, in [0, 1], a scalar or [*batch], may be traced. 1 is `elbo`, 0 is
        `iwae`. The derivative by it is `elbo` - `iwae`.

    Returns:
      [*batch], nats. Population: a lower bound on log p(x) between the ELBO and the IWAE bound.
      Finite K: unbiased for it.

    Raises:
      ValueError: beta outside of [0, 1].
    """
    log_w = as_log_weights(log_w)
    beta = as_parameter(beta, log_w.dtype)
    if is_known(beta) and not np.all((beta >= 0) & (beta <= 1)):
        raise ValueError(f"beta must lie in [0, 1]; got {beta}.")
    beta = over_batch("beta", beta, log_w)
    finite = to_finite(log_w)
    value = beta * elbo(finite) + (1 - beta) * iwae(finite)
    # Infinite values are added at the end: 0 * inf is NaN.
    return value + infinite_part(jnp.where(beta == 0, iwae(log_w), elbo(log_w)))


def renyi(log_w: Array, alpha: Array | float) -> Array:
    """Variational Renyi bound: 1/(1 - alpha) log 1/K sum_k exp((1 - alpha) log_w_k) (Li and Turner
    2016, eq. 6 and 8).

    For alpha in [0, 1) this is the VR-IWAE bound (Daudel et al. 2023). Limits: alpha -> 1 is
    `elbo`, 0 is `iwae`, -inf is `vr_max`, +inf the least log-weight. Near 1 no digits are lost,
    neither of the value nor of the derivative by alpha.

    Args:
      log_w: log-weights [K, *batch], nats.
      alpha: the order, of either sign, a scalar or [*batch], may be traced. An infinite scalar that
        is known while tracing has no second derivative, like `vr_max`. A traced one gives the limit
        of value and first derivative; its second derivative is meaningless.

    Returns:
      [*batch], nats; falls as alpha grows. Population (K -> inf): a lower bound on log p(x) for
      alpha > 0, equal to it at alpha = 0, an upper bound for alpha < 0. Finite K: biased for its
      population value, towards smaller values for alpha < 1 and larger ones for alpha > 1; so for
      alpha < 0 the expectation may lie on either side of log p(x), below it at small K.
    """
    log_w = as_log_weights(log_w)
    return _mean_of_power(log_w, "alpha", 1 - as_parameter(alpha, log_w.dtype))


def vr_max(log_w: Array) -> Array:
    """The greatest log-weight, max_k log_w_k: `renyi` at alpha = -inf (Li and Turner 2016, sec. 4).

    Args:
      log_w: log-weights [K, *batch], nats.

    Returns:
      [*batch], nats. Population (K -> inf): the supremum of log w, an upper bound on log p(x).
      Finite K: between the IWAE bound and the IWAE bound plus log K, draw for draw.

    Raises:
      ValueError: for second derivatives (dreg, Hessians), since the first jumps where two draws
        tie; they share it there.
    """
    return _greatest_or_least(as_log_weights(log_w), "greatest")


def cubo(log_w: Array, power: Array | float = 2.0) -> Array:
    """Chi upper bound: 1/n log 1/K sum_k exp(n log_w_k) (Dieng et al. 2017, eq. 5), which is
    `renyi` at alpha = 1 - n.

    Args:
      log_w: log-weights [K, *batch], nats.
      power: n >= 1, a scalar or [*batch], may be traced. 1 is `iwae`, inf is `vr_max`.

    Returns:
      [*batch], nats; rises with n. Population (K -> inf): an upper bound on log p(x) (equal to it
      for n = 1). Finite K: biased downwards, below log p(x) on average where K is small.

    Raises:
      ValueError: n < 1.
    """
    log_w = as_log_weights(log_w)
    power = as_parameter(power, log_w.dtype)
    if is_known(power) and not np.all(power >= 1):
        raise ValueError(f"power must be at least 1; got {power}.")
    return _mean_of_power(log_w, "power", power)


def tvo(log_w: Array, partition: int | Sequence[float] = 5) -> Array:
    """Thermodynamic variational objective, the left Riemann sum of int_0^1 E_{pi_b}[log w] db:
    sum_s (b_{s+1} - b_s) sum_k softmax_k(b_s log_w) log_w_k (Masrani et al. 2019, eq. 9 and 14).

    pi_b is proportional to q^(1 - b) p^b, and its expectations are self-normalized.

    Args:
      log_w: log-weights [K, *batch], nats.
      partition: the points 0 = b_0 < ... < b_S = 1, or S for equal steps. S = 1 is `elbo`.

    Returns:
      [*batch], nats. Population (K -> inf): a lower bound on log p(x), at least the ELBO. Finite K:
      biased by O(1/K), downwards where S is large.

    Raises:
      ValueError: a partition that does not rise from 0 to 1, or of more than `MOST_STEPS` steps.
    """
    log_w = as_log_weights(log_w)
    points = np.asarray(partition_points(partition))
    top = greatest(log_w)
    centred = to_finite(log_w) - to_finite(top)

    def expectation(point: Array) -> Array:
        return jnp.sum(jax.nn.softmax(point * centred, axis=0) * centred, axis=0)

    expectations = jax.vmap(expectation)(jnp.asarray(points[:-1], log_w.dtype))  # [S, *batch]
    widths = as_column(jnp.asarray(np.diff(points), log_w.dtype), log_w.ndim)
    return top[0] + jnp.sum(widths * expectations, axis=0) + infinite_part(elbo(log_w))


def partition_points(partition: int | Sequence[float]) -> tuple[float, ...]:
    """The points of `tvo`'s partition, checked."""
    is_number = np.ndim(partition) == 0
    points = () if is_number else tuple(map(float, partition))
    steps = partition if is_number else len(points) - 1
    if is_integer(steps) and steps > MOST_STEPS:
        raise ValueError(f"partition must have at most {MOST_STEPS:,} steps; got {steps:,}.")
    if is_number and is_integer(steps) and steps > 0:
        points = tuple(s / steps for s in range(steps + 1))
    is_rising = all(left < right for left, right in itertools.pairwise(points))
    if len(points) < 2 or points[0] != 0 or points[-1] != 1 or not is_rising:
        raise ValueError(
            "partition must be a number of steps of at least 1, or points that rise from 0 to 1; "
            f"got {points if points else partition}."
        )
    return points


def _mean_of_power(log_w: Array, name: str, power: Array | np.ndarray) -> Array:
    """1/s log 1/K sum_k exp(s log_w_k) for `power` s, finite or infinite, known or traced.

    `name` is the caller's parameter, for error messages.
    """
    if is_known(power) and np.ndim(power) == 0 and np.isinf(power):
        return _greatest_or_least(log_w, "greatest" if power > 0 else "least")
    # With a power of 1e15 the greatest (least) log-weights alone count, as in the limit.
    clip = np.clip if is_known(power) else jnp.clip
    return power_mean(log_w, over_batch(name, clip(power, -LARGE, LARGE), log_w))


def _greatest_or_least(log_w: Array, which: str) -> Array:
    """The greatest or the least log-weight, [*batch], whose second derivative is refused."""
    value = jnp.max(log_w, axis=0) if which == "greatest" else jnp.min(log_w, axis=0)
    return once_differentiable(
        value,
        f"The derivative of the {which} log-weight jumps where two tie. It has no second "
        'derivative, which estimator="dreg" and Hessians need; estimators such as reparam, score '
        "and vimco need the first only.",
    )
