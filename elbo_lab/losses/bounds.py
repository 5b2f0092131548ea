"""Bounds as functions of log-weights: `log_w` [K, *batch] -> [*batch], in nats.

With draws z_1..z_K ~ q(z|x), log_w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x). A bound knows
nothing about how the draws were made or how it will be differentiated (`estimators.py`), and
returns the quantity itself; only objectives negate it.

Draws of zero weight (log_w = -inf) are exact. Where *every* weight of a group is zero the value is
-inf and the derivative with respect to each log-weight is taken to be 1/K, its value for any
other K equal log-weights, so that bounds stay shift-equivariant and no NaN appears.

A bound of several parameters is a function of log-weights once these are bound, e.g.
`functools.partial(miwae, num_outer=8)`; anything of the same type is a bound.
"""

import itertools
import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Terms after which `sumo`'s roulette stops geometrically.
ROULETTE_KNEE = 80


def elbo(log_w: Array) -> Array:
    """Evidence lower bound, the mean log-weight: 1/K sum_k log_w_k (textbook 13.4; Kingma and
    Welling 2014, eq. 7).

    Args:
      log_w: log-weights [K, *batch], nats.

    Returns:
      [*batch], nats. Population: a lower bound on log p(x), the gap being KL(q(z|x) || p(z|x))
      (textbook 13.3). Finite K: unbiased for it at every K; a larger K lowers its variance only.
    """
    return jnp.mean(_at_least_float32(log_w), axis=0)


def iwae(log_w: Array) -> Array:
    """Importance-weighted bound: log 1/K sum_k exp(log_w_k) (Burda et al. 2016, eq. 8).

    Args:
      log_w: log-weights [K, *batch], nats.

    Returns:
      [*batch], nats. Population (expectation over draws): a lower bound on log p(x) that rises
      with K, from the ELBO at K = 1 to log p(x) as K grows. Finite K: one evaluation is an
      estimate whose expectation is that bound; it is below log p(x) on average, not surely.
    """
    return log_mean_exp(_at_least_float32(log_w))


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
      ValueError: if the number of log-weights is not a multiple of M.
    """
    if num_outer < 1 or log_w.shape[0] % num_outer:
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
      beta: the ELBO's share, in [0, 1], may be traced. 1 is `elbo`, 0 is `iwae`.

    Returns:
      [*batch], nats. Population: a lower bound on log p(x) between the ELBO and the IWAE bound.
      Finite K: unbiased for it.
    """
    log_w = _at_least_float32(log_w)
    # A share of zero takes nothing of its bound, were that infinite.
    of_elbo = elbo(jnp.where(beta == 0, jnp.zeros_like(log_w), log_w))
    of_iwae = iwae(jnp.where(beta == 1, jnp.zeros_like(log_w), log_w))
    return beta * of_elbo + (1 - beta) * of_iwae


def renyi(log_w: Array, alpha: Array | float) -> Array:
    """Variational Renyi bound: 1/(1 - alpha) log 1/K sum_k exp((1 - alpha) log_w_k) (Li and Turner
    2016, eq. 6 and 8).

    Limits: alpha -> 1 is `elbo`, 0 is `iwae`, -inf is `vr_max`, +inf the least log-weight. Near 1
    no digits are lost: float32 agrees with the limit to rounding.

    Args:
      log_w: log-weights [K, *batch], nats.
      alpha: the order, of either sign. May be traced where it is finite; +-inf must be a Python
        float.

    Returns:
      [*batch], nats; falls as alpha grows. Population (K -> inf): a lower bound on log p(x) for
      alpha > 0, equal to it at alpha = 0, an upper bound for alpha < 0. Finite K: biased for its
      population value, towards smaller values for alpha < 1 and larger ones for alpha > 1; so for
      alpha < 0 the expectation may lie on either side of log p(x), below it at small K.
    """
    log_w = _at_least_float32(log_w)
    if isinstance(alpha, float) and math.isinf(alpha):
        return vr_max(log_w) if alpha < 0 else -vr_max(-log_w)
    return _power_mean(log_w, jnp.asarray(1 - alpha, log_w.dtype))


def vr_max(log_w: Array) -> Array:
    """The greatest log-weight, max_k log_w_k: `renyi` at alpha = -inf (Li and Turner 2016, sec. 4).

    Args:
      log_w: log-weights [K, *batch], nats.

    Returns:
      [*batch], nats. Population (K -> inf): the supremum of log w, an upper bound on log p(x).
      Finite K: between the IWAE bound and the IWAE bound plus log K, draw for draw. Its derivative
      jumps where two draws tie, so that doubly reparameterized gradients do not apply.
    """
    return jnp.max(_at_least_float32(log_w), axis=0)


