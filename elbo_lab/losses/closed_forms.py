"""Closed-form Kullback-Leibler divergences between laws (see `laws.py`), in nats.

`DIVERGENCES` has one function for each pair of names of laws. Where the law allows it, a form is a
sum of terms >= 0, so that divergences near zero keep their relative digits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import digamma, gammaln

from elbo_lab.losses.arrays import to_common_float
from elbo_lab.losses.laws import PARAMETER_NDIMS, Law, broadcast_parameter, diagonal_matrix


class FactorKL(NamedTuple):
    """KL of each factor of two distributions, in nats."""

    values: Array  # [*batch, *factors]
    ndims: int  # number of dimensions of factors; 0: the KL is known for the whole event only


# The functions below take parameters of one type and of the same leading dimensions.


@jax.custom_jvp
def exp_excess(t: Array) -> Array:
    """exp(t) - 1 - t >= 0, to the last digits for any t."""
    small = jnp.abs(t) < 0.5
    near = jnp.where(small, t, 0)
    series = jnp.zeros_like(t)
    for n in range(15, 1, -1):
        series = series * near + 1 / math.factorial(n)
    return jnp.where(small, series * near**2, jnp.expm1(t) - t)


@exp_excess.defjvp
def _exp_excess_jvp(primals, tangents):
    return exp_excess(*primals), jnp.expm1(*primals) * tangents[0]


@jax.custom_jvp
def log_ratio(x: Array, y: Array) -> Array:
    """log(x / y) for positive x and y, to the last digits where they are nearly equal."""
    excess = (x - y) / y  # x - y is exact where they are within a factor of 2.
    small = jnp.abs(excess) < 0.5
    return jnp.where(small, jnp.log1p(jnp.where(small, excess, 0)), jnp.log(x) - jnp.log(y))


@log_ratio.defjvp
def _log_ratio_jvp(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    return log_ratio(x, y), x_dot / x - y_dot / y


def normal(mean_q: Array, scale_q: Array, mean_p: Array, scale_p: Array) -> Array:
    """1/2 [(s_q/s_p)^2 - 1 - log (s_q/s_p)^2 + ((m_q - m_p)/s_p)^2]."""
    distance = (mean_q - mean_p) / scale_p
    return 0.5 * (exp_excess(2 * log_ratio(scale_q, scale_p)) + distance**2)


def multivariate_normal(mean_q: Array, tril_q: Array, mean_p: Array, tril_p: Array) -> Array:
    """1/2 [|A|^2 - L - log |A|^2 + |L_p^-1 (m_q - m_p)|^2] with A = L_p^-1 L_q, S = L L^T."""
    distance = jnp.broadcast_to(mean_q - mean_p, tril_p.shape[:-1])
    whitened = solve_triangular(tril_p, distance[..., None], lower=True)[..., 0]
    below = jnp.tril(solve_triangular(tril_p, tril_q, lower=True), -1)
    # A's diagonal is the ratio of the factors' diagonals.
    diagonals = (jnp.abs(jnp.diagonal(tril, axis1=-2, axis2=-1)) for tril in (tril_q, tril_p))
    terms = exp_excess(2 * log_ratio(*diagonals)) + whitened**2
    return 0.5 * (jnp.sum(terms, axis=-1) + jnp.sum(below**2, axis=(-2, -1)))


def laplace(mean_q: Array, scale_q: Array, mean_p: Array, scale_p: Array) -> Array:
    """r - 1 - log r + r (a + exp(-a) - 1), r = b_q/b_p and a = |m_q - m_p|/b_q."""
    distance = jnp.abs(mean_q - mean_p) / scale_q
    spread = exp_excess(log_ratio(scale_q, scale_p))
    return spread + scale_q / scale_p * exp_excess(-distance)


def uniform(low_q: Array, high_q: Array, low_p: Array, high_p: Array) -> Array:
    """log of the ratio of lengths; inf unless q's interval lies within p's."""
    inside = (low_q >= low_p) & (high_q <= high_p)
    return jnp.where(inside, log_ratio(high_p - low_p, high_q - low_q), jnp.inf)


def gamma(shape_q: Array, rate_q: Array, shape_p: Array, rate_p: Array) -> Array:
    """a_q (r - 1 - log r) + (a_q - a_p) log r + log G(a_p)/G(a_q) - (a_p - a_q) psi(a_q), where r
    is the ratio of rates b_p/b_q, G the gamma function and psi its logarithmic derivative.
    """
    t = log_ratio(rate_p, rate_q)
    shapes = gammaln(shape_p) - gammaln(shape_q) - (shape_p - shape_q) * digamma(shape_q)
    return shape_q * exp_excess(t) + (shape_q - shape_p) * t + shapes


def dirichlet(concentration_q: Array, concentration_p: Array) -> Array:
    """log B(a_p)/B(a_q) + sum_c (a_qc - a_pc) (psi(a_qc) - psi(sum_c a_qc))."""

    def log_beta(concentration: Array) -> Array:
        return jnp.sum(gammaln(concentration), axis=-1) - gammaln(jnp.sum(concentration, axis=-1))

    total = jnp.sum(concentration_q, axis=-1, keepdims=True)
    slopes = digamma(concentration_q) - digamma(total)
    terms = (concentration_q - concentration_p) * slopes
    return log_beta(concentration_p) - log_beta(concentration_q) + jnp.sum(terms, axis=-1)


def beta(one_q: Array, zero_q: Array, one_p: Array, zero_p: Array) -> Array:
    """The divergence of Dirichlet distributions with two concentrations."""
    return dirichlet(jnp.stack([one_q, zero_q], -1), jnp.stack([one_p, zero_p], -1))


def _mass_excess(q: Array, p: Array, t: Array) -> Array:
    """q log(q/p) - q + p >= 0 for masses q and p, given t = log(p/q)."""
    near = jnp.abs(t) < 1  # Elsewhere exp(t) may overflow, and nothing cancels.
    return jnp.where(near, q * exp_excess(jnp.where(near, t, 0)), p - q - q * t)


def poisson(rate_q: Array, rate_p: Array) -> Array:
    """r_q log(r_q/r_p) - r_q + r_p, with 0 log 0 = 0."""
    positive = (rate_q > 0) & (rate_p > 0)
    safe_q, safe_p = (jnp.where(positive, rate, 1) for rate in (rate_q, rate_p))
    value = _mass_excess(safe_q, safe_p, log_ratio(safe_p, safe_q))
    return jnp.where(positive, value, jnp.where(rate_q > 0, jnp.inf, rate_p))


def categorical(logits_q: Array, logits_p: Array) -> Array:
    """sum_c q_c log(q_c/p_c), with 0 log 0 = 0; inf if q has mass on a state where p has none.

    Logits [..., C] need not be normalized, and are -inf for states of no mass. Derivatives by the
    logit or the probability of a state without mass are 0.
    """
    if logits_q.shape[-1] != logits_p.shape[-1]:
        raise ValueError(
            f"The posterior has {logits_q.shape[-1]} states and the prior {logits_p.shape[-1]}; "
            "both must be laws of the same variable."
        )
    in_q, in_p = logits_q > -jnp.inf, logits_p > -jnp.inf
    both = in_q & in_p
    log_q, log_p = (jax.nn.log_softmax(logits, axis=-1) for logits in (logits_q, logits_p))
    q, p = jnp.exp(log_q), jnp.exp(log_p)
    excesses = _mass_excess(q, p, jnp.where(both, log_p - log_q, 0))
    far = jnp.sum(jnp.where(both, excesses, p), axis=-1)
    # For p near q: log sum_c q_c exp(d_c), with d = logits_p - logits_q minus its mean under q. No
    # normalizer is subtracted, and no terms cancel.
    shift = jnp.where(both, logits_p, 0) - jnp.where(both, logits_q, 0)
    shift = shift - jnp.sum(q * shift, axis=-1, keepdims=True)
    near = jnp.all((in_q == in_p) & ((jnp.abs(shift) < 1) | ~both), axis=-1)
    shift = jnp.where(near[..., None] & both, shift, 0)
    close = jnp.log1p(jnp.sum(q * exp_excess(shift), axis=-1))
    missing = jnp.any(in_q & ~in_p, axis=-1)
    return jnp.where(missing, jnp.inf, jnp.where(near, close, far))


# A bijection of the variable does not change the divergence: log-normal laws have the normal's.
DIVERGENCES: dict[tuple[str, str], Callable[..., Array]] = {
    ("normal", "normal"): normal,
    ("log_normal", "log_normal"): normal,
    ("multivariate_normal", "multivariate_normal"): multivariate_normal,
    ("laplace", "laplace"): laplace,
    ("uniform", "uniform"): uniform,
    ("gamma", "gamma"): gamma,
    ("beta", "beta"): beta,
    ("dirichlet", "dirichlet"): dirichlet,
    ("poisson", "poisson"): poisson,
    ("categorical", "categorical"): categorical,
    ("one_hot", "one_hot"): categorical,
}


def divergence(q: Law, p: Law) -> FactorKL | None:
    """KL(q || p) of each factor; None if no closed form is known."""
    if "multivariate_normal" in (q.name, p.name):
        q, p = _as_multivariate(q), _as_multivariate(p)
    function = DIVERGENCES.get((q.name, p.name))
    if function is None or q.factor_ndims != p.factor_ndims:
        return None
    shape = jnp.broadcast_shapes(q.shape, p.shape)
    parameters = to_common_float(*q.parameters, *p.parameters)
    ndims = PARAMETER_NDIMS.get(q.name, (0,) * len(q.parameters)) * 2
    arguments = [broadcast_parameter(x, shape, n) for x, n in zip(parameters, ndims, strict=True)]
    return FactorKL(function(*arguments), q.factor_ndims)


def _as_multivariate(law: Law) -> Law:
    """Independent normal factors as one multivariate normal; any other law as it is."""
    if law.name != "normal" or law.factor_ndims == 0:
        return law
    mean, scale = law.parameters
    parameters = mean, diagonal_matrix(scale)
    return Law("multivariate_normal", parameters, law.shape[:-1], law.factor_ndims - 1)
