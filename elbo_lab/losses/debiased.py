"""The jackknife and SUMO: IWAE bounds of subsets of the draws, combined so that the bias of each
cancels. The conventions of `bounds.py` hold.

The formulas' coefficients are large and of either sign. Both are computed as sums of differences
between the bounds of k + 1 and of k draws, each of which is one softplus with all its digits.
"""

import math

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

# The jackknife's K (K - 1) .. (K - m + 1) ways to leave out m draws in turn may be at most these.
MOST_WAYS = 10_000_000
# Sets of draws that the jackknife computes together: its memory is this times the log-weights'.
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
      ValueError: m is no integer of at least 0; K <= m; more than `MOST_WAYS` ways to leave out m
        draws in turn.
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
    """Raises ValueError unless the jackknife of this order can be computed for so many draws."""
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
    D_1 is a mean of terms of order 1 / K and D_2 of order 1 / K^2, so that the factors multiply no
    rounding errors.
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
    top, total = _sums_without_each(log_w)
    # log (sum w / sum_{j != k} w_j) = log (1 + w_k / sum_{j != k} w_j)
    falls = jax.nn.softplus(log_w - top - jnp.log(total))
    return jnp.mean(falls, axis=0) + math.log1p(-1 / log_w.shape[0])


def _second_difference(log_w: Array) -> Array:
    """Mean over pairs k, l of L_K minus its values without k and without l plus that without both,
    [*batch].
    """
    number = log_w.shape[0]
    top = greatest(log_w)
    log_sum = jnp.log(jnp.sum(jnp.exp(log_w - top), axis=0, keepdims=True))

    # Computed anew in the backward pass, which would need the memory of all pairs.
    @jax.checkpoint
    def mean_over_l(k: Array) -> Array:
        own, others = log_w[k][None], _without(log_w, k)
        other_top, other_total = _sums_without_each(others)  # without k and l
        # log (sum w sum_{not k, l} w / (sum_{not k} w sum_{not l} w)), S the sums, is
        # -log (1 + w_k w_l / (S S_{not k, l})).
        greater = jnp.maximum(own, others) - top - log_sum
        smaller = jnp.minimum(own, others) - other_top - jnp.log(other_total)
        return -jnp.mean(jax.nn.softplus(greater + smaller), axis=0)

    means = jax.lax.map(mean_over_l, jnp.arange(number), batch_size=CHUNK)
    return jnp.mean(means, axis=0) - math.log1p(-1 / (number - 1) ** 2)


def _without(log_w: Array, k: Array) -> Array:
    """All log-weights but the k-th, [K - 1, *batch]."""
    number = log_w.shape[0]
    return log_w[(k + jnp.arange(1, number)) % number]


def _sums_without_each(log_w: Array) -> tuple[Array, Array]:
    """Sums of all weights but the k-th, as pairs like those of `running_sums`, of K >= 2 finite
    log-weights.
    """
    index = as_column(jnp.arange(log_w.shape[0]), log_w.ndim)
    is_first = index == jnp.argmax(log_w, axis=0, keepdims=True)
    others = jnp.where(is_first, -jnp.inf, log_w)
    first, second = greatest(log_w), greatest(others)
    weights = jnp.exp(log_w - first)
    without_first = jnp.sum(jnp.exp(others - second), axis=0, keepdims=True)
    without_k = jnp.sum(weights, axis=0, keepdims=True) - weights
    return jnp.where(is_first, second, first), jnp.where(is_first, without_first, without_k)


def sumo(log_w: Array, num_terms: Array | int) -> Array:
    """Russian-roulette estimate of log p(x): L_1 + sum_{k=1}^T (L_{k+1} - L_k) / P(terms >= k),
    where L_k is the `iwae` of the first k draws (Luo et al. 2020, eq. 9 to 11).

    Args:
      log_w: log-weights [K, *batch], nats.
      num_terms: T >= 0, [*batch] or a scalar, integer, drawn by `roulette.draw_terms`. At most
        K - 1 terms can be had, and no more are taken.

    Returns:
      [*batch], nats. Population (over draws and T): the IWAE bound of K draws, and log p(x) itself
      as K grows. Finite K: unbiased for it, with a variance that grows with K; one value may lie
      far above log p(x). Where the first n > 0 draws have zero weight it is -inf if T < n, and +inf
      if T >= n > 1. It is +inf if any of the first T + 1 log-weights is.

    Raises:
      ValueError: T is no integer of at least 0.
    """
    log_w = as_log_weights(log_w)
    num_terms = as_parameter(num_terms, log_w.dtype)
    if is_known(num_terms) and not np.all((num_terms >= 0) & (num_terms == np.floor(num_terms))):
        raise ValueError(f"num_terms must be integers of at least 0; got {num_terms}.")
    num_terms = jnp.maximum(over_batch("num_terms", num_terms, log_w), 0)
    finite = to_finite(log_w)
    counts = as_column(jnp.arange(1, log_w.shape[0] + 1, dtype=log_w.dtype), log_w.ndim)  # 1 .. K
    top, total = running_sums(finite)
    increments = iwae_increment(finite[1:], top[:-1], total[:-1], counts[:-1])
    # P(terms >= 1) = 1, so that the first term makes L_2 of L_1.
    value = jnp.where(num_terms >= 1, log_mean_exp(finite[:2]), finite[0])
    is_taken = (counts >= 2) & (counts <= num_terms[None])
    # Far beyond T the probability is zero in float32.
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

    The bounds L_k = -t of the first n draws, of zero weight, have coefficients that sum to 1 if
    T < n, to 0 if n = 1, and to 1 - 1 / P(terms >= n) < 0 else.

    Args:
      used: the greatest of the first T + 1 log-weights, [*batch].
      first_two: the greatest of the first two.
    """
    positive = jnp.isposinf(used) | jnp.isneginf(first_two)
    return jnp.where(jnp.isneginf(used), -jnp.inf, jnp.where(positive, jnp.inf, 0))


def iwae_increment(log_w: Array, top: Array, total: Array, count: Array) -> Array:
    """L_{k+1} - L_k, by log_w_{k+1} and the `running_sums` of the first k = `count`."""
    return jax.nn.softplus(log_w - top - jnp.log(total)) - jnp.log1p(1 / count)


def running_sums(log_w: Array) -> tuple[Array, Array]:
    """Sums of the first k weights, of finite log-weights: the greatest log-weight among them, held
    fixed, and sum_{j <= k} exp(log_w_j - greatest), [K, *batch] each.

    The difference to a greater log-weight that comes later would lose digits.
    """
    top = jax.lax.stop_gradient(log_w)
    return jax.lax.associative_scan(add_sums, (top, jnp.exp(log_w - top)), axis=0)


def add_sums(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """The sum of two sets of weights, as a pair like those of `running_sums`."""
    top = jnp.maximum(one[0], other[0])
    return top, one[1] * jnp.exp(one[0] - top) + other[1] * jnp.exp(other[0] - top)
