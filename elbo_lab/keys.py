"""PRNG keys of a run: each is fold_in(fold_in(base_key, STREAM), index).

Keys are of the implementation that `jax_default_prng_impl` names. threefry2x32, JAX's default,
gives the same bits however keys are batched and arrays are sharded. With rbg, which is faster on
TPUs, draws depend on that too (replicates mapped on a GPU are not the runs of their seeds), but
fold_in is threefry's. unsafe_rbg's fold_in makes equal keys of different streams; it is refused.
What all runs share, the binarization drawn once, is of threefry2x32 whatever the setting.
"""

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.errors import UserError

# One constant per use of randomness, so that no two uses share a key.
STEPS, PERMUTATIONS, INITIALIZATION, EVALUATION, FIGURES, FIXED_BINARIZATION = range(6)
ACTIVE_UNITS, SAMPLES, PROBE = 6, 7, 8
# Binarization of a data set by a fixed key does not depend on the run's seed: runs compare on the
# same test images.
FIXED_BINARIZATION_SEED = 0
TRAIN_SPLIT, TEST_SPLIT = range(2)

IMPLEMENTATIONS = ("threefry2x32", "rbg")


def check_implementation() -> None:
    """Raises a UserError where the keys of JAX's configuration would collide."""
    name = str(jax.config.jax_default_prng_impl)
    if name not in IMPLEMENTATIONS:
        raise UserError(
            f"jax_default_prng_impl must be one of {', '.join(IMPLEMENTATIONS)} (the environment's "
            f"JAX_DEFAULT_PRNG_IMPL); got {name!r}, whose keys of different uses may be equal."
        )


def base_key(seed: int | Array) -> Array:
    """The base key of a seed.

    Raises:
      UserError: see `check_implementation`.
    """
    check_implementation()
    return jax.random.key(seed)


def keys_of_seeds(seeds: list[int]) -> Array:
    """The base key of one seed, or [R] of them."""
    if len(seeds) == 1:
        return base_key(seeds[0])
    return jax.vmap(base_key)(jnp.asarray(seeds, jnp.int32))


def binarization_key(split: int, seed: int = FIXED_BINARIZATION_SEED) -> Array:
    """The key by which images of a split are binarized once, of threefry2x32 always."""
    key = jax.random.key(seed, impl=IMPLEMENTATIONS[0])
    return stream_key(key, FIXED_BINARIZATION, split)


def stream_key(base_key: Array, stream: int, index: Array | int = 0) -> Array:
    """The key of one use (a stream) at one index (a step, an epoch, an image)."""
    return jax.random.fold_in(jax.random.fold_in(base_key, stream), index)
