"""PixelVAE: what a pixel depends on given z, masses, dropped pixels, bounds below log p(x)."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from elbo_lab import configs, losses
from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.methods import importance
from elbo_lab.models import pixelcnn, pixelvae
from elbo_lab.models.base import NOTHING_GIVEN, Given
from elbo_lab.models.networks.latent_pixels import radii

pytestmark = pytest.mark.usefixtures("fast_compilation")

# The window of 5 x 5 reaches 2 pixels up and to either side: 3 x 3 kernels twice, then 1 x 1.
OPTIONS = pixelvae.PixelVAEOptions(
    latent_dims=(1,),
    receptive_field=5,
    layers=3,
    width=12,
    output_width=24,
    latent_features=3,
    channels=(3,),
)
REACH = 2
BINARY = Spec("image", (5, 6), 2)
COLOUR = Spec("image", (4, 4, 3), 4)
TINY = Spec("image", (3, 3), 2)
TINY_COLOUR = Spec("image", (2, 1, 2), 3)
NUM_DRAWS = 10_000


def levels(spec: Spec, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(spec.levels, size=(*shape, spec.dim))


def images(spec: Spec, level) -> np.ndarray:
    return np.float32(np.asarray(level) / (spec.levels - 1))


def all_levels(spec: Spec) -> np.ndarray:
    return np.array(list(itertools.product(range(spec.levels), repeat=spec.dim)))


@functools.cache
def random_model(spec: Spec, **changes):
    """A model, and parameters that are all drawn at random by NumPy."""
    options = dataclasses.replace(OPTIONS, **changes)
    model, rng = pixelvae.make(options, spec), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(images(spec, levels(spec, 4))))
    return model, jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    ("field", "layers", "expected"),
    [
        (3, 1, (1,)),
        (3, 3, (1, 0, 0)),
        (5, 3, (1, 1, 0)),
        (7, 3, (1, 1, 1)),
        (19, 4, (6, 1, 1, 1)),
        (13, 1, (6,)),
    ],
)
def test_the_radii_of_the_layers_add_up_to_that_of_the_window(field, layers, expected):
    assert radii(field, layers) == expected and sum(expected) == (field - 1) // 2


def changes_of_logits(spec: Spec) -> np.ndarray:
    """[changed value, output]: the largest change of logits given z, over several images.

    Value d of copy d is changed by half of the levels.
    """
    model, params = random_model(spec)
    level = levels(spec, 6, 1)
    changed = (level + max(1, spec.levels // 2) * np.eye(spec.dim, dtype=int)) % spec.levels
    x = images(spec, np.concatenate([level, changed], axis=1))
    z = np.random.default_rng(2).normal(size=(6, 1, 1)).astype(np.float32)

    @jax.jit
    def logits_of(x, z):
        law = model.likelihood(params, jnp.broadcast_to(z, (*x.shape[:-1], 1)), NOTHING_GIVEN)
        return law.logits(x).reshape(*x.shape, -1)

    logits = np.asarray(logits_of(x, z))
    return np.max(np.abs(logits[:, 1:] - logits[:, :1]), axis=(0, -1))


@pytest.mark.parametrize(
    "spec", [BINARY, pytest.param(COLOUR, marks=pytest.mark.slow)], ids=["binary", "colour"]
)
def test_given_z_a_value_sees_all_earlier_ones_within_the_window_and_no_other(spec):
    change = changes_of_logits(spec)
    row, column, _ = np.unravel_index(np.arange(spec.dim), (*spec.shape, 1)[:3])
    is_near = (np.abs(row[:, None] - row) <= REACH) & (np.abs(column[:, None] - column) <= REACH)
    is_seen = np.triu(is_near, k=1)
    np.testing.assert_allclose(change[~is_seen], 0, atol=1e-6)
    assert np.min(change[is_seen]) > 1e-5


@pytest.mark.slow
def test_z_reaches_every_pixel():
    model, params = random_model(BINARY)
    x = images(BINARY, levels(BINARY, 1))
    z = jnp.array([[[0.0]], [[1.5]]])  # two draws of one example
    logits = jax.jit(lambda x, z: model.likelihood(params, z, NOTHING_GIVEN).logits(x))
    low, high = logits(jnp.broadcast_to(x, (2, 1, BINARY.dim)), z)
    assert np.min(np.abs(high - low)) > 1e-4


@pytest.mark.parametrize(
    ("spec", "gates"),
    [
        (TINY, "all"),
        pytest.param(TINY, "first", marks=pytest.mark.slow),
        pytest.param(TINY_COLOUR, "all", marks=pytest.mark.slow),
    ],
)
def test_masses_given_z_sum_to_one_and_are_those_of_draws(spec, gates):
    model, params = random_model(spec, latent_gates=gates)
    level, z = all_levels(spec), jnp.array([[-0.5], [1.0]])

    @jax.jit
    def compute(key, x):
        law = model.likelihood(params, z, NOTHING_GIVEN)
        return law.log_prob(x[:, None]), law.sample(key, (NUM_DRAWS,))

    log_mass, draws = compute(jax.random.key(0), images(spec, level))
    mass = np.exp(np.asarray(log_mass, np.float64))  # [all images, 2]
    np.testing.assert_allclose(mass.sum(axis=0), 1, atol=1e-5)
    drawn = np.round(np.asarray(draws) * (spec.levels - 1)).astype(int)
    index = drawn @ spec.levels ** np.arange(spec.dim)[::-1]
    for i in range(2):
        frequency = np.bincount(index[:, i], minlength=len(level)) / NUM_DRAWS
        # A count of one is not rare where the mass is below 1 / NUM_DRAWS.
        error = 4.5 * np.sqrt(mass[:, i] * (1 - mass[:, i]) / NUM_DRAWS) + 2 / NUM_DRAWS
        assert np.all(np.abs(frequency - mass[:, i]) < error)


@pytest.mark.slow
def test_bounds_lie_below_log_px_by_quadrature_and_reach_it():
    """log p(x) = log sum_i w_i p(x|z_i) with Gauss-Hermite's points and weights."""
    model, params = random_model(TINY)
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    x = images(TINY, all_levels(TINY)[::37])  # 14 images
    num_draws = 4000
    measure = importance.make_measure(model, 5, num_draws)

    @jax.jit
    def compute(key, x):
        z = jnp.asarray(points, jnp.float32)[:, None, None]
        law = model.likelihood(params, jnp.broadcast_to(z, (60, len(x), 1)), NOTHING_GIVEN)
        return law.log_prob(x), measure(key, params, (), Batch(x))

    log_px_z, measured = compute(jax.random.key(0), x)
    log_weights = np.log(weights / np.sqrt(2 * np.pi))[:, None]
    log_px = logsumexp(np.asarray(log_px_z, np.float64) + log_weights, axis=0)
    # The relative error of a mean of K weights is sqrt(1 / ESS - 1 / K); of log, the same.
    error = 5 / np.sqrt(np.asarray(measured["effective_sample_size"], np.float64)) + 1e-4
    assert np.all(np.abs(measured["log_likelihood"] - log_px) < error)
    assert np.all(measured["iwae"] < log_px + error)
    assert np.all(measured["elbo"] < measured["iwae"])
    assert np.all(measured["elbo"] < log_px)


