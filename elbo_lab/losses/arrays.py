"""Types and ranks of arrays, made explicit: valid under `jax.numpy_dtype_promotion("strict")` and
`jax.numpy_rank_promotion("raise")`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def to_common_float(*values: ArrayLike) -> list[Array]:
    """The values as arrays of their common floating-point type, at least float32.

    Derivatives flow back in each value's own type.
    """
    arrays = [jnp.asarray(value) for value in values]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [array.astype(dtype) for array in arrays]


def to_common_rank(*arrays: Array) -> list[Array]:
    """The arrays reshaped to the same rank, by leading dimensions of size 1."""
    rank = max(array.ndim for array in arrays)
    return [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in arrays]
