"""Binarization: from grey levels to the pixels that a Bernoulli likelihood models.

The mode is part of every result: bounds for dynamic and fixed binarization of MNIST differ by two
nats.

dynamic    each pixel is a Bernoulli draw with its grey level as probability, anew at every visit;
           the test images are drawn once, by a fixed key (Burda et al. 2016)
fixed      one such draw of every image, by a fixed key
threshold  white where the grey level is at least one half, else black
none       unchanged; a Bernoulli likelihood then needs binary images

Images are uint8 (0..255) or floats in [0, 1]. Stored images keep their type; a batch is float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

BINARIZATIONS = ("dynamic", "fixed", "threshold", "none")


def mode_for_kind(mode: str, kind: str) -> str:
    """The mode for examples of a kind (`Spec.kind`): `mode` for images, "none" for other kinds."""
    return mode if kind == "image" else "none"


def binarize_once(key: Array, x: Array, mode: str) -> Array:
    """The images as they are stored on the device: "fixed" and "threshold" are applied here, once.

    Args:
      key: one typed PRNG key; the draw of image i depends on the key and i alone.
      x: images [N, D].
      mode: one of BINARIZATIONS.

    Returns:
      [N, D], x's type; binary (0 and 255, or 0.0 and 1.0) for fixed and threshold.
    """
    if mode in ("dynamic", "none"):
        return x
    return _binarized(key, x, mode)


def binarize_visit(key: Array, x: Array, mode: str) -> Array:
    """Stored images [*batch, D] at one visit: a new draw (0 and 255, uint8) if dynamic, else
    unchanged. `grey_levels` converts them to a model's input.
    """
    if mode == "dynamic":
        return jnp.where(jax.random.bernoulli(key, grey_levels(x)), 255, 0).astype(jnp.uint8)
    return x


def grey_levels(x: Array) -> Array:
    """Images, uint8 (0..255) or floats in [0, 1], as float32 in [0, 1]."""
    if x.dtype == jnp.uint8:
        return x.astype(jnp.float32) / 255
    return x.astype(jnp.float32)


def model_input(x: Array, kind: str) -> Array:
    """Stored examples in the type of their kind (`Spec.kind`): images as grey levels, tokens as
    int32, real numbers as float32.
    """
    if kind == "image":
        return grey_levels(x)
    return x.astype(jnp.int32 if kind == "token" else jnp.float32)


def binarize_rows_once(key: Array | None, x: Array, indices: Array, mode: str) -> Array:
    """`binarize_once` for the images x [*batch, D] at the indices [*batch] of the data set."""
    if mode in ("dynamic", "none"):
        return x
    return _binarized_rows(key, x, indices, mode)


@functools.partial(jax.jit, static_argnames="mode")
def _binarized(key: Array | None, x: Array, mode: str) -> Array:
    # In blocks, since the random bits of all images at once need many times the images' memory.
    return jax.lax.map(
        lambda i: _binarized_row(key, x[i], i, mode),
        jnp.arange(x.shape[0]),
        batch_size=min(x.shape[0], 500),
    )


@functools.partial(jax.jit, static_argnames="mode")
def _binarized_rows(key: Array | None, x: Array, indices: Array, mode: str) -> Array:
    binarize = functools.partial(_binarized_row, key, mode=mode)
    for _ in indices.shape:
        binarize = jax.vmap(binarize)
    return binarize(x, indices)


def _binarized_row(key: Array | None, x: Array, i: Array, mode: str) -> Array:
    """Image i, x [D], at the threshold or by its own draw; x's type."""
    white = 255 if x.dtype == jnp.uint8 else 1
    if mode == "threshold":
        is_white = grey_levels(x) >= 0.5
    else:
        is_white = jax.random.bernoulli(jax.random.fold_in(key, i), grey_levels(x))
    return jnp.where(is_white, white, 0).astype(x.dtype)
