"""Conditions under which estimators are unbiased: with them, without them, and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import softmax

from elbo_lab import losses
from elbo_lab.losses import bounds
from tests.losses import linear_gaussian
from tests.losses.mean_gradients import (
    GivenNoise,
    float32,
    many,
    objective_loss,
    off_exact,
    one_latent,
    standard_errors_off,
)

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = np.array([0.5, -1.0, 1.5])
PARAMS = linear_gaussian.make_params(seed=2)

# Draws where v is zero, and the weights of wake_dreg are not.


@pytest.mark.slow
def test_wake_and_wake_dreg_have_one_mean_where_v_vanishes():
    """SUMO of 8 draws of a nonlinear model; the wake update of q does not depend on the bound."""
    draws, number, scale = 20_000, 8, 0.74

    def loss(mean, key, estimator):
        def log_likelihood(z):
            return dist.Normal(0.7 * z + 0.3 * jnp.sin(z), 0.9).log_prob(0.9)

        arguments = dist.Normal(mean, scale), dist.Normal(-0.2, 1.16), log_likelihood
        return losses.sumo(key, *arguments, num_samples=number, estimator=estimator)[0]

    def gradients(key):
        wake_key, dreg_key = jax.random.split(key)
        return jax.grad(loss)(0.4, wake_key, "wake"), jax.grad(loss)(0.4, dreg_key, "wake_dreg")

    by_estimator = jax.jit(jax.vmap(gradients))(jax.random.split(jax.random.key(0), draws))
    # The same in NumPy: -E sum_k w_k d log q(z_k) / d mean, with an error of about 5e-4.
    z = 0.4 + scale * np.random.default_rng(0).normal(size=(number, 400_000))
    log_px_z = -0.5 * ((0.9 - 0.7 * z - 0.3 * np.sin(z)) / 0.9) ** 2
    log_w = log_px_z - 0.5 * ((z + 0.2) / 1.16) ** 2 + 0.5 * ((z - 0.4) / scale) ** 2
    exact = -np.sum(softmax(log_w, axis=0) * (z - 0.4) / scale**2, axis=0)
    for samples in by_estimator:
        samples = np.asarray(samples, np.float64)
        error = np.hypot(np.std(samples) / np.sqrt(draws), np.std(exact) / np.sqrt(len(exact)))
        assert abs(np.mean(samples) - np.mean(exact)) < 4 * error


def test_weights_that_underflow_do_not_lose_the_inference_networks_gradient():
    """Renyi's bound of order 5, two draws whose log-weights are 30 nats apart.

    The softmax of -4 log w is zero in float32 for the greater, whose normalized weight is one.
    """
    noise = np.array([[0.0], [1.0]])

    def loss(scale, estimator):
        posterior = GivenNoise(jnp.zeros(1), scale * jnp.ones(1), noise)
        prior = dist.Normal(jnp.zeros(1), 1.0).to_event(1)
        arguments = posterior, prior, lambda z: 30.0 * z[..., 0] ** 2
        options = {"alpha": 5.0, "num_samples": 2, "estimator": estimator}
        return losses.renyi(jax.random.key(0), *arguments, **options)[0]

    # log w = 30 z^2 - z^2 / 2 + z^2 / (2 s^2) + log s, z = (0, s); w = (0, 1), w - w^2 = 1e-13.
    # The first draw's path is zero since its noise is zero. The second's weight is w - w^2.
    w = softmax([0.0, 30.0 - 0.5 + 0.5])
    exact = -(w[1] - w[1] ** 2) * (60.0 - 1.0 + 1.0)
    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(functools.partial(loss, estimator="wake_dreg")))(1.0)
    np.testing.assert_allclose(slope, exact, rtol=1e-6)


# Bias and refusals.


def test_stl_of_a_nonlinear_bound_is_biased_even_for_one_draw():
    """tanh(log w / 3) of one draw: reparam and dreg have the exact mean, stl has not."""
    params, x = one_latent()

    def tanh_bound(log_w, module=np):
        return module.mean(module.tanh(log_w / 3), axis=0)

    bound = functools.partial(tanh_bound, module=jnp)
    objective = functools.partial(losses.from_bound, bound=bound)

    def expectation(params):
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        mean, scale = params.a @ x + params.c, np.exp(params.log_scale)
        log_w = linear_gaussian.log_weight(params, x, mean + scale * nodes[:, None])
        return np.sum(weights * tanh_bound(log_w[None])) / np.sum(weights)

    exact = linear_gaussian.finite_difference(expectation, params)
    loss = objective_loss(objective, {"num_samples": 1}, x)
    gradients = many(loss, params, 20_000, ("reparam", "dreg", "stl"))
    assert off_exact(gradients["reparam"], exact) < 4
    assert off_exact(gradients["dreg"], exact) < 4
    assert off_exact(gradients["stl"], exact) > 6


@pytest.mark.parametrize("alpha", [-np.inf, np.inf, np.float32(np.inf), jnp.float32(-np.inf)])
def test_bounds_whose_derivative_jumps_refuse_dreg(alpha):
    loss = objective_loss(losses.renyi, {"num_samples": 3, "alpha": alpha}, X)
    slope = jax.grad(functools.partial(loss, estimator="dreg"))
    with pytest.raises(ValueError, match="(greatest|least) log-weight jumps.*dreg"):
        jax.eval_shape(slope, float32(PARAMS), jax.random.key(0))


def test_dreg_refuses_a_users_bound_marked_once_differentiable():
    def median(log_w):
        return bounds.once_differentiable(jnp.median(log_w, axis=0), "The median has kinks.")

    loss = objective_loss(losses.from_bound, {"num_samples": 3, "bound": median}, X)
    for estimator in ("reparam", "vimco", "wake_dreg"):
        slope = jax.grad(functools.partial(loss, estimator=estimator))
        assert jax.eval_shape(slope, float32(PARAMS), jax.random.key(0)).c.shape == (2,)
    with pytest.raises(ValueError, match="The median has kinks"):
        jax.eval_shape(
            jax.grad(functools.partial(loss, estimator="dreg")), float32(PARAMS), jax.random.key(0)
        )


def test_hessians_of_reparam_are_unbiased():
    """d^2/dc^2 of the expected IWAE bound of two draws, against quadrature."""
    params, x = one_latent()
    draws = 20_000

    def loss(c, key):
        arguments = linear_gaussian.distributions(float32(params)._replace(c=c), float32(x))
        return losses.iwae(key, *arguments, num_samples=2)[0]

    keys = jax.random.split(jax.random.key(5), draws)
    samples = jax.jit(jax.vmap(jax.hessian(loss), (None, 0)))(float32(params.c), keys)

    def expectation(c):
        return linear_gaussian.iwae_2(params._replace(c=params.c + c), x=x, nodes=80)

    exact = -(expectation(1e-3) - 2 * expectation(0.0) + expectation(-1e-3)) / 1e-6
    assert standard_errors_off(np.float64(samples)[:, 0, 0], exact) < 4