def test_dropped_pixels_are_mid_grey_and_only_under_a_key():
    rate, key = 0.3, jax.random.key(3)
    model, params = random_model(COLOUR, decoder_dropout=rate)
    plain = random_model(COLOUR)[0]
    x, z = images(COLOUR, levels(COLOUR, 2, 5)), np.float32(np.linspace(-1, 1, 10))
    z = z.reshape(2, 5, 1)  # two draws of five examples

    @jax.jit
    def logits(z, x, seen):
        law, other = (m.likelihood(params, z, NOTHING_GIVEN) for m in (model, plain))
        under_key = model.likelihood(params, z, Given(key=key))
        return law.logits(x), other.logits(x), under_key.logits(x), other.logits(seen)

    # The dropped pixels are those of a Bernoulli law, the same for both draws and all colours.
    is_dropped = np.asarray(jax.random.bernoulli(key, rate, (5, 16))).repeat(3, axis=-1)
    seen = np.where(is_dropped, np.float32(0.5), x)
    evaluated, without, trained, expected = logits(z, x, seen)
    np.testing.assert_array_equal(evaluated, without)
    np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-5)
    assert np.max(np.abs(trained - evaluated)) > 1e-2


def test_without_skip_connections_later_gates_see_no_z():
    """It is the model of all gates with the kernels of its later features at zero."""
    model, params = random_model(TINY, latent_gates="first")
    complete, expected_params = random_model(TINY)
    layers = params["decoder"]["pixels"]
    assert set(layers["gated_0"]) == {*layers["gated_1"], "features_above", "features_left"}

    def with_zeros(path, expected):
        own = layers
        for entry in path:
            own = own.get(entry.key) if own is not None else None
        return np.zeros_like(expected) if own is None else own

    network = jax.tree.map_with_path(with_zeros, expected_params["decoder"]["pixels"])
    expected_params = params | {"decoder": params["decoder"] | {"pixels": network}}
    x, z = images(TINY, levels(TINY, 4)), jnp.linspace(-1, 1, 4)[:, None]

    @jax.jit
    def logits(params, expected_params):
        law = complete.likelihood(expected_params, z, NOTHING_GIVEN)
        own = [model.likelihood(params, z, NOTHING_GIVEN).logits(x) for z in (z, -z)]
        return law.logits(x), *own

    expected, actual, other = logits(params, expected_params)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert np.min(np.max(np.abs(other - actual), axis=-1)) > 1e-3


