"""Values whose derivatives are restricted: refused by a sentence instead of being wrong.

JAX differentiates a function while it is traced, so that the refusals here are raised there, under
`jax.jit` too, and cost nothing in the compiled program.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def once_differentiable(value: Array, message: str) -> Array:
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
