"""Keys of a run: all different, for every implementation that is accepted."""

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


@pytest.mark.parametrize("implementation", keys.IMPLEMENTATIONS)
def test_no_two_uses_of_randomness_share_a_key(implementation):
    """Streams, indices, and the keys that a step or an image gets, at two base keys."""
    uses = jnp.arange(keys.ACTIVE_UNITS + 1), jnp.arange(COUNT)

    def of_seed(base: jax.Array, images: jax.Array) -> list[jax.Array]:
        streams = jax.vmap(
            lambda stream: jax.vmap(lambda i: keys.stream_key(base, stream, i))(uses[1])
        )(uses[0])
        steps = jax.vmap(jax.random.split)(streams[keys.STEPS])
        drawn = jax.vmap(lambda i: jax.vmap(lambda key: jax.random.fold_in(key, i))(images))(
            uses[1]
        )
        return [*map(jax.random.key_data, (streams, steps, drawn))]

    used = []
    with jax.default_prng_impl(implementation):
        for seed in (keys.FIXED_BINARIZATION_SEED, 1):
            splits = (keys.TRAIN_SPLIT, keys.TEST_SPLIT)
            images = jnp.stack([keys.binarization_key(split, seed) for split in splits])
            for data in jax.jit(of_seed)(keys.base_key(seed), images):
                used += map(tuple, data.reshape(-1, data.shape[-1]).tolist())
    assert len(used) == 2 * ((keys.ACTIVE_UNITS + 1) * COUNT + 2 * COUNT + 2 * COUNT)
    assert len(set(used)) == len(used)


def test_implementations_whose_streams_collide_are_refused():
    with jax.default_prng_impl("unsafe_rbg"):
        base = jax.random.key(0)
        steps, permutations = (
            keys.stream_key(jax.random.clone(base), *use)
            for use in ((keys.STEPS, 1), (keys.PERMUTATIONS, 0))
        )
        assert jnp.all(jax.random.key_data(steps) == jax.random.key_data(permutations))
        for call in (
            lambda: training.base_keys([Config()]),
            lambda: training.base_keys([Config(), Config(seed=1)]),
            lambda: setup.set_up(None, 1, "", False),
        ):
            with pytest.raises(UserError, match="must be one of threefry2x32, rbg .*'unsafe_rbg'"):
                call()


def test_binarization_drawn_once_is_the_same_for_every_implementation_and_block():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 16)), jnp.uint8)
    drawn = binarization.stored(keys.binarization_key(keys.TEST_SPLIT), x, "fixed")
    with jax.default_prng_impl("rbg"):
        key = keys.binarization_key(keys.TEST_SPLIT)
        np.testing.assert_array_equal(binarization.stored(key, x, "fixed"), drawn)
        rows = jnp.asarray([4, 1])
        np.testing.assert_array_equal(
            binarization.stored_rows(key, x[rows], rows, "fixed"), drawn[rows]
        )


@pytest.mark.parametrize("x64", [False, True])
def test_default_keys_are_those_of_a_seed(x64):
    """Runs of earlier versions go on: fold_in(fold_in(key(seed), stream), index)."""
    with jax.enable_x64(x64):
        several = training.base_keys([Config(seed=seed) for seed in (0, 5, 2**31 - 2)])
        for key, seed in zip(several, (0, 5, 2**31 - 2), strict=True):
            # Threefry's key is the seed in two words (Salmon et al. 2011).
            assert jax.random.key_data(key).tolist() == [0, seed]
            assert jax.random.key_data(keys.base_key(seed)).tolist() == [0, seed]
