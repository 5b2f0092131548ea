"""Convolutional models: sizes, values against NumPy float64, likelihoods, objectives, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

from elbo_lab import losses
from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.models import conv, laws
from elbo_lab.models.base import Given
from elbo_lab.models.laws import LIKELIHOODS
from tests.models.convolutions_float64 import conv2d, conv2d_transpose

pytestmark = pytest.mark.usefixtures("fast_compilation")

GIVEN = Given()
SMALL = {"latent_dims": (3,), "channels": (4, 8)}
# An odd height, an even width, two colours.
SPEC = Spec("image", (5, 6, 2), 256)


def small(spec: Spec = SPEC, **changes):
    return conv.make(conv.ConvOptions(**{**SMALL, **changes}), spec)


def images(spec: Spec, *batch: int) -> np.ndarray:
    levels = np.random.default_rng(0).integers(0, 256, size=(*batch, spec.dim))
    return np.float32(levels / 255)


def latents(*batch: int) -> np.ndarray:
    return np.float32(np.random.default_rng(1).normal(size=(*batch, 3)))


def filled(model, everywhere: bool = False):
    """Parameters drawn by NumPy, which needs no compilation; biases too if `everywhere`, else 0."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(images(SPEC, 2)))

    def leaf(path, shape) -> np.ndarray:
        drawn = 0.3 * rng.normal(size=shape.shape).astype(np.float32)
        return drawn if everywhere or path[-1].key == "kernel" else 0 * drawn

    return jax.tree_util.tree_map_with_path(leaf, shapes)


# --- the model --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "norm"),
    [((28, 28), "none"), ((7, 10, 3), "group"), ((1, 1), "group"), ((105, 103), "none")],
)
def test_images_of_any_size_come_back_at_their_size(shape, norm):
    spec = Spec("image", shape, 2)
    model = small(spec, norm=norm, channels=(4, 6, 9), residual_blocks=1)

    def shapes(key, x):
        params = model.init(jax.random.clone(key), Batch(x))
        z = model.posterior(params, x, GIVEN).sample(key, (4,))
        law = model.likelihood(params, z, GIVEN)
        assert law.batch_shape == (4, 5) and law.event_shape == (spec.dim,)
        return z, model.prior(params, GIVEN).log_prob(z), law.log_prob(x)

    z, log_pz, log_px_z = jax.eval_shape(shapes, jax.random.key(0), jnp.zeros((5, spec.dim)))
    assert z.shape == (4, 5, 3) and log_pz.shape == log_px_z.shape == (4, 5)


def test_default_sizes():
    model = conv.make(conv.ConvOptions(), Spec("image", (28, 28), 2))
    params = jax.eval_shape(model.init, jax.random.key(0), Batch(jnp.zeros((2, 784))))
    kernels = {
        "/".join(key.key for key in path[:-1]): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    }
    assert kernels == {
        "encoder/trunk/down_0": (4, 4, 1, 32),
        "encoder/trunk/down_1": (4, 4, 32, 64),
        "encoder/mean": (7 * 7 * 64, 50),
        "encoder/scale": (7 * 7 * 64, 50),
        "decoder/grid": (50, 7 * 7 * 64),
        "decoder/trunk/up_1": (4, 4, 64, 32),
        "decoder/logits": (4, 4, 32, 1),
    }
    assert params["decoder"]["logits"]["bias"].shape == (784,)


def numpy_networks(params, x, z):
    """Mean and standard deviation of q(z|x), and the logits, by NumPy in float64."""

    def norm_relu(layer, h):
        # Two groups of 4 channels, four of 8: at least two channels in each.
        groups = h.shape[-1] // 2
        parts = h.reshape(*h.shape[:3], groups, 2)
        mean = parts.mean(axis=(1, 2, 4), keepdims=True)
        var = parts.var(axis=(1, 2, 4), keepdims=True)
        h = ((parts - mean) / np.sqrt(var + 1e-6)).reshape(h.shape)
        return np.maximum(h * layer["norm"]["scale"] + layer["norm"]["bias"], 0)

    def layer(p, h, stride=1):
        return conv2d(h, p["kernel"], stride) + p["bias"]

    def residual(p, h):
        h = layer(p["conv"], h)
        block = p["block_0"]
        y = layer(block["conv_0"], norm_relu(block["act_0"], h))
        h = h + layer(block["conv_1"], norm_relu(block["act_1"], y))
        return norm_relu(p["act"], h)

    params = jax.tree.map(np.float64, params)
    encoder, decoder = params["encoder"], params["decoder"]
    trunk, h = encoder["trunk"], np.float64(x).reshape(-1, 5, 6, 2)
    for i in range(2):
        h = norm_relu(trunk[f"act_{i}"], layer(trunk[f"down_{i}"], h, 2))
    h = residual(trunk["residual"], h).reshape(len(h), -1)
    mean, scale = (h @ encoder[n]["kernel"] + encoder[n]["bias"] for n in ("mean", "scale"))
    h = np.float64(z) @ decoder["grid"]["kernel"] + decoder["grid"]["bias"]
    h = norm_relu(decoder["act"], h.reshape(-1, 2, 2, 8))
    up = decoder["trunk"]["up_1"]
    h = residual(decoder["trunk"]["residual"], h)
    h = conv2d_transpose(h, up["kernel"], (3, 3)) + up["bias"]
    h = norm_relu(decoder["trunk"]["act_1"], h)
    logits = conv2d_transpose(h, decoder["logits"]["kernel"], (5, 6)).reshape(len(h), -1)
    return mean, np.exp(scale), logits + decoder["logits"]["bias"]


