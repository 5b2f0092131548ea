"""Arrays of networks of pixels in raster order: labels, rows and neighbours.

Arrays of features are [rows, H, W, F], with a row for each example.
"""

import jax
import jax.numpy as jnp
from jax import Array


def label_rows(label: Array | None, x: Array) -> Array | None:
    """One-hot labels [*batch, C] for values x [*any, D'], as [rows, 1, 1, C]."""
    if label is None:
        return None
    rows = jnp.broadcast_to(label, (*x.shape[:-1], label.shape[-1]))
    return rows.reshape(-1, 1, 1, label.shape[-1])


def row_of(x: Array, row: Array | int, size: tuple[int, int, int]) -> Array:
    """The values of one row of images x [*any, D] of size (H, W, C), [*any, W C]."""
    length = size[1] * size[2]
    return jax.lax.dynamic_slice_in_dim(x, row * length, length, axis=-1)


def neighbours(x: Array, index: Array | int, radius: int, axis: int) -> tuple[Array, Array]:
    """The `radius` rows or columns before an index, zeros outside of the image, and its own."""
    padding = [(radius, 0) if i == axis else (0, 0) for i in range(x.ndim)]
    before = jax.lax.dynamic_slice_in_dim(jnp.pad(x, padding), index, radius, axis)
    return before, jax.lax.dynamic_slice_in_dim(x, index, 1, axis)


def moved_on(before: Array, own: Array, axis: int) -> Array:
    """The rows or columns before the next index."""
    return jax.lax.slice_in_dim(
        jnp.concatenate([before, own], axis), 1, before.shape[axis] + 1, axis=axis
    )


def grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a shape of one to three axes."""
    if len(shape) == 1:
        return 1, shape[0], 1
    if len(shape) == 2:
        return *shape, 1
    return shape
