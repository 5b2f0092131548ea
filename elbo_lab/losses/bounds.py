"""Bounds as functions of log-weights: `log_w` [K, *batch] -> [*batch], in nats.

With draws z_1..z_K ~ q(z|x), log_w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x). A bound knows
nothing about how the draws were made or how it will be differentiated (`estimators.py`), and
returns the quantity itself; only objectives negate it.

Draws of zero weight (log_w = -inf) are exact: value and derivatives are the limits of those for
log-weights -t, the same t for all of them, as t grows. So where *every* weight is zero the value
is -inf and the derivatives are those of any other K equal log-weights, the first being 1/K each:
bounds stay shift-equivariant and no NaN appears.

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
      O(K^-(m+1)), of either sign. Finite K: may exceed log p(x). Where at most m draws have a
      positive weight it is infinite: +inf for an odd number of them, -inf for an even one.

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
    top = _finite_top(log_w)
    value = 0.0
    for j in range(order + 1):
        coefficient = (number - j) ** order / (math.factorial(j) * math.factorial(order - j))
        coefficient = -coefficient if j % 2 else coefficient
        kept = np.array(list(itertools.combinations(range(number), number - j)))  # [C, K - j]
        subsets = jnp.swapaxes((log_w - top)[kept], 0, 1)  # [K - j, C, *batch]
        value += coefficient * jnp.mean(_finite_log_mean_exp(subsets), axis=0)
    # Subsets of zero weights alone are -t each; the sign of their coefficients' sum is this.
    positive = jnp.sum(~jnp.isneginf(log_w), axis=0)
    limit = jnp.where(positive % 2 == 1, jnp.inf, -jnp.inf)
    return value + top[0] + jnp.where(positive <= order, limit, 0).astype(log_w.dtype)


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
    # Centred, as weights of log_w itself lose the digits of large log-weights.
    top = _finite_top(log_w)
    all_zero = jnp.all(jnp.isneginf(log_w), axis=0)
    centred = _zeros_where(all_zero, log_w - top)
    finite = jnp.where(jnp.isneginf(centred), 0, centred)
    value = (points[1] - points[0]) * jnp.mean(centred, axis=0)
    for left, right in itertools.pairwise(points[1:]):
        weights = jax.nn.softmax(left * centred, axis=0)
        # A draw of no weight adds nothing, though its log-weight is infinite.
        value += (right - left) * jnp.sum(weights * finite, axis=0)
    return value + top[0] + _minus_infinity(all_zero, log_w.dtype)


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
      far above log p(x). Where the first n > 0 draws have zero weight it is -inf if T < n, and +inf
      if T >= n > 1.
    """
    log_w = _at_least_float32(log_w)
    number = log_w.shape[0]
    counts = jnp.arange(1, number + 1, dtype=log_w.dtype)
    counts = counts.reshape(-1, *(1,) * (log_w.ndim - 1))
    top = _finite_top(log_w)
    log_w = log_w - top  # Small numbers keep the digits.
    # Up to the first draw of positive weight, L_k is -t (see the module's docstring), here zero.
    leading = jnp.isneginf(jax.lax.cummax(log_w, axis=0))
    values = _cumulative_log_sum_exp(log_w, leading) - jnp.log(counts)  # L_1 .. L_K
    num_terms = jnp.minimum(jnp.asarray(num_terms, log_w.dtype), number - 1)
    num_terms = jnp.broadcast_to(num_terms, log_w.shape[1:])
    taken = counts[:-1] <= num_terms[None]
    differences = jnp.where(taken, values[1:] - values[:-1], 0) / roulette_survival(counts[:-1])
    limit = roulette_limit(jnp.sum(leading, axis=0).astype(log_w.dtype), num_terms)
    return values[0] + jnp.sum(differences, axis=0) + limit + top[0]


def roulette_survival(term: Array) -> Array:
    """P(terms >= k) of `sumo`'s roulette: 1/k up to k = 80, then falling by 0.9 a term (Luo et al.
    2020, section 3.3). The expected number of terms is about 5 + 9 / 80.
    """
    harmonic = jnp.minimum(term, ROULETTE_KNEE)
    return 0.9 ** (term - harmonic) / harmonic


def roulette_limit(zeros: Array, num_terms: Array) -> Array:
    """What `sumo` tends to beside its finite part, by the number of first draws of zero weight:
    their bounds -t have coefficients that sum to 1, or to 1 - 1 / P(terms >= zeros) where a term
    ends them.
    """
    unended = zeros > num_terms
    limit = jnp.where(unended, -jnp.inf, jnp.where(zeros > 1, jnp.inf, 0))
    return jnp.where(zeros == 0, 0, limit).astype(zeros.dtype)


