"""Fully connected models: sizes, initialization, scales, shapes, gradients, ancestral sampling."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

from elbo_lab import configs, losses, models
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Spec
from elbo_lab.models import networks
from elbo_lab.models.base import NOTHING_GIVEN

pytestmark = pytest.mark.usefixtures("fast_compilation")

D = 6
SMALL = configs.make(latent_dims=(3,), hidden_dims=(5, 4), upper_hidden_dims=(7,))
DEPTHS = {1: (3,), 2: (3, 2), 3: (4, 3, 2)}
every_depth = pytest.mark.parametrize("depth", DEPTHS)


def config(**changes) -> Config:
    return configs.replace(SMALL, **changes)


def images(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, size=(*shape, D)).astype(np.float32)


@functools.cache
def small(depth: int, **changes):
    """A model of `depth` stochastic layers, and params."""
    model = models.make(config(latent_dims=DEPTHS[depth], **changes), Spec("image", (D,), 2))
    return model, jax.jit(model.init)(jax.random.key(0), Batch(images(10)))


def draw(depth: int, *shape):
    rng = np.random.default_rng(1)
    z = tuple(rng.normal(size=(*shape, size)).astype(np.float32) for size in DEPTHS[depth])
    return z if depth > 1 else z[0]


def sizes(network) -> list[tuple[int, int]]:
    """(inputs, outputs) of each linear layer; biases must match."""
    layers = {**network.get("trunk", {}), **{k: v for k, v in network.items() if k != "trunk"}}
    assert all(layer["bias"].shape == layer["kernel"].shape[1:] for layer in layers.values())
    return [layers[name]["kernel"].shape for name in sorted(layers, key=order)]


def order(name: str) -> tuple[bool, str]:
    return not name.startswith("hidden"), name


def init_shapes(latent_dims):
    model = models.make(configs.make(latent_dims=latent_dims), Spec("image", (784,), 2))
    return jax.eval_shape(model.init, jax.random.key(0), Batch(jnp.zeros((1, 784))))


def test_one_layer_of_the_iwae_paper():
    params = init_shapes((50,))
    assert sorted(params) == ["decoder", "encoder", "prior"]
    assert sorted(params["encoder"]) == ["layer_1"] and not params["prior"]
    heads = [(200, 50), (200, 50)]
    assert sizes(params["encoder"]["layer_1"]) == [(784, 200), (200, 200), *heads]
    assert sizes(params["decoder"]) == [(50, 200), (200, 200), (200, 784)]


def test_two_layers_of_the_iwae_paper():
    params = init_shapes((100, 50))
    assert sorted(params["encoder"]) == ["layer_1", "layer_2"]
    assert sorted(params["prior"]) == ["layer_1"]
    first, second = (params["encoder"][name] for name in ("layer_1", "layer_2"))
    assert sizes(first) == [(784, 200), (200, 200), (200, 100), (200, 100)]
    assert sizes(second) == [(100, 100), (100, 100), (100, 50), (100, 50)]
    assert sizes(params["prior"]["layer_1"]) == [(50, 100), (100, 100), (100, 100), (100, 100)]
    assert sizes(params["decoder"]) == [(100, 200), (200, 200), (200, 784)]


def test_three_layers():
    params = init_shapes((64, 32, 16))
    assert [sizes(params["encoder"][f"layer_{i}"])[0][0] for i in (1, 2, 3)] == [784, 64, 32]
    assert [sizes(params["encoder"][f"layer_{i}"])[-1][1] for i in (1, 2, 3)] == [64, 32, 16]
    assert [sizes(params["prior"][f"layer_{i}"])[0][0] for i in (1, 2)] == [32, 16]
    assert [sizes(params["prior"][f"layer_{i}"])[-1][1] for i in (1, 2)] == [64, 32]
    assert sizes(params["decoder"])[0][0] == 64


def test_glorot_uniform_weights_and_zero_biases():
    model = models.make(
        configs.make(latent_dims=(100, 50), output_bias="zero"), Spec("image", (784,), 2)
    )
    params = jax.jit(model.init)(jax.random.key(1), Batch(jnp.full((1, 784), 0.3)))
    kernels = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "bias":
            np.testing.assert_array_equal(leaf, 0)
            continue
        limit = np.sqrt(6 / sum(leaf.shape))
        assert np.max(np.abs(leaf)) <= limit * (1 + 1e-6)
        # A uniform variable's variance is limit^2 / 3, its sample's relative error sqrt(.8 / n).
        np.testing.assert_allclose(
            np.var(leaf) / (limit**2 / 3), 1, atol=4 * np.sqrt(0.8 / leaf.size)
        )
        kernels.append(np.asarray(leaf))
    assert len(kernels) == 4 + 4 + 4 + 3
    # No two layers of one shape share a draw.
    firsts = [kernel.ravel()[0] / np.sqrt(6 / sum(kernel.shape)) for kernel in kernels]
    assert len(np.unique(np.round(firsts, 6))) == len(kernels)


@pytest.mark.parametrize("has_mean", [False, True])
def test_output_bias_is_the_logit_of_the_clipped_training_mean(has_mean):
    """The mean of the first batch, unless that of all training data is given."""
    x, first = images(20), images(3) * 0.25
    x[..., 0], x[..., 1] = 0, 1
    batch, mean = (Batch(first), x.mean(axis=0)) if has_mean else (Batch(x), None)
    model = models.make(SMALL, Spec("image", (D,), 2))
    params = jax.jit(model.init)(jax.random.key(0), batch, mean)
    mean = np.clip(x.mean(axis=0, dtype=np.float64), 0.001, 0.999)
    np.testing.assert_allclose(params["decoder"]["logits"]["bias"], logit(mean), rtol=1e-4)
    assert np.all(np.asarray(params["encoder"]["layer_1"]["mean"]["bias"]) == 0)


# Definitions of the standard deviation, given the linear layer's output.
SCALES = {
    "log_std": np.exp,
    "log_var": lambda s: np.sqrt(np.exp(s)),
    "softplus_var": lambda s: np.sqrt(np.log1p(np.exp(s))),
}
ACTIVATIONS = {"tanh": np.tanh, "relu": lambda h: np.maximum(h, 0)}


def test_every_scale_has_a_definition_here():
    assert sorted(SCALES) == sorted(networks.SCALES)


def dense(layer, h):
    return h @ np.float64(layer["kernel"]) + np.float64(layer["bias"])


@pytest.mark.parametrize("scale", networks.SCALES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_posterior_and_likelihood_equal_numpy(scale, activation):
    model, params = small(1, scale=scale, activation=activation)
    x, act = images(4), ACTIVATIONS[activation]

    def trunk(network, h):
        return act(dense(network["trunk"]["hidden_1"], act(dense(network["trunk"]["hidden_0"], h))))

    encoder, decoder = params["encoder"]["layer_1"], params["decoder"]
    z = draw(1, 4)

    @jax.jit
    def compute(params):
        q = model.posterior(params, x, NOTHING_GIVEN)
        return q.mean, q.variance, model.likelihood(params, z, NOTHING_GIVEN).mean

    mean, variance, probabilities = map(np.asarray, compute(params))
    h = trunk(encoder, np.float64(x))
    np.testing.assert_allclose(mean, dense(encoder["mean"], h), rtol=1e-5, atol=1e-6)
    deviation = np.sqrt(variance)
    np.testing.assert_allclose(deviation, SCALES[scale](dense(encoder["scale"], h)), rtol=1e-5)
    assert np.all(deviation > 0)
    expected = expit(dense(decoder["logits"], trunk(decoder, np.float64(z))))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", networks.SCALES)
def test_scales_are_positive_over_a_wide_range(scale):
    outputs = jnp.linspace(-60, 60, 25)
    sigma = networks.SCALES[scale](outputs)
    assert jnp.all(sigma > 0) and jnp.all(jnp.isfinite(sigma))
    np.testing.assert_allclose(sigma, SCALES[scale](np.float64(outputs)), rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_any_leading_dimensions(depth):
    model, params = small(depth)
    x, z = images(4, 3), draw(depth, 4, 3)

    def densities(x, z):
        log_qz_x = model.posterior(params, x, NOTHING_GIVEN).log_prob(z)
        log_pz = model.prior(params, NOTHING_GIVEN).log_prob(z)
        return log_qz_x, log_pz, model.likelihood(params, z, NOTHING_GIVEN).log_prob(x)

    many = jax.jit(densities)(x, z)  # [K, B, .]
    rows = jax.jit(densities)(x[0], jax.tree.map(lambda leaf: leaf[0], z))  # [B, .]
    one = jax.jit(densities)(x[0, 0], jax.tree.map(lambda leaf: leaf[0, 0], z))  # [.]
    by_vmap = jax.jit(jax.vmap(jax.vmap(densities)))(x, z)
    for m, r, o, v in zip(many, rows, one, by_vmap, strict=True):
        assert m.shape == (4, 3) and r.shape == (3,) and o.shape == ()
        for part, whole in ((r, m[0]), (o, m[0, 0]), (v, m)):
            np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-5)


@functools.cache
def iwae_gradient(depth: int, vectorized: bool):
    (model, params), x = small(depth), images(8)

    def loss(params):
        value, _ = losses.iwae(
            jax.random.key(2),
            model.posterior(params, x, NOTHING_GIVEN),
            model.prior(params, NOTHING_GIVEN),
            lambda z: model.likelihood(params, z, NOTHING_GIVEN).log_prob(x),
            num_samples=3,
            vectorized=vectorized,
        )
        return jnp.mean(value)

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("depth", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_all_parameters_receive_gradients(depth):
    gradient = iwae_gradient(depth, vectorized=False)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert np.mean(np.abs(leaf) > 1e-8) > 0.9, path


def test_vectorized_draws_give_the_same_gradient():
    one_by_one, together = (iwae_gradient(2, vectorized=v) for v in (False, True))
    chex.assert_trees_all_close(one_by_one, together, rtol=1e-3, atol=1e-5)


def test_prior_of_one_layer_is_standard_normal():
    model, params = small(1)
    z = draw(1, 5)
    expected = np.sum(-0.5 * np.float64(z) ** 2 - 0.5 * np.log(2 * np.pi), axis=-1)
    np.testing.assert_allclose(model.prior(params, NOTHING_GIVEN).log_prob(z), expected, rtol=1e-5)


def test_ancestral_sampling_of_two_layers():
    model, params = small(2)
    sample = jax.jit(lambda params, key: model.prior(params, NOTHING_GIVEN).sample(key, (40_000,)))
    z_1, z_2 = (np.float64(z) for z in sample(params, jax.random.key(3)))
    count = len(z_1)
    # z_2 ~ N(0, I): errors of second moments are 1/sqrt(n), of squares sqrt(2/n).
    np.testing.assert_allclose(z_2.mean(axis=0), 0, atol=4 / np.sqrt(count))
    np.testing.assert_allclose(z_2.T @ z_2 / count, np.eye(2), atol=4 * np.sqrt(2 / count))
    # z_1, standardized by the network of z_2 in NumPy, is N(0, I) and independent of z_2.
    network = params["prior"]["layer_1"]
    h = np.tanh(dense(network["trunk"]["hidden_0"], z_2))
    noise = (z_1 - dense(network["mean"], h)) / np.exp(dense(network["scale"], h))
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=4 / np.sqrt(count))
    np.testing.assert_allclose(noise.T @ noise / count, np.eye(3), atol=4 * np.sqrt(2 / count))
    np.testing.assert_allclose(noise.T @ z_2 / count, 0, atol=4 / np.sqrt(count))


@pytest.mark.parametrize("depth", [2, 3])
def test_likelihood_reads_the_layer_next_to_the_data_alone(depth):
    model, params = small(depth)
    z = draw(depth, 4)
    mean_of = jax.jit(lambda z: model.likelihood(params, z, NOTHING_GIVEN).mean)
    mean = np.asarray(mean_of(z))
    for i in range(depth):
        moved = tuple(leaf + (i == j) for j, leaf in enumerate(z))
        same = np.array_equal(mean_of(moved), mean)
        assert same == (i > 0)


def test_images_and_latents_of_other_shapes_are_refused():
    """Images [4, 2 D] are not taken for 8 images, nor an array of two draws for two layers."""
    for depth, z in ((1, draw(2, 2)), (2, draw(1, 2)), (2, (*draw(2, 2), draw(1, 2)))):
        model = models.make(config(latent_dims=DEPTHS[depth]), Spec("image", (D,), 2))
        key = jax.random.key(0)
        params = jax.eval_shape(model.init, key, Batch(images(4)))
        with pytest.raises(AssertionError, match="struct"):
            jax.eval_shape(model.likelihood, params, z)
        with pytest.raises(AssertionError, match="shape"):
            jax.eval_shape(model.init, key, Batch(jnp.zeros((4, 2 * D))))