def test_posterior_and_likelihood_equal_numpy_in_any_batch():
    model = small(norm="group", residual_blocks=1, activation="relu")
    params = filled(model, everywhere=True)
    x, z = images(SPEC, 3, 2), latents(3, 2)

    def values(x, z):
        q = model.posterior(params, x, GIVEN)
        return q.mean, jnp.sqrt(q.variance), model.likelihood(params, z, GIVEN).mean

    rows = jax.tree.map(lambda leaf: leaf.reshape(6, -1), (x, z))
    mean, scale, logits = numpy_networks(params, *rows)
    expected = mean, scale, expit(logits)
    for computed in (jax.jit(values)(x, z), jax.jit(jax.vmap(values))(*rows)):
        for actual, desired in zip(computed, expected, strict=True):
            np.testing.assert_allclose(actual.reshape(6, -1), desired, rtol=2e-4, atol=1e-5)


def test_weights_start_with_the_inverse_fan_in_as_variance_and_the_bias_at_the_mean():
    batch = Batch(images(SPEC, 10))
    params = jax.jit(small().init)(jax.random.key(0), batch)
    mean = np.clip(batch.x.mean(axis=0, dtype=np.float64), 0.001, 0.999)
    np.testing.assert_allclose(params["decoder"]["logits"]["bias"], logit(mean), rtol=1e-4)
    # The number of inputs that each output of a layer is a sum over.
    encoder, decoder = params["encoder"]["trunk"], params["decoder"]
    for layer, inputs in (
        (encoder["down_0"], 16 * 2),
        (encoder["down_1"], 16 * 4),
        (decoder["grid"], 3),
        (decoder["trunk"]["up_1"], 4 * 8),
        (decoder["logits"], 4 * 4),
    ):
        count = layer["kernel"].size
        assert np.var(layer["kernel"]) * inputs == pytest.approx(1, abs=4 * np.sqrt(2 / count))


# The continuous Bernoulli's outputs are those of the fast Bernoulli; the mixture has all others'.
FAST = ("bernoulli", "gaussian", "discretized_logistic", "logistic_mixture")


@pytest.mark.parametrize(
    "likelihood",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in LIKELIHOODS],
)
def test_every_likelihood_starts_at_the_training_mean(likelihood):
    model = small(likelihood=likelihood)
    options = conv.ConvOptions(likelihood=likelihood)
    x, head = images(SPEC, 6), laws.make(options, SPEC).heads[0].name
    x = np.round(x) if likelihood == "bernoulli" else x
    mean = np.linspace(0.1, 0.9, SPEC.dim, dtype=np.float32)
    params = filled(model)
    key = jax.random.key(0)
    bias_of = jax.jit(lambda mean: model.init(key, Batch(x), mean)["decoder"][head]["bias"])
    params["decoder"][head]["bias"] = bias_of(mean)

    @jax.jit
    def compute(params):
        # At z = 0 the trunk's output is zero. A logistic law's tails beyond [0, 1] move its mean.
        law = model.likelihood(params, jnp.zeros(3), GIVEN)
        start = law.location if "logistic" in likelihood else law.mean
        if likelihood == "logistic_mixture":  # [pixels, colours, components]
            start = jnp.mean(start, axis=-1).ravel()

        def total(params):
            return jnp.sum(model.likelihood(params, latents(2, 6), GIVEN).log_prob(x))

        return start, jax.value_and_grad(total)(params)

    start, (value, gradient) = compute(params)
    np.testing.assert_allclose(start, mean, atol=1e-5)
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient["decoder"]):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


def test_the_output_bias_may_start_at_zero():
    init, batch = small(output_bias="zero").init, Batch(images(SPEC, 4))
    bias = jax.jit(lambda key: init(key, batch)["decoder"]["logits"]["bias"])(jax.random.key(0))
    assert bias.shape == (SPEC.dim,) and not np.any(bias)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [("iwae", "dreg"), pytest.param("elbo", "reparam", marks=pytest.mark.slow)],
)
def test_training_lowers_the_loss(name, estimator):
    model = small()
    x = np.round(images(SPEC, 8))

    def loss(params):
        value, _ = losses.OBJECTIVES[name](
            jax.random.key(1),
            model.posterior(params, x, GIVEN),
            model.prior(params, GIVEN),
            lambda z: model.likelihood(params, z, GIVEN).log_prob(x),
            num_samples=3,
            estimator=estimator,
            vectorized=True,
        )
        assert value.shape == (8,)
        return jnp.mean(value)

    @jax.jit
    def train(params):
        def step(params, _):
            value, gradient = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), value

        return jax.lax.scan(step, params, length=30)[1]

    values = train(filled(model))
    assert np.all(np.isfinite(values)) and values[-1] < 0.9 * values[0]


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (Spec("real", (20,), None), {}, r"images \(H, W\) or \(H, W, C\), not the shape \(20,\)"),
        (Spec("image", (2, 0), 2), {}, r"not the shape \(2, 0\)"),
        (Spec("token", (7, 7), 64), {}, "takes images, not tokens"),
        (SPEC, {"latent_dims": (4, 2)}, "latent_dims=4,2: the model conv has one layer"),
        (SPEC, {"channels": ()}, "channels is empty: the model conv has one"),
    ],
)
def test_unsupported_data_and_options_are_refused(spec, changes, message):
    with pytest.raises(ValueError, match=message):
        small(spec, **changes)
