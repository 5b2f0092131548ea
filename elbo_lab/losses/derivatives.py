"""Derivatives of bounds by log-weights, and functions that set, change or refuse a derivative.

JAX differentiates a function while it traces it. So a refused derivative raises at trace time,
under `jax.jit` too, and costs nothing in the compiled program.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from elbo_lab.losses.log_means import as_column

# Rows of a bound's Hessian computed together; they need the log-weights' memory once per row.
HESSIAN_ROWS = 128

FIRST_ONLY = (
    "Only first derivatives of this loss are right, and a second derivative was requested (a "
    'Hessian, or a gradient of a gradient): use estimator="reparam", with a bound whose derivative '
    "does not jump."
)


def evaluate(bound: Callable[[Array], Array], log_w: Array) -> Array:
    """bound(log_w), [*batch]; its shape is checked, since users write bounds too."""
    value = bound(log_w)
    if jnp.shape(value) != log_w.shape[1:]:
        raise ValueError(
            f"bound must map log-weights [K, *batch], here {log_w.shape}, to [*batch], here "
            f"{log_w.shape[1:]}; it returned {jnp.shape(value)}. The draws are the first axis: "
            "reduce axis 0 alone."
        )
    return value


def derivative(bound: Callable[[Array], Array], log_w: Array) -> Array:
    """v = df / d log_w, [K, *batch]: the weight of each draw in the gradient of f."""
    return jax.grad(lambda log_w: jnp.sum(evaluate(bound, log_w)))(log_w)


def diagonal_hessian(bound: Callable[[Array], Array], log_w: Array) -> Array:
    """h_k = d^2 f / d log_w_k^2, [K, *batch], by K forward derivatives of v.

    Raises:
      ValueError: if the bound's derivative jumps; see `once_differentiable`.
    """
    number = log_w.shape[0]

    def entry(k: Array) -> Array:
        is_k = as_column(jnp.arange(number) == k, log_w.ndim)
        # ones_like keeps the sharding of log_w.
        direction = is_k.astype(log_w.dtype) * jnp.ones_like(log_w)
        _, row = jax.jvp(functools.partial(derivative, bound), (log_w,), (direction,))
        return jnp.sum(row * direction, axis=0)

    if number <= HESSIAN_ROWS:
        return jax.vmap(entry)(jnp.arange(number))
    return jax.lax.map(entry, jnp.arange(number), batch_size=HESSIAN_ROWS)


def path_weight(bound: Callable[[Array], Array], log_w: Array) -> Array:
    """v - h, [K, *batch]: the weight of each draw's path in doubly reparameterized gradients. For
    the IWAE bound it is the squared normalized weight (Tucker et al. 2019, eq. 8).
    """
    return derivative(bound, log_w) - diagonal_hessian(bound, log_w)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def once_differentiable(value: Array, message: str = FIRST_ONLY) -> Array:
    """`value`, whose second derivative is refused.

    For a bound whose first derivative jumps (`bounds.vr_max`), and for surrogates whose gradient is
    right while their Hessian is not. A user's bound whose derivative jumps returns its value
    through this function.

    Args:
      value: any shape.
      message: the message of the ValueError.

    Returns:
      The value, with the same first derivative.

    Raises:
      ValueError: with the message, when the first derivative is differentiated.
    """
    del message
    return value


@once_differentiable.defjvp
def _once_differentiable_jvp(message, primals, tangents):
    (value,), (tangent,) = primals, tangents
    return value, tangent * _ones_without_derivative(value, message)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _ones_without_derivative(value: Array, message: str) -> Array:
    """Ones whose derivative by `value` is refused; the compiler drops a product with them."""
    del message
    return jnp.ones_like(value)


@_ones_without_derivative.defjvp
def _ones_without_derivative_jvp(message, primals, tangents):
    del primals, tangents
    raise ValueError(message)


@jax.custom_jvp
def with_gradient_of(value: Array, surrogate: Array) -> Array:
    """`value`, with the first derivative of `surrogate`. Second derivatives are refused.

    The usual value + surrogate - stop_gradient(surrogate) would lose digits, and be NaN where they
    are infinite.
    """
    del surrogate
    return value


@with_gradient_of.defjvp
def _with_gradient_of_jvp(primals, tangents):
    value, surrogate = primals
    return value, tangents[1] * _ones_without_derivative(surrogate, FIRST_ONLY)


@jax.custom_jvp
def scale_gradient(z: Array, ratio: Array) -> Array:
    """z, whose derivative is multiplied by `ratio`."""
    del ratio
    return z


@scale_gradient.defjvp
def _scale_gradient_jvp(primals, tangents):
    (z, ratio), (z_dot, _) = primals, tangents
    return z, z_dot * ratio


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def inspect_tangents(value: Array, watched: Any, check: Callable[[Any], None]) -> Array:
    """`value` with its own derivative; when it is differentiated, `check` is called first.

    Args:
      value: any shape.
      watched: pytree of arrays.
      check: called with a tree of booleans, True for each leaf of `watched` that has a derivative,
        i.e. a tangent that is not zero by construction. May raise.
    """
    del watched, check
    return value


def _inspect_tangents_jvp(check, primals, tangents):
    value, _ = primals
    value_dot, watched_dot = tangents

    def is_zero(tangent: Any) -> bool:
        return isinstance(tangent, SymbolicZero)

    check(jax.tree.map(lambda tangent: not is_zero(tangent), watched_dot, is_leaf=is_zero))
    return value, value_dot


inspect_tangents.defjvp(_inspect_tangents_jvp, symbolic_zeros=True)
