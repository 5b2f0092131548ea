"""PRNG keys of a run: each is fold_in(fold_in(base_key, STREAM), index).

Keys use the implementation that `jax_default_prng_impl` names:

threefry2x32  JAX's default; gives the same bits for any batching of keys and sharding of arrays
rbg           faster on TPUs; fold_in is threefry's, but draws depend on batching and sharding, so
              that a replicate under vmap on a GPU differs from the single run of its seed
unsafe_rbg    refused: its fold_in gives equal keys to different streams

The binarization that is drawn once for all runs uses threefry2x32 with every setting.
"""

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.errors import UserError

# One constant per use of randomness, so that no two uses share a key.
STEPS = 0
PERMUTATIONS = 1
INITIALIZATION = 2
EVALUATION = 3
FIGURES = 4
FIXED_BINARIZATION = 5
ACTIVE_UNITS = 6
SAMPLES = 7
PROBE = 8
CLASSIFIERS = 9
# Binarization by a fixed key does not depend on the run's seed, so that all runs are compared on
# the same test images.
FIXED_BINARIZATION_SEED = 0
# Indices of the FIXED_BINARIZATION stream.
TRAIN_SPLIT = 0
TEST_SPLIT = 1

IMPLEMENTATIONS = ("threefry2x32", "rbg")
# Out of reach of any split.
_BESIDE = 2**31 - 1


def check_implementation() -> None:
    """Raises UserError if JAX's key implementation may give equal keys to different streams."""
    name = str(jax.config.jax_default_prng_impl)
    if name not in IMPLEMENTATIONS:
        raise UserError(
            f"jax_default_prng_impl must be one of {', '.join(IMPLEMENTATIONS)} (the environment's "
            f"JAX_DEFAULT_PRNG_IMPL); got {name!r}, which may give equal keys to different uses."
        )


def base_key(seed: int | Array) -> Array:
    """The base key of a seed.

    Raises:
      UserError: see `check_implementation`.
    """
    check_implementation()
    return jax.random.key(seed)


def keys_of_seeds(seeds: list[int]) -> Array:
    """Base keys [R] of R seeds; a single key [] if R = 1."""
    if len(seeds) == 1:
        return base_key(seeds[0])
    return jax.vmap(base_key)(jnp.asarray(seeds, jnp.int32))


def binarization_key(split: int, seed: int = FIXED_BINARIZATION_SEED) -> Array:
    """The threefry2x32 key that binarizes the images of a split once."""
    key = jax.random.key(seed, impl=IMPLEMENTATIONS[0])
    return stream_key(key, FIXED_BINARIZATION, split)


def stream_key(base_key: Array, stream: int, index: Array | int = 0) -> Array:
    """The key of one use (a stream) at one index (a step, an epoch, an image)."""
    return jax.random.fold_in(jax.random.fold_in(base_key, stream), index)


def beside(key: Array) -> Array:
    """A key for one more use of a key that is used or split elsewhere too.

    fold_in(key, i) would be no such key for a small i: in JAX it equals split(key, n)[i].
    """
    return jax.random.fold_in(key, _BESIDE)
