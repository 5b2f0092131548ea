"""Derivatives of bounds by log-weights, and values whose derivatives are chosen, or refused.

JAX differentiates a function while it is traced: what is refused here is refused there, under
`jax.jit` too, and costs nothing in the compiled program.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

# Rows of a bound's Hessian that are computed together: memory is this times the log-weights'.
HESSIAN_ROWS = 128

FIRST_ONLY = (
    "Only first derivatives of this loss are right, and a second one was asked for (a Hessian, or "
    'a gradient of a gradient): use estimator="reparam" for it, with a bound whose derivative does '
    "not jump."
)


def evaluate(bound: Callable[[Array], Array], log_w: Array) -> Array:
    """bound(log_w), [*batch], whose shape is checked, since users write bounds too."""
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
      ValueError: if the bound says that its derivative jumps, see `once_differentiable`.
    """
    number = log_w.shape[0]

    def entry(k: Array) -> Array:
        chosen = (jnp.arange(number) == k).reshape(-1, *(1,) * (log_w.ndim - 1))
        # ones_like keeps the sharding of log_w.
        along = chosen.astype(log_w.dtype) * jnp.ones_like(log_w)
        slope = jax.jvp(functools.partial(derivative, bound), (log_w,), (along,))[1]
        return jnp.sum(slope * along, axis=0)

    if number <= HESSIAN_ROWS:
        return jax.vmap(entry)(jnp.arange(number))
    return jax.lax.map(entry, jnp.arange(number), batch_size=HESSIAN_ROWS)


def path_weight(bound: Callable[[Array], Array], log_w: Array) -> Array:
    """v - h, [K, *batch]: what doubly reparameterized gradients weigh each path with. For the IWAE
    bound these are the squared normalized weights (Tucker et al. 2019, eq. 8).
    """
    return derivative(bound, log_w) - diagonal_hessian(bound, log_w)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def once_differentiable(value: Array, message: str = FIRST_ONLY) -> Array:
    """`value`, whose second derivative is refused.

    For a bound whose first derivative jumps (`bounds.vr_max`), and for surrogates whose gradient is
    right while their Hessian is not. A user's bound says that its derivative jumps by returning its
    value through this function.

    Args:
      value: any shape.
      message: the sentence of the ValueError.

    Returns:
      The value, of the same first derivative.

    Raises:
      ValueError: with the message, where the first derivative is differentiated.
    """
    del message
    return value


@once_differentiable.defjvp
def _(message, primals, tangents):
    (value,), (tangent,) = primals, tangents
    return value, tangent * _ones_without_derivative(value, message)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _ones_without_derivative(value: Array, message: str) -> Array:
    """Ones that count as a function of `value`: the compiler drops the product with them."""
    del message
    return jnp.ones_like(value)


@_ones_without_derivative.defjvp
def _(message, primals, tangents):
    del primals, tangents
    raise ValueError(message)


@jax.custom_jvp
def with_gradient_of(value: Array, surrogate: Array) -> Array:
    """`value`, with the first derivative of `surrogate`: no arithmetic between them could cost
    digits, or make NaNs of infinities. Second derivatives are refused.
    """
    del surrogate
    return value


@with_gradient_of.defjvp
def _(primals, tangents):
    value, surrogate = primals
    return value, tangents[1] * _ones_without_derivative(surrogate, FIRST_ONLY)


@jax.custom_jvp
def scale_gradient(z: Array, ratio: Array) -> Array:
    """z, whose derivative is multiplied by `ratio`."""
    del ratio
    return z


@scale_gradient.defjvp
def _(primals, tangents):
    return primals[0], tangents[0] * primals[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def inspect_tangents(value: Array, watched: Any, check: Callable[[Any], None]) -> Array:
    """`value`, differentiated as it is, after `check` has seen what is being differentiated.

    Args:
      value: any shape.
      watched: pytree of arrays.
      check: takes the same tree of booleans, whether each leaf has a derivative (a tangent that is
        not zero by construction), and may raise. Called where the value is differentiated.

    Returns:
      The value.
    """
    del watched, check
    return value


def _inspect_tangents_jvp(check, primals, tangents):
    check(
        jax.tree.map(
            lambda tangent: not isinstance(tangent, SymbolicZero),
            tangents[1],
            is_leaf=lambda tangent: isinstance(tangent, SymbolicZero),
        )
    )
    return primals[0], tangents[0]


inspect_tangents.defjvp(_inspect_tangents_jvp, symbolic_zeros=True)
