"""Cost of estimators: operations of the compiled gradient step of a real model.

Doubly reparameterized gradients use the draws twice. They are written so that the compiler
evaluates the networks once. This needs all of its optimizations, so these tests do not use
`fast_compilation`.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from elbo_lab import configs, losses, models
from elbo_lab.data.dataset import Batch, Spec

BATCH, DATA_DIM = 20, 784


@functools.cache
def operations(estimator, latent_dims, num_samples, vectorized):
    """Floating-point operations of one gradient of the mean loss, which is compiled and not run."""
    model = models.make(configs.make(latent_dims=latent_dims), Spec("image", (DATA_DIM,), 2))

    def loss(params, key, x):
        def log_likelihood(z):
            return model.likelihood(params, z).log_prob(x)

        arguments = model.posterior(params, x), model.prior(params), log_likelihood
        options = {"num_samples": num_samples, "estimator": estimator, "vectorized": vectorized}
        return jnp.mean(losses.iwae(key, *arguments, **options)[0])

    key = jax.eval_shape(lambda: jax.random.key(0))
    x = jax.ShapeDtypeStruct((BATCH, DATA_DIM), jnp.float32)
    params = jax.eval_shape(model.init, key, Batch(x))
    return jax.jit(jax.grad(loss)).lower(params, key, x).compile().cost_analysis()["flops"]


def assert_no_second_evaluation(estimator, latent_dims, num_samples, vectorized):
    number = operations(estimator, latent_dims, num_samples, vectorized)
    reparam = operations("reparam", latent_dims, num_samples, vectorized)
    # The decoder's matrix products alone: one forward, two backward.
    decoder = 2 * 3 * BATCH * num_samples * (latent_dims[0] * 200 + 200 * 200 + 200 * DATA_DIM)
    assert reparam > decoder
    # A second evaluation of the decoder would add a third of its operations.
    assert number <= 1.02 * reparam


def test_dreg_evaluates_the_networks_once():
    assert_no_second_evaluation("dreg", (50,), 5, True)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["dreg", "wake_dreg"])
@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("num_samples", [5, 50])
@pytest.mark.parametrize("latent_dims", [(50,), (100, 50)])
def test_no_estimator_evaluates_the_networks_twice(latent_dims, num_samples, vectorized, estimator):
    assert_no_second_evaluation(estimator, latent_dims, num_samples, vectorized)