@pytest.mark.slow
def test_without_features_it_is_the_pixelcnn_of_its_weights():
    """By kernels of the features at zero; the window is 9 x 9, the first kernel 7 x 7."""
    model, params = random_model(COLOUR, receptive_field=9, layers=2)
    network = dict(params["decoder"]["pixels"])
    for i in range(2):
        layer = dict(network[f"gated_{i}"])
        for name in ("features_above", "features_left"):
            layer[name] = {"kernel": 0 * layer[name]["kernel"]}
        network[f"gated_{i}"] = layer
    params = params | {"decoder": params["decoder"] | {"pixels": network}}
    options = pixelcnn.PixelCNNOptions(width=12, layers=2, output_width=24)
    other = pixelcnn.make(options, COLOUR)
    own = {
        name: {k: v for k, v in layer.items() if not k.startswith("features")}
        for name, layer in network.items()
    }
    x = images(COLOUR, levels(COLOUR, 4))
    expected = jax.jit(other.distribution(own, (), NOTHING_GIVEN).log_prob)(x)
    actual = jax.jit(model.likelihood(params, jnp.ones((4, 1)), NOTHING_GIVEN).log_prob)(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


# One for each way in which objectives call p(x|z).
OBJECTIVES = [
    ("elbo", "score", {}),
    ("iwae", "dreg", {}),
    ("rws", None, {"phase": "both"}),
    ("free_bits", "reparam", {}),
]
# VLAE's prior, with its parameters at random.
FLOW = {"prior": "flow", "prior_depth": 2, "prior_width": (4,), "latent_dims": (2,)}


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "estimator", "settings"), OBJECTIVES)
def test_objectives_take_it_with_dropped_pixels(objective, estimator, settings):
    prior = FLOW if objective == "iwae" else {}
    model, params = random_model(TINY, decoder_dropout=0.2, **prior)
    x = images(TINY, levels(TINY, 4))
    given = Given(key=jax.random.key(5))
    if estimator is not None:
        settings = settings | {"estimator": estimator}

    def loss(params):
        if objective == "rws":
            settings["inference"] = lambda x: model.posterior(params, x, given)
            settings["generation"] = lambda z: model.likelihood(params, z, given)
        value, _ = losses.OBJECTIVES[objective](
            jax.random.key(1),
            model.posterior(params, x, given),
            model.prior(params, given),
            lambda z: model.likelihood(params, z, given).log_prob(x),
            num_samples=3,
            vectorized=True,
            **settings,
        )
        assert value.shape == (4,)
        return jnp.mean(value)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0) or leaf.size == 0, path


@pytest.mark.slow
def test_a_state_starts_at_the_frequencies_of_the_data():
    model = pixelvae.make(OPTIONS, TINY)
    mean = np.linspace(0.1, 0.5, 9, dtype=np.float32)
    x = images(TINY, levels(TINY, 3))
    params = jax.jit(model.init)(jax.random.key(0), Batch(x), mean)
    bias = params["decoder"]["pixels"]["logits"]["bias"]
    np.testing.assert_allclose(bias, [np.log(0.3 / 0.7)], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({"receptive_field": 4}, BINARY, "receptive_field must be an odd number .* got 4"),
        ({"receptive_field": 1}, BINARY, "receptive_field must be an odd number .* got 1"),
        ({"latent_dims": (4, 2)}, BINARY, "latent_dims=4,2: the model pixelvae has one layer"),
        ({"width": 2}, COLOUR, "width must be at least the number of channels, 3; got 2"),
        ({}, Spec("token", (7, 7), 64), "The model pixelvae takes images, not tokens"),
        ({"latent_gates": "first", "layers": 1}, Spec("image", (7, 7), 2), "layers of at least 2"),
        ({}, Spec("image", (7, 7), None), "needs images of levels .* got images of real numbers"),
        ({}, Spec("real", (20,), None), "Convolutions take images"),
    ],
)
def test_unsupported_data_and_options_are_refused(changes, spec, message):
    with pytest.raises(ValueError, match=message):
        pixelvae.make(dataclasses.replace(OPTIONS, **changes), spec)


def test_the_family_is_trained_by_the_elbo_of_one_draw():
    config = configs.make(model="pixelvae")
    assert (config.objective, config.k) == ("elbo", 1)
