"""Logarithms of means of weights, and other functions that the bounds of `bounds.py` share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from elbo_lab.losses.arguments import check_broadcasts
from elbo_lab.losses.arrays import to_common_float

# Finite stand-in for infinity: far beyond the log-weights' range of 1e6, and small enough that its
# square times any K is finite in float32.
LARGE = 1e15


def log_mean_exp(log_w: Array) -> Array:
    """log 1/K sum_k exp(log_w_k) over axis 0; for infinities see `bounds.py`."""
    number = jnp.asarray(log_w.shape[0], log_w.dtype)
    finite = jax.nn.logsumexp(to_finite(log_w), axis=0) - jnp.log(number)
    return finite + infinite_part(greatest(log_w)[0])


@jax.custom_jvp
def power_mean(log_w: Array, power: Array) -> Array:
    """1/s log 1/K sum_k exp(s log_w_k), the mean log-weight for s = 0; `power` s is finite and
    [*batch].
    """
    top, distance = _from_top(log_w, power)
    value = _log_mean_exp_below_zero(power[None] * distance) / jnp.where(power == 0, 1, power)
    return jnp.where(power == 0, jnp.mean(log_w, axis=0), top[0] + value)


@functools.partial(power_mean.defjvp, symbolic_zeros=True)
def _power_mean_jvp(primals, tangents):
    log_w, power = primals
    _, distance = _from_top(log_w, power)
    tangent = jnp.zeros_like(log_w[0])
    if not isinstance(tangents[0], SymbolicZero):
        weights = jax.nn.softmax(power[None] * distance, axis=0)
        tangent += jnp.sum(weights * tangents[0], axis=0)
    if not isinstance(tangents[1], SymbolicZero):
        tangent += _derivative_by_power(distance, power) * tangents[1]
    return power_mean(log_w, power), tangent


def _derivative_by_power(distance: Array, power: Array) -> Array:
    """Derivative of the power mean by s: KL(p_s || uniform) / s^2 = int_0^1 t Var_{p_ts}[log w] dt,
    where p_s is proportional to exp(s log w). Near s = 0 the quotient would lose all digits.
    """
    nodes, node_weights = np.polynomial.legendre.leggauss(7)  # on [-1, 1]
    t = jnp.asarray((nodes + 1) / 2, power.dtype)
    t_weights = as_column(jnp.asarray((nodes + 1) / 4 * node_weights, power.dtype), power.ndim + 1)

    def variance(power: Array) -> Array:
        weights = jax.nn.softmax(power[None] * distance, axis=0)
        mean = jnp.sum(weights * distance, axis=0, keepdims=True)
        return jnp.sum(weights * (distance - mean) ** 2, axis=0)

    variances = jax.vmap(lambda t: variance(t * power))(t)  # [7, *batch]
    integral = jnp.sum(t_weights * variances, axis=0)
    scaled = power[None] * distance
    divergence = jnp.sum(jax.nn.softmax(scaled, axis=0) * scaled, axis=0)
    divergence -= _log_mean_exp_below_zero(scaled)
    is_near = jnp.min(scaled, axis=0) > -1
    return jnp.where(is_near, integral, divergence / jnp.where(is_near, 1, power) ** 2)


def _from_top(log_w: Array, power: Array) -> tuple[Array, Array]:
    """The log-weight whose s log_w is greatest, [1, *batch], and log_w minus it, finite."""
    least = -greatest(-log_w)
    top = jnp.where(power[None] < 0, least, greatest(log_w))
    return top, to_finite(log_w) - to_finite(top)


def _log_mean_exp_below_zero(log_w: Array) -> Array:
    """log 1/K sum_k exp(log_w_k) for log-weights of which the greatest is 0."""
    shortfall = jnp.mean(jnp.expm1(log_w), axis=0)
    # log1p keeps the digits of log-weights near zero, log those of a small mean.
    mean = jnp.mean(jnp.exp(log_w), axis=0)
    return jnp.where(shortfall < -0.5, jnp.log(mean), jnp.log1p(shortfall))


def greatest(log_w: Array) -> Array:
    """The greatest log-weight, [1, *batch], held fixed."""
    return jax.lax.stop_gradient(jnp.max(log_w, axis=0, keepdims=True))


@jax.custom_jvp
def to_finite(log_w: Array) -> Array:
    """log_w with infinities replaced by +-`LARGE`; its derivative is that of log_w."""
    return jnp.clip(log_w, -LARGE, LARGE)


@to_finite.defjvp
def _to_finite_jvp(primals, tangents):
    return to_finite(primals[0]), tangents[0]


def infinite_part(value: Array) -> Array:
    """The value where it is not finite, else 0; held fixed."""
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(value), 0, value))


def as_log_weights(log_w: Array) -> Array:
    """Log-weights [K, *batch] of at least float32, checked.

    Log-weights of images are hundreds of nats: half precision would lose whole nats.
    """
    log_w = jnp.asarray(log_w)
    if log_w.ndim == 0 or log_w.shape[0] == 0:
        raise ValueError(f"log_w must be [K, *batch] with K of at least 1; got {log_w.shape}.")
    return to_common_float(log_w)[0]


def as_parameter(value: Array | float, dtype: jnp.dtype) -> Array | np.ndarray:
    """The parameter as NumPy float64 if its value is known, else as a tracer of `dtype`."""
    return np.asarray(value, np.float64) if is_known(value) else value.astype(dtype)


def over_batch(name: str, value: Array | np.ndarray, log_w: Array) -> Array:
    """A parameter, a scalar or [*batch], as [*batch] of log_w's type and sharding.

    Raises:
      ValueError: if the parameter has another shape.
    """
    check_broadcasts(name, value, log_w.shape[1:])
    return jnp.asarray(value, log_w.dtype) + jnp.zeros_like(log_w[0])


def is_known(value: Array | float) -> bool:
    """True if the value is known while JAX traces, and so can be checked."""
    return not isinstance(value, jax.core.Tracer)


def as_column(values: Array, rank: int) -> Array:
    """Values [N] as [N, 1, ..., 1] of this rank."""
    return jnp.expand_dims(values, range(1, rank))
