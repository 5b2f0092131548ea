"""Texts: gated convolutions by NumPy float64 loops, causality, and laws that sum to one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from elbo_lab.data import Batch, Spec
from elbo_lab.distributions import Autoregressive
from elbo_lab.models import NOTHING_GIVEN, Given, text
from elbo_lab.models.networks.text import GatedConvolution

pytestmark = pytest.mark.usefixtures("fast_compilation")
SPEC = Spec("token", (4,), 3)
SIZES = {"latent_dims": (2,), "embedding_dim": 3, "width": 4, "layers": 2}


def model_of(spec: Spec = SPEC, **options):
    """A small model with weights of both networks that are far from their start."""
    model = text.make(text.TextOptions(**SIZES, **options), spec)
    x = np.random.default_rng(0).integers(0, spec.levels, (5, spec.dim)).astype(np.int32)
    params = model.init(jax.random.key(0), Batch(jnp.asarray(x)))
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype("f"), params)


@pytest.mark.parametrize("causal", [False, True])
def test_a_gated_convolution_is_the_sum_over_its_kernel(causal):
    rng = np.random.default_rng(2)
    h, condition = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 6))
    network = GatedConvolution(3, causal)
    inputs = jnp.asarray(h, jnp.float32), jnp.asarray(condition, jnp.float32)
    params = network.init(jax.random.key(0), *inputs)["params"]
    params["bias"] = jnp.asarray(rng.normal(size=6), jnp.float32)
    kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
    expected = np.array(h)
    for n, t in itertools.product(range(2), range(5)):
        features = bias + condition[n]
        for i in range(3):
            source = t + i - (2 if causal else 1)
            if 0 <= source < 5:
                features = features + h[n, source] @ kernel[i]
        expected[n, t] += features[:3] * expit(features[3:])
    output = network.apply({"params": params}, *inputs)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_the_positionwise_decoder_is_its_formula_and_logits_start_at_the_frequencies():
    """softmax(W tanh(A_t z + b_t) + c), with c the logarithms of the counts plus one."""
    model = text.make(text.TextOptions(**SIZES), SPEC)
    x = np.int32([[0, 0, 1, 0], [2, 0, 0, 0]])
    params = jax.jit(model.init)(jax.random.key(0), Batch(jnp.asarray(x)))
    decoder = jax.tree.map(np.float64, params["decoder"])
    np.testing.assert_allclose(
        decoder["logits"]["bias"], np.log([7 / 11, 2 / 11, 2 / 11]), rtol=1e-5
    )
    z = np.random.default_rng(3).normal(size=(2, 2))
    h = np.tanh(z @ decoder["positions"]["kernel"]).reshape(2, 4, SIZES["width"])
    logits = h @ decoder["logits"]["kernel"] + decoder["logits"]["bias"]
    law = model.likelihood(params, jnp.asarray(z, jnp.float32), NOTHING_GIVEN)
    np.testing.assert_allclose(law.logits, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decoder", text.DECODERS)
@pytest.mark.parametrize("levels", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_masses_given_z_sum_to_one(decoder, levels):
    spec = SPEC._replace(levels=levels)
    model, params = model_of(spec, text_decoder=decoder)
    every = np.array(list(itertools.product(range(levels), repeat=4)), np.int32)
    z = jnp.asarray([[0.5, -1.0], [2.0, 1.0]])
    law = model.likelihood(params, z, NOTHING_GIVEN)
    log_p = np.asarray(jax.jit(law.log_prob)(jnp.asarray(every)[:, None]), np.float64)
    assert log_p.shape == (len(every), 2) and law.batch_shape == (2,)
    np.testing.assert_allclose(logsumexp(log_p, axis=0), 0, atol=1e-5)
    assert np.max(abs(log_p[:, 0] - log_p[:, 1])) > 0.1  # z matters
    # The first conditionals do not depend on the characters after them.
    of_each = np.asarray(jax.jit(law.log_conditionals)(jnp.asarray(every)[:, None]))
    np.testing.assert_allclose(of_each.sum(-1), log_p, rtol=1e-4, atol=1e-5)
    by_start = of_each.reshape(levels**2, levels**2, 2, 4)
    np.testing.assert_allclose(
        by_start[:, :1, :, :2].repeat(levels**2, 1), by_start[..., :2], rtol=1e-5
    )
    assert np.ptp(by_start[..., 2:], axis=1).max() > 0.01


@pytest.mark.slow
def test_the_autoregressive_decoder_sees_what_comes_before_and_a_part_of_it_in_training():
    model, params = model_of(text_decoder="autoregressive", decoder_dropout=0.5)
    z, x = jnp.zeros((400, 2)), jnp.tile(jnp.asarray([[1, 2, 1, 0]], jnp.int32), (400, 1))

    @jax.jit
    def of_each(x, key):
        return model.likelihood(params, z, Given(key=key)).log_conditionals(x)

    whole = model.likelihood(params, z, NOTHING_GIVEN).log_conditionals(x)
    assert np.ptp(np.asarray(whole), axis=0).max() < 1e-5
    dropped = np.asarray(of_each(x, jax.random.key(0)))
    np.testing.assert_allclose(dropped[:, 0], whole[:, 0], rtol=1e-5)  # it has seen none anyway
    is_whole = np.isclose(dropped[:, 1], whole[0, 1], rtol=1e-5)
    assert 0.4 < is_whole.mean() < 0.6
    # All draws of z miss the same characters.
    both = np.asarray(of_each(jnp.stack([x, x]), jax.random.key(1)))
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)


@pytest.mark.parametrize("levels", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_draw_with_a_state_is_the_draw_that_computes_the_network_anew(levels):
    """With characters that the decoder does not see; at and after a position x is arbitrary."""
    spec = SPEC._replace(levels=levels)
    model, params = model_of(spec, text_decoder="autoregressive", decoder_dropout=0.5)
    z = jnp.asarray([[0.5, -1.0], [2.0, 1.0]])

    @jax.jit
    def compute(key):
        law = model.likelihood(params, z, Given(key=jax.random.key(7)))
        x = law.sample(key, (40,))

        def position(state, t):
            known = jnp.where(jnp.arange(spec.dim) < t, x, levels - 1 - x)
            logits, state = law.steps.pixel(state, known, 0, t)
            return state, logits[:, :, 0]

        _, by_steps = jax.lax.scan(position, law.steps.start(x), jnp.arange(spec.dim))
        anew = Autoregressive(law.logits, spec, law.batch_shape)
        anew = anew.sample(jax.random.clone(key), (40,))
        return x, anew, jnp.moveaxis(by_steps, 0, 2), law.logits(x)

    x, anew, by_steps, logits = compute(jax.random.key(1))
    assert x.shape == (40, 2, 4) and x.dtype == jnp.int32
    np.testing.assert_array_equal(x, anew)
    np.testing.assert_allclose(by_steps, logits, rtol=1e-4, atol=1e-5)
    assert np.ptp(np.asarray(logits), axis=0).max() > 0.1  # the characters before matter


def test_settings_and_data_that_do_not_fit():
    def refusal(spec=SPEC, **options):
        with pytest.raises(ValueError) as caught:
            text.make(text.TextOptions(**options), spec)
        return str(caught.value)

    image = "these are of kind image and of the shape (2, 2)."
    assert refusal(Spec("image", (2, 2), 2)).endswith(image)
    assert "of the shape (2, 3)" in refusal(Spec("token", (2, 3), 5))
    assert "one layer of latents" in refusal(latent_dims=(3, 2))
    assert refusal(kernel_size=4) == "kernel_size must be odd; got 4."
    assert refusal(decoder_dropout=0.3).endswith("text_decoder=positionwise sees none.")