def log_mean_exp(log_w: Array) -> Array:
    """log 1/K sum_k exp(log_w_k) over axis 0; for -inf see the module's docstring."""
    all_zero = jnp.all(jnp.isneginf(log_w), axis=0)
    return _finite_log_mean_exp(log_w) + _minus_infinity(all_zero, log_w.dtype)


def _finite_log_mean_exp(log_w: Array) -> Array:
    """log_mean_exp, but zero instead of -inf, whose derivatives are those of equal log-weights."""
    safe = _zeros_where(jnp.all(jnp.isneginf(log_w), axis=0), log_w)
    return jax.nn.logsumexp(safe, axis=0) - jnp.log(jnp.asarray(log_w.shape[0], log_w.dtype))


def _power_mean(log_w: Array, s: Array) -> Array:
    """1/s log 1/K sum_k exp(s log_w_k), with its limit, the mean, at s = 0."""
    nonzero = jnp.where(s == 0, jnp.ones_like(s), s)
    ends = jnp.max(log_w, axis=0, keepdims=True), jnp.min(log_w, axis=0, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(nonzero > 0, *ends))  # of s log_w
    distance = _zeros_where(log_w == top, log_w - top)
    far = jnp.isinf(distance)  # of no weight beside the top
    distance = jnp.where(far, 0, distance)
    scaled = jnp.where(far, -jnp.inf, nonzero * distance)  # <= 0
    weights = jnp.exp(scaled)
    # log1p and expm1 keep the digits that the logarithm's division by a small s would lose; far
    # from zero they would lose those of small weights' derivatives, and of a small mean.
    near = scaled > -1
    shortfalls = jnp.where(near, jnp.expm1(jnp.where(near, scaled, 0)), weights - 1)
    shortfall = jnp.mean(shortfalls, axis=0)
    small = shortfall < -0.5
    by_mean = jnp.log(jnp.where(small, jnp.mean(weights, axis=0), 1))
    value = jnp.where(small, by_mean, jnp.log1p(jnp.where(small, 0, shortfall))) / nonzero
    # The series in s, for derivatives by s.
    at_zero = jnp.mean(log_w, axis=0) + s * jnp.var(distance, axis=0) / 2
    return jnp.where(s == 0, at_zero, value + top[0])


@jax.custom_jvp
def _zeros_where(condition: Array, log_w: Array) -> Array:
    """log_w with zeros where the condition holds, differentiated as log_w all the same."""
    return jnp.where(condition, 0, log_w)


@_zeros_where.defjvp
def _(primals, tangents):
    return _zeros_where(*primals), tangents[1]


def _finite_top(log_w: Array) -> Array:
    """The greatest log-weight, [1, *batch], or zero where it is infinite; held fixed."""
    top = jax.lax.stop_gradient(jnp.max(log_w, axis=0, keepdims=True))
    return jnp.where(jnp.isinf(top), 0, top)


def _minus_infinity(where: Array, dtype: jnp.dtype) -> Array:
    return jnp.where(where, -jnp.inf, 0).astype(dtype)


def _cumulative_log_sum_exp(log_w: Array, leading: Array) -> Array:
    """log sum_{j<=k} exp(log_w_j). The leading log-weights, all -inf, count as zeros up to the
    first that is not, which leaves them without weight.

    Scanned as pairs of a maximum, held fixed, and a sum of exp(log_w_j - maximum): the derivatives
    are ratios of such sums, and as exact for log-weights that lie hundreds of nats apart.
    """
    log_w = _zeros_where(leading, log_w)
    top = jax.lax.stop_gradient(log_w)
    infinite = jnp.isinf(top)
    own = jnp.where(infinite, top > 0, jnp.exp(jnp.where(infinite, 0, log_w - top)))

    def scaled(total: Array, top: Array, to: Array) -> Array:
        # Infinities of the same sign are no distance apart.
        return total * jnp.where(top == to, 1, jnp.exp(top - to))

    def add(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
        (before, top_a, a), (after, top_b, b) = one, other
        dropped = before & ~after
        top_a, a = jnp.where(dropped, -jnp.inf, top_a), jnp.where(dropped, 0, a)
        top = jnp.maximum(top_a, top_b)
        return after, top, scaled(a, top_a, top) + scaled(b, top_b, top)

    _, top, total = jax.lax.associative_scan(add, (leading, top, own), axis=0)
    return top + jnp.log(total)


def _at_least_float32(log_w: Array) -> Array:
    # Log-weights of images are sums of hundreds of nats: half precision would lose whole nats.
    return log_w.astype(jnp.promote_types(log_w.dtype, jnp.float32))
