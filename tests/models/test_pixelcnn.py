"""PixelCNN: dependence of outputs on inputs, masses of tiny grids, logits by rows, output bias."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logit

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Autoregressive
from elbo_lab.models.base import Given
from elbo_lab.models.pixelcnn import PixelCNNOptions, make

pytestmark = pytest.mark.usefixtures("fast_compilation")

# An output sees 2 + 1 pixels to each side and up.
OPTIONS = PixelCNNOptions(
    width=12, layers=2, kernel_size=3, first_kernel_size=5, output_width=24, embedding_dim=3
)
REACH = 3
SPECS = {
    "binary": Spec("image", (5, 6), 2),
    "grey": Spec("image", (4, 5), 256),
    "colour": Spec("image", (4, 3, 3), 4),
    "codes": Spec("token", (4, 5), 7),
    "row": Spec("token", (6,), 5),
}
every_kind = pytest.mark.parametrize("kind", SPECS)


def kinds(fast: str, *slow: str):
    """A test for each kind; those of the slow kinds are marked slow."""
    marked = [pytest.param(kind, marks=pytest.mark.slow) for kind in slow]
    return pytest.mark.parametrize("kind", [fast, *marked])


# All values of these are enumerated.
TINY = {
    "binary": Spec("image", (2, 3), 2),
    "colour": Spec("image", (2, 1, 2), 3),
    "codes": Spec("token", (2, 2), 3),
}
NUM_DRAWS = 10_000


def values(spec: Spec, level) -> np.ndarray:
    """Data of a spec from its levels 0, ..., levels - 1."""
    level = np.asarray(level)
    if spec.kind == "token":
        return level.astype(np.int32)
    return (level / (spec.levels - 1)).astype(np.float32)


def draw(spec: Spec, rows: int, seed: int = 0) -> np.ndarray:
    return values(spec, np.random.default_rng(seed).integers(spec.levels, size=(rows, spec.dim)))


@functools.cache
def random_law(spec: Spec) -> Autoregressive:
    """p(x) by a network whose parameters, biases included, are drawn at random."""
    model, rng = make(OPTIONS, spec), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(draw(spec, 4)))
    params = jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype(np.float32), shapes)
    return model.distribution(params, (), Given())


def logits_of(law, x) -> jax.Array:
    """[rows, D, levels], or [rows, D, 1] for two levels."""
    return jax.jit(law._logits)(x).reshape(*x.shape, -1)


@every_kind
def test_each_output_sees_all_earlier_values_within_reach_and_no_other(kind):
    spec = SPECS[kind]
    law = random_law(spec)
    # Several examples, since a rectifier can hide a change in one. Each has D changed copies: value
    # d of copy d is changed by half of the levels.
    level = np.random.default_rng(0).integers(spec.levels, size=(6, 1, spec.dim))
    changed = (level + max(1, spec.levels // 2) * np.eye(spec.dim, dtype=int)) % spec.levels
    logits = np.asarray(logits_of(law, values(spec, np.concatenate([level, changed], axis=1))))
    # [changed value, output]
    change = np.max(np.abs(logits[:, 1:] - logits[:, :1]), axis=(0, -1))
    height, width, channels = (1, *spec.shape, 1) if kind == "row" else (*spec.shape, 1)[:3]
    row, column, _ = np.unravel_index(np.arange(spec.dim), (height, width, channels))
    is_near = (np.abs(row[:, None] - row) <= REACH) & (np.abs(column[:, None] - column) <= REACH)
    is_seen = np.triu(is_near, k=1)
    np.testing.assert_allclose(change[~is_seen], 0, atol=1e-6)
    assert np.min(change[is_seen]) > 1e-5


@kinds("colour", "binary", "grey", "codes", "row")
def test_a_row_alone_has_the_logits_of_the_whole(kind):
    """The row has arbitrary values at and after the one that the logits are of, as in `sample`."""
    spec = SPECS[kind]
    law = random_law(spec)
    x, other = draw(spec, 2, seed=2)
    length = law.row_length

    def conditional(d):
        known = jnp.where(jnp.arange(spec.dim) < d, x, other)[None]
        row, j = d // length, d % length
        known_row = jax.lax.dynamic_slice_in_dim(known, row * length, length, axis=1)
        return law._row_logits(known, row)(known_row)[0, j]

    by_rows = jax.jit(jax.vmap(conditional))(jnp.arange(spec.dim)).reshape(spec.dim, -1)
    np.testing.assert_allclose(by_rows, logits_of(law, x[None])[0], atol=2e-5)
    by_rows = np.asarray(by_rows, np.float64)
    if spec.levels == 2:
        by_rows = np.concatenate([np.zeros_like(by_rows), by_rows], axis=-1)
    level = np.round(np.asarray(x) * (1 if spec.kind == "token" else spec.levels - 1)).astype(int)
    expected = np.take_along_axis(log_softmax(by_rows, -1), level[:, None], -1).sum()
    np.testing.assert_allclose(jax.jit(law.log_prob)(x), expected, rtol=1e-5)


@kinds("colour", "binary", "codes")
def test_masses_of_all_images_sum_to_one_and_are_those_of_draws(kind):
    spec = TINY[kind]
    law = random_law(spec)
    level = np.array(list(itertools.product(range(spec.levels), repeat=spec.dim)))
    mass = np.exp(np.asarray(jax.jit(law.log_prob)(values(spec, level)), np.float64))
    assert abs(mass.sum() - 1) < 1e-5
    draws = jax.jit(lambda key: law.sample(key, (NUM_DRAWS,)))(jax.random.key(0))
    assert np.all(law.support(np.asarray(draws)))
    drawn = np.asarray(draws) * (1 if spec.kind == "token" else spec.levels - 1)
    index = np.round(drawn).astype(int) @ spec.levels ** np.arange(spec.dim)[::-1]
    frequency = np.bincount(index, minlength=len(level)) / NUM_DRAWS
    # A count of one is not rare where the mass is below 1 / NUM_DRAWS.
    error = 4.5 * np.sqrt(mass * (1 - mass) / NUM_DRAWS) + 2 / NUM_DRAWS
    assert np.all(np.abs(frequency - mass) < error)


@kinds("colour", "binary", "codes")
def test_output_bias_starts_at_the_frequencies_of_the_training_data(kind):
    spec = TINY[kind]
    x = draw(spec, 5, seed=4)
    mean = np.linspace(0.1, 0.5, spec.dim) if kind == "binary" else None
    bias = jax.jit(make(OPTIONS, spec).init)(jax.random.key(0), Batch(x), mean)["logits"]["bias"]
    if kind == "binary":
        np.testing.assert_allclose(bias, [logit(0.3)], rtol=1e-5)
        return
    level = np.round(np.asarray(x) * (1 if spec.kind == "token" else spec.levels - 1)).astype(int)
    channels = spec.shape[2] if len(spec.shape) == 3 else 1
    counts = np.array([np.bincount(level[:, c::channels].ravel()) for c in range(channels)]) + 1
    expected = np.log(counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(bias, expected.ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    "changes, spec, message",
    [
        ({}, Spec("real", (4, 4), None), "kind 'real' with levels=None"),
        ({}, Spec("image", (4, 4), None), "kind 'image' with levels=None"),
        ({}, Spec("image", (2, 4, 4, 3), 256), "these have the shape"),
        ({"kernel_size": 4}, SPECS["binary"], "kernel_size must be odd; got 4"),
        ({"first_kernel_size": 6}, SPECS["binary"], "first_kernel_size must be odd; got 6"),
        ({"width": 2}, SPECS["colour"], "width must be at least the number of channels, 3; got 2"),
    ],
)
def test_unsupported_data_and_options_are_refused(changes, spec, message):
    with pytest.raises(ValueError, match=message):
        make(PixelCNNOptions(**changes), spec)
