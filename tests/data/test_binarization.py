"""Binarization: Bernoulli frequencies, keys, thresholds, types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.data import binarization

pytestmark = pytest.mark.usefixtures("fast_compilation")

VISITS = 4000
LEVELS = np.arange(256, dtype=np.uint8)


def images(kind: str, number: int, dims: int = 16) -> np.ndarray:
    grey = np.random.default_rng(0).integers(0, 256, (number, dims), np.uint8)
    return grey if kind == "uint8" else (grey / 255).astype(np.float32)


def seen(key: jax.Array, stored: jax.Array, mode: str) -> jax.Array:
    """A model's input for stored images at one visit."""
    return binarization.grey_levels(binarization.binarize_visit(key, stored, mode))


def assert_frequencies(binary: np.ndarray, probabilities: np.ndarray) -> None:
    """Checks draws [n, D] against probabilities [D], within four standard errors."""
    error = np.sqrt(probabilities * (1 - probabilities) / len(binary))
    difference = np.abs(binary.mean(axis=0, dtype=np.float64) - probabilities)
    assert np.all(difference <= 4 * error + 1e-9)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_dynamic_frequencies_are_the_grey_levels(kind):
    row = LEVELS if kind == "uint8" else (LEVELS / 255).astype(np.float32)
    x = jnp.asarray(np.tile(row, (VISITS, 1)))
    binary = np.asarray(seen(jax.random.key(1), x, "dynamic"))
    assert binary.dtype == np.float32
    assert set(np.unique(binary)) == {0.0, 1.0}
    assert_frequencies(binary, LEVELS / 255)
    assert np.all(binary[:, 0] == 0)
    assert np.all(binary[:, 255] == 1)


def test_dynamic_draws_are_new_at_every_key_and_the_same_at_the_same_key():
    x = jnp.asarray(images("uint8", 20))
    first, again = (seen(jax.random.key(3), x, "dynamic") for _ in range(2))
    other = seen(jax.random.key(4), x, "dynamic")
    np.testing.assert_array_equal(first, again)
    # Two independent draws of a pixel differ with probability 2 p (1 - p).
    p = np.asarray(x) / 255
    expected, variance = np.sum(2 * p * (1 - p)), np.sum(2 * p * (1 - p) * (1 - 2 * p * (1 - p)))
    assert abs(np.sum(first != other) - expected) < 4 * np.sqrt(variance)


def test_dynamic_images_are_stored_as_they_are():
    x = jnp.asarray(images("uint8", 5))
    np.testing.assert_array_equal(binarization.binarize_once(jax.random.key(0), x, "dynamic"), x)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_fixed_frequencies_and_type(kind):
    row = LEVELS if kind == "uint8" else (LEVELS / 255).astype(np.float32)
    x = jnp.asarray(np.tile(row, (VISITS, 1)))
    stored = binarization.binarize_once(jax.random.key(2), x, "fixed")
    assert stored.dtype == x.dtype
    white = 255 if kind == "uint8" else 1
    assert set(np.unique(stored)) == {0, white}
    assert_frequencies(np.asarray(stored) / white, LEVELS / 255)
    assert np.all(stored[:, 0] == 0)
    assert np.all(stored[:, 255] == white)


@pytest.mark.parametrize("prefix", [1, 7, 499, 501, 1000])
def test_fixed_draws_depend_on_key_and_index_alone(prefix):
    x = jnp.asarray(images("uint8", 1203))
    whole = binarization.binarize_once(jax.random.key(5), x, "fixed")
    part = binarization.binarize_once(jax.random.key(5), x[:prefix], "fixed")
    np.testing.assert_array_equal(part, whole[:prefix])


def test_fixed_draws_differ_between_keys_and_between_indices():
    x = jnp.full((2, 400), 128, jnp.uint8)
    first, second = (
        binarization.binarize_once(jax.random.key(seed), x, "fixed") for seed in (0, 1)
    )
    assert np.any(first != second)
    assert np.any(first[0] != first[1])


def test_fixed_images_are_the_same_at_every_visit():
    stored = binarization.binarize_once(jax.random.key(0), jnp.asarray(images("uint8", 9)), "fixed")
    for seed in (1, 2):
        visit = seen(jax.random.key(seed), stored, "fixed")
        np.testing.assert_array_equal(visit, np.asarray(stored) / 255)


def test_threshold_lies_at_one_half():
    levels = jnp.asarray([[0, 1, 127, 128, 254, 255]], jnp.uint8)
    stored = binarization.binarize_once(jax.random.key(0), levels, "threshold")
    np.testing.assert_array_equal(stored, [[0, 0, 0, 255, 255, 255]])
    floats = jnp.asarray([[0.0, 0.4999, 0.5, 0.5001, 1.0]], jnp.float32)
    stored = binarization.binarize_once(jax.random.key(0), floats, "threshold")
    np.testing.assert_array_equal(stored, [[0, 0, 1, 1, 1]])
    assert stored.dtype == jnp.float32


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_none_leaves_grey_levels_alone(kind):
    x = images(kind, 4)
    stored = binarization.binarize_once(jax.random.key(0), jnp.asarray(x), "none")
    np.testing.assert_array_equal(stored, x)
    visit = seen(jax.random.key(1), stored, "none")
    assert visit.dtype == jnp.float32
    expected = x / np.float32(255) if kind == "uint8" else x
    np.testing.assert_allclose(visit, expected, rtol=1e-7)


@pytest.mark.parametrize("mode", binarization.BINARIZATIONS)
def test_a_batch_is_float32_in_0_to_1_of_any_leading_shape(mode):
    x = jnp.asarray(images("uint8", 6)).reshape(2, 3, 16)
    batch = seen(jax.random.key(0), x, mode)
    assert batch.shape == x.shape
    assert batch.dtype == jnp.float32
    assert float(batch.min()) >= 0
    assert float(batch.max()) <= 1
