"""The jackknife and SUMO: IWAE bounds of subsets of the draws, combined so that the bias of each
cancels. The conventions of `bounds.py` hold.

The formulas' coefficients are large and of either sign. Both are computed as sums of differences
between the bounds of k + 1 and of k draws, each of which is one softplus with all its digits.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.losses.arguments import is_integer
from elbo_lab.losses.log_means import (
    as_column,
    as_log_weights,
    as_parameter,
    greatest,
    is_known,
    log_mean_exp,
    over_batch,
    to_finite,
)

# The jackknife leaves out m draws in turn, in at most this many ways, K (K - 1) .. (K - m + 1).
MOST_WAYS = 10_000_000
# Sets of draws that the jackknife computes together; it needs the log-weights' memory once per set.
CHUNK = 16
# Terms after which `sumo`'s roulette stops geometrically.
ROULETTE_KNEE = 80


def jackknife(log_w: Array, order: int = 1) -> Array:
    """Jackknife variational inference: sum_{j=0}^m c_j L_{K-j}, where L_{K-j} is the mean over all
    subsets of K - j draws of their `iwae`, and c_j = (-1)^j (K - j)^m / (j! (m - j)!) (Nowozin
    2018, eq. 15 to 17).

    Meant for m = 1 and 2 (0 is `iwae`): the time grows as K^m, the memory as K.

    Args:
      log_w: log-weights [K, *batch], nats, K > m.
      order: m, the order of the jackknife.

    Returns:
      [*batch], nats. Population: neither bound; its expectation differs from log p(x) by
      O(K^-(m+1)), of either sign. Finite K: may exceed log p(x). Where at most m draws have a
      positive weight it is infinite: +inf for an odd number of them, -inf for an even one. With
      any log-weight of +inf it is +inf.

    Raises:
      ValueError: m is not an integer of at least 0; K <= m; more than `MOST_WAYS` ways to leave out
        m draws in turn.
    """
    log_w = as_log_weights(log_w)
    check_order(order, log_w.shape[0])
    correction = _jackknife_corrections(to_finite(log_w), int(order))[-1]
    # Infinite values are added at the end: here they could cancel.
    value = to_finite(log_mean_exp(log_w)) + correction
    positive = jnp.sum(~jnp.isneginf(log_w), axis=0)
    limit = jnp.where(positive % 2 == 1, jnp.inf, -jnp.inf)
    limit = jnp.where(positive <= order, limit, 0)
    return value + jnp.where(jnp.any(jnp.isposinf(log_w), axis=0), jnp.inf, limit)


def check_order(order: int, number: int) -> None:
    """Raises ValueError unless the jackknife of this order can be computed for `number` draws."""
    if not is_integer(order) or order < 0:
        raise ValueError(f"order must be an integer of at least 0; got {order!r}.")
    if number <= order:
        raise ValueError(
            f"order must be below the number of log-weights, {number}, since the jackknife leaves "
            f"out that many; got {order}."
        )
    ways = math.perm(number, order)
    if ways > MOST_WAYS:
        count = f"{ways:,}" if ways < 1e12 else f"about 10^{math.log10(ways):.0f}"
        raise ValueError(
            f"order={order} of {number} log-weights makes {count} ways to leave out draws in turn, "
            f"and at most {MOST_WAYS:,} are computed; lower the order or the number of log-weights."
        )


def _jackknife_corrections(log_w: Array, order: int) -> list[Array]:
    """J_m - L_K, [*batch], for the jackknifes J_m of the orders m = 0 .. `order`, of finite
    log-weights.

    With the first and second differences D_1 and D_2 below, the formula of `jackknife` is
    J_1 = L_K + (K - 1) D_1 and J_2 = L_K + (2 K - 3) D_1 + (K - 2)^2 / 2 D_2.
    D_1 is a mean of terms of order 1 / K and D_2 of order 1 / K^2, so that the factors do not
    magnify rounding errors.
    """
    number = log_w.shape[0]
    corrections = [jnp.zeros_like(log_w[0])]
    if order >= 1:
        first = _first_difference(log_w)
        corrections.append((number - 1) * first)
    if order >= 2:
        second = _second_difference(log_w)
        corrections.append((2 * number - 3) * first + (number - 2) ** 2 / 2 * second)
    if order >= 3:
        lower = jax.checkpoint(lambda k: _jackknife_corrections(_without(log_w, k), order - 1))
        left_out = jax.lax.map(lower, jnp.arange(number))
        for m in range(3, order + 1):
            # J_m = J_{m-1} + (K - m) / m (J_{m-1} - its mean over the K ways to leave out a draw).
            fall = first + corrections[-1] - jnp.mean(left_out[m - 1], axis=0)
            corrections.append(corrections[-1] + (number - m) / m * fall)
    return corrections


def _first_difference(log_w: Array) -> Array:
    """L_K minus its mean over the K ways to leave out one draw, [*batch]."""
    rest = _sums_without_each(log_w)
    # log (sum w / sum_{j != k} w_j) = log (1 + w_k / sum_{j != k} w_j)
    falls = jax.nn.softplus(log_w - rest.top - jnp.log(rest.total))
    return jnp.mean(falls, axis=0) + math.log1p(-1 / log_w.shape[0])


def _second_difference(log_w: Array) -> Array:
    """Mean over pairs k, l of L_K minus its values without k and without l plus that without both,
    [*batch].
    """
    number = log_w.shape[0]
    top = greatest(log_w)
    log_sum = jnp.log(jnp.sum(jnp.exp(log_w - top), axis=0, keepdims=True))

    # Recomputed in the backward pass: storing it would take the memory of all pairs.
    @jax.checkpoint
    def mean_over_l(k: Array) -> Array:
        log_w_k, log_w_l = log_w[k][None], _without(log_w, k)
        rest = _sums_without_each(log_w_l)  # without k and l
        # With S the sum of all weights, log (S S_{not k, l} / (S_{not k} S_{not l})) is
        # -log (1 + w_k w_l / (S S_{not k, l})).
        greater = jnp.maximum(log_w_k, log_w_l) - top - log_sum
        smaller = jnp.minimum(log_w_k, log_w_l) - rest.top - jnp.log(rest.total)
        return -jnp.mean(jax.nn.softplus(greater + smaller), axis=0)

    means = jax.lax.map(mean_over_l, jnp.arange(number), batch_size=CHUNK)
    return jnp.mean(means, axis=0) - math.log1p(-1 / (number - 1) ** 2)


def _without(log_w: Array, k: Array) -> Array:
    """All log-weights but the k-th, [K - 1, *batch]."""
    number = log_w.shape[0]
    return log_w[(k + jnp.arange(1, number)) % number]


class WeightSum(NamedTuple):
    """A sum of weights, exp(top) * total, in two parts that neither overflow nor underflow."""

    top: Array  # the greatest log-weight of the sum, held fixed
    total: Array  # the sum of exp(log_w_j - top)


def _sums_without_each(log_w: Array) -> WeightSum:
    """Sums of all weights but the k-th, [K, *batch], of K >= 2 finite log-weights."""
    index = as_column(jnp.arange(log_w.shape[0]), log_w.ndim)
    is_greatest = index == jnp.argmax(log_w, axis=0, keepdims=True)
    rest = jnp.where(is_greatest, -jnp.inf, log_w)
    first, second = greatest(log_w), greatest(rest)
    weights = jnp.exp(log_w - first)
    # The greatest weight is left out before summing: a difference would lose all digits.
    without_greatest = jnp.sum(jnp.exp(rest - second), axis=0, keepdims=True)
    without_k = jnp.sum(weights, axis=0, keepdims=True) - weights
    return WeightSum(
        top=jnp.where(is_greatest, second, first),
        total=jnp.where(is_greatest, without_greatest, without_k),
    )


def sumo(log_w: Array, num_terms: Array | int) -> Array:
    """Russian-roulette estimate of log p(x): L_1 + sum_{k=1}^T (L_{k+1} - L_k) / P(terms >= k),
    where L_k is the `iwae` of the first k draws (Luo et al. 2020, eq. 9 to 11).

    Args:
      log_w: log-weights [K, *batch], nats.
      num_terms: T >= 0, [*batch] or a scalar, integer, drawn by `roulette.draw_terms`. K draws have
        K - 1 terms; a greater T takes all of them.

    Returns:
      [*batch], nats. Population (over draws and T): the IWAE bound of K draws, and log p(x) itself
      as K grows. Finite K: unbiased for it, with a variance that grows with K; one value may lie
      far above log p(x). Where the first n > 0 draws have zero weight it is -inf if T < n, and +inf
      if T >= n > 1. It is +inf if any of the first T + 1 log-weights is.

    Raises:
      ValueError: T is not an integer of at least 0.
    """
    log_w = as_log_weights(log_w)
    num_terms = as_parameter(num_terms, log_w.dtype)
    if is_known(num_terms) and not np.all((num_terms >= 0) & (num_terms == np.floor(num_terms))):
        raise ValueError(f"num_terms must be integers of at least 0; got {num_terms}.")
    num_terms = jnp.maximum(over_batch("num_terms", num_terms, log_w), 0)
    finite = to_finite(log_w)
    counts = as_column(jnp.arange(1, log_w.shape[0] + 1, dtype=log_w.dtype), log_w.ndim)  # 1 .. K
    sums = running_sums(finite)
    before = WeightSum(sums.top[:-1], sums.total[:-1])
    increments = iwae_increment(finite[1:], before, counts[:-1])
    # P(terms >= 1) = 1, so L_1 plus the first term is L_2.
    value = jnp.where(num_terms >= 1, log_mean_exp(finite[:2]), finite[0])
    is_taken = (counts >= 2) & (counts <= num_terms[None])
    # The probability of terms far beyond T is zero in float32: avoid dividing by it.
    survival = roulette_survival(jnp.where(is_taken, counts, 1))
    value += jnp.sum(jnp.where(is_taken[:-1], increments, 0) / survival[:-1], axis=0)
    used = jnp.where(counts - 1 <= num_terms[None], log_w, -jnp.inf)
    return value + roulette_limit(jnp.max(used, axis=0), jnp.max(log_w[:2], axis=0))


def roulette_survival(term: Array) -> Array:
    """P(terms >= k) of `sumo`'s roulette: 1/k up to k = 80, then falling by 0.9 a term (Luo et al.
    2020, section 3.3). The expected number of terms is about 5 + 9 / 80.
    """
    harmonic = jnp.minimum(term, ROULETTE_KNEE)
    return 0.9 ** (term - harmonic) / harmonic


def roulette_limit(used: Array, first_two: Array) -> Array:
    """SUMO where it is infinite, else 0.

    If the first n draws have zero weight, their bounds are L_k = -t with t -> inf. The coefficients
    of these bounds sum to 1 if T < n, to 0 if n = 1, and else to 1 - 1 / P(terms >= n) < 0.

    Args:
      used: the greatest of the first T + 1 log-weights, [*batch].
      first_two: the greatest of the first two.
    """
    positive = jnp.isposinf(used) | jnp.isneginf(first_two)
    return jnp.where(jnp.isneginf(used), -jnp.inf, jnp.where(positive, jnp.inf, 0))


def iwae_increment(log_w: Array, before: WeightSum, count: Array) -> Array:
    """L_{k+1} - L_k, from log_w_{k+1} and the sum of the first k = `count` weights."""
    return jax.nn.softplus(log_w - before.top - jnp.log(before.total)) - jnp.log1p(1 / count)


def running_sums(log_w: Array) -> WeightSum:
    """Sums of the first k weights, [K, *batch], of finite log-weights.

    Each sum has a `top` of its own: relative to a greater log-weight that comes later, early sums
    would lose digits.
    """
    top = jax.lax.stop_gradient(log_w)
    return jax.lax.associative_scan(add_sums, WeightSum(top, jnp.exp(log_w - top)), axis=0)


def add_sums(a: WeightSum, b: WeightSum) -> WeightSum:
    """The sum of two sums of weights."""
    top = jnp.maximum(a.top, b.top)
    return WeightSum(top, a.total * jnp.exp(a.top - top) + b.total * jnp.exp(b.top - top))
