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

import jax
import jax.numpy as jnp
from jax import Array


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


def log_mean_exp(log_w: Array) -> Array:
    """log 1/K sum_k exp(log_w_k) over axis 0, with the derivative 1/K where all are -inf."""
    all_zero = jnp.all(log_w == -jnp.inf, axis=0)
    safe = jnp.where(all_zero, jnp.zeros_like(log_w), log_w)
    value = jax.nn.logsumexp(safe, axis=0) - jnp.log(jnp.asarray(log_w.shape[0], log_w.dtype))
    return jnp.where(all_zero, jnp.mean(log_w, axis=0), value)


def _at_least_float32(log_w: Array) -> Array:
    # Log-weights of images are sums of hundreds of nats: half precision would lose whole nats.
    return log_w.astype(jnp.promote_types(log_w.dtype, jnp.float32))
