"""Keys of a run are all different, for every accepted implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import keys, training
from elbo_lab.configs import Config
from elbo_lab.data import binarization
from elbo_lab.devices import setup
from elbo_lab.errors import UserError

COUNT = 40


def key_data(key: jax.Array) -> tuple[int, ...]:
    return tuple(jax.random.key_data(key).ravel().tolist())


def with_splits(key: jax.Array) -> set[tuple[int, ...]]:
    """The data of a key and of those that it may be split into."""
    splits = [jax.random.split(jax.random.clone(key), number) for number in range(1, 9)]
    return {key_data(key), *(key_data(part) for split in splits for part in split)}


@pytest.mark.parametrize("implementation", keys.IMPLEMENTATIONS)
def test_a_key_beside_others_is_none_that_they_are_split_into(implementation):
    key = jax.random.key(3, impl=implementation)
    assert key_data(jax.random.fold_in(key, 0)) in with_splits(key)
    assert key_data(keys.beside(key)) not in with_splits(key)


@pytest.mark.parametrize("implementation", keys.IMPLEMENTATIONS)
def test_no_two_uses_of_randomness_share_a_key(implementation):
    """Streams, indices, and the keys of steps and images, for two base keys."""
    streams, indices = jnp.arange(keys.ACTIVE_UNITS + 1), jnp.arange(COUNT)

    def all_keys(base: jax.Array, binarization: jax.Array) -> list[jax.Array]:
        by_index = jax.vmap(lambda stream, i: keys.stream_key(base, stream, i), (None, 0))
        stream_keys = jax.vmap(by_index, (0, None))(streams, indices)
        step_keys = jax.vmap(jax.random.split)(stream_keys[keys.STEPS])
        by_split = jax.vmap(jax.random.fold_in, (0, None))
        image_keys = jax.vmap(by_split, (None, 0))(binarization, indices)
        return [jax.random.key_data(k) for k in (stream_keys, step_keys, image_keys)]

    used = []
    with jax.default_prng_impl(implementation):
        for seed in (keys.FIXED_BINARIZATION_SEED, 1):
            splits = (keys.TRAIN_SPLIT, keys.TEST_SPLIT)
            binarization = jnp.stack([keys.binarization_key(split, seed) for split in splits])
            for data in jax.jit(all_keys)(keys.base_key(seed), binarization):
                used += map(tuple, data.reshape(-1, data.shape[-1]).tolist())
    assert len(used) == 2 * ((keys.ACTIVE_UNITS + 1) * COUNT + 2 * COUNT + 2 * COUNT)
    assert len(set(used)) == len(used)


def test_implementations_whose_streams_collide_are_refused():
    with jax.default_prng_impl("unsafe_rbg"):
        base = jax.random.key(0)
        step = keys.stream_key(jax.random.clone(base), keys.STEPS, 1)
        permutation = keys.stream_key(jax.random.clone(base), keys.PERMUTATIONS, 0)
        assert jnp.all(jax.random.key_data(step) == jax.random.key_data(permutation))
        for call in (
            lambda: training.base_keys([Config()]),
            lambda: training.base_keys([Config(), Config(seed=1)]),
            lambda: setup.set_up(None, 1, "", False),
        ):
            with pytest.raises(UserError, match="must be one of threefry2x32, rbg .*'unsafe_rbg'"):
                call()


def test_fixed_binarization_is_the_same_for_every_implementation_and_block():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 16)), jnp.uint8)
    drawn = binarization.binarize_once(keys.binarization_key(keys.TEST_SPLIT), x, "fixed")
    with jax.default_prng_impl("rbg"):
        key = keys.binarization_key(keys.TEST_SPLIT)
        np.testing.assert_array_equal(binarization.binarize_once(key, x, "fixed"), drawn)
        rows = jnp.asarray([4, 1])
        np.testing.assert_array_equal(
            binarization.binarize_rows_once(key, x[rows], rows, "fixed"), drawn[rows]
        )


@pytest.mark.parametrize("x64", [False, True])
def test_default_keys_are_those_of_a_seed(x64):
    """Runs of earlier versions can be resumed: their base keys are `key(seed)`."""
    seeds = (0, 5, 2**31 - 2)
    with jax.enable_x64(x64):
        base_keys = training.base_keys([Config(seed=seed) for seed in seeds])
        for key, seed in zip(base_keys, seeds, strict=True):
            # Threefry's key is the seed as two 32-bit words (Salmon et al. 2011).
            assert jax.random.key_data(key).tolist() == [0, seed]
            assert jax.random.key_data(keys.base_key(seed)).tolist() == [0, seed]
