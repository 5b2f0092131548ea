"""The two losses of a GAN and their gradients, against closed forms for linear networks."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from elbo_lab.data import Batch, Spec
from elbo_lab.methods import gan
from elbo_lab.models.base import Model
from elbo_lab.objective_options import GAN_LOSSES

pytestmark = pytest.mark.usefixtures("fast_compilation")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)
Z = RNG.normal(size=(5, 2)).astype(np.float32)
DECODER = RNG.normal(size=(2, 3)).astype(np.float32)  # G(z) = z DECODER
KERNEL, BIAS = RNG.normal(size=(3, 1)).astype(np.float32), np.float32([0.3])  # of D
PENALTY = 4.0


def linear_method(gan_loss: str):
    """A GAN of linear networks whose draws of z are always Z."""
    prior = SimpleNamespace(sample=lambda key, sample_shape: jnp.asarray(Z))
    model = Model(
        lambda key, batch, mean=None: {"encoder": 0, "decoder": jnp.asarray(DECODER), "prior": ()},
        lambda params, given: prior,
        posterior=None,
        likelihood=lambda params, z, given: SimpleNamespace(mean=z @ params["decoder"]),
        critic=nn.Dense(1),
    )
    return gan.make(model, Spec("real", (3,), None), gan_loss)


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_losses_and_gradients_of_linear_networks(gan_loss):
    method = linear_method(gan_loss)
    start, stats = method.init(jax.random.key(0), Batch(X))
    assert set(start) == {"decoder", "prior", "critic"}
    params = start | {"critic": {"kernel": KERNEL, "bias": BIAS}}

    def total(params):
        hparams = {"gradient_penalty": jnp.float32(PENALTY)}
        loss = method.loss(jax.random.key(1), params, stats, Batch(X), hparams)
        return jnp.sum(loss.loss), loss.terms

    (value, terms), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    x, z, weight = np.float64(X), np.float64(Z), np.float64(KERNEL[:, 0])
    fake = z @ np.float64(DECODER)
    real_value, fake_value = x @ weight + BIAS[0], fake @ weight + BIAS[0]
    norm = np.linalg.norm(weight)
    if gan_loss == "nonsaturating":
        discriminator = np.logaddexp(0, -real_value) + np.logaddexp(0, fake_value)
        generator = np.logaddexp(0, -fake_value)
        at_real, at_fake, fooled = -expit(-real_value), expit(fake_value), -expit(-fake_value)
        of_penalty = 0
    else:
        discriminator = fake_value - real_value + PENALTY * (norm - 1) ** 2
        generator = -fake_value
        at_real, at_fake, fooled = -np.ones(5), np.ones(5), -np.ones(5)
        of_penalty = 5 * PENALTY * 2 * (norm - 1) * weight / norm
    # The discriminator's gradient is that of its loss alone, and so is the generator's.
    of_kernel = at_real @ x + at_fake @ fake + of_penalty
    np.testing.assert_allclose(terms["discriminator"], discriminator, rtol=1e-5)
    np.testing.assert_allclose(terms["generator"], generator, rtol=1e-5)
    np.testing.assert_allclose(value, (discriminator + generator).sum(), rtol=1e-5)
    np.testing.assert_allclose(grads["critic"]["kernel"][:, 0], of_kernel, rtol=1e-5)
    np.testing.assert_allclose(grads["critic"]["bias"][0], (at_real + at_fake).sum(), atol=1e-5)
    of_decoder = np.outer(fooled @ z, weight)
    np.testing.assert_allclose(grads["decoder"], of_decoder, rtol=1e-5)
    measured = method.measure(jax.random.key(2), params, stats, Batch(X))
    np.testing.assert_allclose(measured["critic_real"], real_value, rtol=1e-5)
    np.testing.assert_allclose(measured["critic_generated"], fake_value, rtol=1e-5)
    assert method.headline is None


def test_the_penalty_of_a_flat_discriminator_has_a_finite_gradient():
    value, grad = jax.value_and_grad(lambda s: jnp.sum(gan._penalty(s)))(jnp.zeros((2, 3)))
    assert value == 2
    np.testing.assert_array_equal(grad, np.zeros((2, 3)))


def test_a_model_without_a_discriminator_is_refused():
    with pytest.raises(ValueError, match="mlp or conv"):
        gan.make(Model(None, None, None, None), Spec("real", (3,), None))