def cubo(log_w: Array, power: Array | float = 2.0) -> Array:
    """Chi upper bound: 1/n log 1/K sum_k exp(n log_w_k) (Dieng et al. 2017, eq. 5), which is
    `renyi` at alpha = 1 - n.

    Args:
      log_w: log-weights [K, *batch], nats.
      power: n >= 1, may be traced. 1 is `iwae`.

    Returns:
      [*batch], nats; rises with n. Population (K -> inf): an upper bound on log p(x) (equal to it
      for n = 1). Finite K: biased downwards, below log p(x) on average where K is small.
    """
    log_w = _at_least_float32(log_w)
    return _power_mean(log_w, jnp.asarray(power, log_w.dtype))


def jackknife(log_w: Array, order: int = 1) -> Array:
    """Jackknife variational inference: sum_{j=0}^m c_j L_{K-j}, where L_{K-j} is the mean over all
    subsets of K - j draws of their `iwae`, and c_j = (-1)^j (K - j)^m / (j! (m - j)!) (Nowozin
    2018, eq. 15 to 17).

    Takes all C(K, m) subsets: meant for m = 1 and 2 (and 0, which is `iwae`).

    Args:
      log_w: log-weights [K, *batch], nats, K > m.
      order: m, the order of the jackknife.

    Returns:
      [*batch], nats. Population: neither bound; its expectation differs from log p(x) by
      O(K^-(m+1)), of either sign. Finite K: may exceed log p(x). +inf where all draws of positive
      weight are among m.

    Raises:
      ValueError: m is no integer of at least 0, or K <= m.
    """
    log_w = _at_least_float32(log_w)
    number = log_w.shape[0]
    if isinstance(order, bool) or not isinstance(order, numbers.Integral) or order < 0:
        raise ValueError(f"order must be an integer of at least 0; got {order!r}.")
    if number <= order:
        raise ValueError(
            f"order must be below the number of log-weights, {number}, since the jackknife leaves "
            f"out that many; got {order}."
        )
    # Large coefficients of either sign sum to one: values near zero keep the digits.
    top = jax.lax.stop_gradient(jnp.max(log_w, axis=0, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    centred, value, slope = log_w - top, 0.0, 0.0
    for j in range(order + 1):
        coefficient = (number - j) ** order / (math.factorial(j) * math.factorial(order - j))
        coefficient = -coefficient if j % 2 else coefficient
        kept = np.array(list(itertools.combinations(range(number), number - j)))  # [C, K - j]
        subsets = jnp.swapaxes(centred[kept], 0, 1)  # [K - j, C, *batch]
        inner = log_mean_exp(subsets)
        empty = jnp.isneginf(inner)
        value += coefficient * jnp.mean(jnp.where(empty, 0, inner), axis=0)
        # As weights vanish together, log w = -t, the sum is of -t times this.
        slope += coefficient * jnp.mean(empty.astype(log_w.dtype), axis=0)
    everywhere = jnp.all(jnp.isneginf(log_w), axis=0)
    limit = jnp.where(everywhere, jnp.mean(log_w, axis=0), jnp.where(slope < 0, jnp.inf, -jnp.inf))
    return jnp.where(jnp.abs(slope) > 0, limit, value + top[0])


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
      ValueError: a partition that does not rise from 0 to 1.
    """
    log_w = _at_least_float32(log_w)
    points = partition_points(partition)
    zero_weight = jnp.isneginf(log_w)
    value = (points[1] - points[0]) * elbo(log_w)
    for left, right in itertools.pairwise(points[1:]):
        all_zero = jnp.all(zero_weight, axis=0)
        tempered = jnp.where(all_zero, jnp.zeros_like(log_w), left * log_w)
        weights = jax.nn.softmax(tempered, axis=0)
        # A draw of no weight adds nothing, though its log-weight is infinite.
        inner = jnp.sum(weights * jnp.where(zero_weight, 0, log_w), axis=0)
        value += (right - left) * jnp.where(all_zero, jnp.mean(log_w, axis=0), inner)
    return value


def partition_points(partition: int | Sequence[float]) -> tuple[float, ...]:
    """The points of `tvo`'s partition, checked."""
    if isinstance(partition, numbers.Integral):
        partition = [s / partition for s in range(partition + 1)] if partition >= 1 else []
    points = tuple(map(float, partition))
    rising = all(left < right for left, right in itertools.pairwise(points))
    if len(points) < 2 or points[0] != 0 or points[-1] != 1 or not rising:
        raise ValueError(
            "partition must be a number of steps of at least 1, or points that rise from 0 to 1; "
            f"got {points if points else partition}."
        )
    return points


def sumo(log_w: Array, num_terms: Array | int) -> Array:
    """Russian-roulette estimate of log p(x): L_1 + sum_{k=1}^T (L_{k+1} - L_k) / P(terms >= k),
    where L_k is the `iwae` of the first k draws (Luo et al. 2020, eq. 9 to 11).

    Args:
      log_w: log-weights [K, *batch], nats.
      num_terms: T, [*batch] or a scalar, integer, drawn by `roulette.draw_terms`. At most K - 1
        terms can be had, and no more are taken.

    Returns:
      [*batch], nats. Population (over draws and T): the IWAE bound of K draws, and log p(x) itself
      as K grows. Finite K: unbiased for it, with a variance that grows with K; one value may lie
      far above log p(x).
    """
    log_w = _at_least_float32(log_w)
    if log_w.shape[0] == 1:
        return log_w[0]
    counts = jnp.arange(1, log_w.shape[0] + 1, dtype=log_w.dtype)
    counts = counts.reshape(-1, *(1,) * (log_w.ndim - 1))
    values = _cumulative_log_sum_exp(log_w) - jnp.log(counts)  # L_1 .. L_K
    taken = counts[:-1] <= jnp.asarray(num_terms, log_w.dtype)
    # Before the first draw of positive weight L_k is -inf, and so is the estimate.
    finite = jnp.isfinite(values)
    safe = jnp.where(finite, values, 0)
    differences = jnp.where(taken, safe[1:] - safe[:-1], 0) / roulette_survival(counts[:-1])
    return jnp.where(finite[0], safe[0] + jnp.sum(differences, axis=0), log_w[0])


def roulette_survival(term: Array) -> Array:
    """P(terms >= k) of `sumo`'s roulette: 1/k up to k = 80, then falling by 0.9 a term (Luo et al.
    2020, section 3.3). The expected number of terms is about 5 + 9 / 80.
    """
    harmonic = jnp.minimum(term, ROULETTE_KNEE)
    return 0.9 ** (term - harmonic) / harmonic


def log_mean_exp(log_w: Array) -> Array:
    """log 1/K sum_k exp(log_w_k) over axis 0, with the derivative 1/K where all are -inf."""
    all_zero = jnp.all(log_w == -jnp.inf, axis=0)
    safe = jnp.where(all_zero, jnp.zeros_like(log_w), log_w)
    value = jax.nn.logsumexp(safe, axis=0) - jnp.log(jnp.asarray(log_w.shape[0], log_w.dtype))
    return jnp.where(all_zero, jnp.mean(log_w, axis=0), value)


def _power_mean(log_w: Array, s: Array) -> Array:
    """1/s log 1/K sum_k exp(s log_w_k), with its limit, the mean, at s = 0."""
    nonzero = jnp.where(s == 0, jnp.ones_like(s), s)
    scaled = nonzero * log_w
    top = jnp.max(scaled, axis=0)
    infinite = jnp.isinf(top)  # All weights are zero, or some are and s < 0.
    at_top = scaled == top
    limit = jnp.mean(log_w, axis=0, where=at_top)
    far = jax.nn.logsumexp(jnp.where(infinite, jnp.zeros_like(scaled), scaled), axis=0)
    far = (far - jnp.log(jnp.asarray(log_w.shape[0], log_w.dtype))) / nonzero
    # Near the mean, log1p and expm1 keep the digits that the logarithm's division by s would lose.
    mean = jnp.mean(log_w, axis=0)
    finite = jnp.isfinite(mean)
    distance = log_w - jnp.where(finite, mean, 0)[None]
    near = finite & (jnp.max(jnp.abs(s * distance), axis=0) < 0.5)
    distance = jnp.where(near, distance, jnp.zeros_like(log_w))
    expanded = jnp.log1p(jnp.mean(jnp.expm1(nonzero * distance), axis=0)) / nonzero
    series = s * jnp.mean(distance**2, axis=0) / 2
    near_value = mean + jnp.where(s == 0, series, expanded)
    at_zero = jnp.where(s == 0, mean, limit)  # The mean is infinite too where any weight is zero.
    return jnp.where(near, near_value, jnp.where(infinite | (s == 0), at_zero, far))


def _cumulative_log_sum_exp(log_w: Array) -> Array:
    # Combined pairwise: lax.cumlogsumexp has NaN derivatives where all log-weights so far are -inf.
    return jax.lax.associative_scan(jnp.logaddexp, log_w, axis=0)


def _at_least_float32(log_w: Array) -> Array:
    # Log-weights of images are sums of hundreds of nats: half precision would lose whole nats.
    return log_w.astype(jnp.promote_types(log_w.dtype, jnp.float32))
