"""NumPyro's distributions as posteriors and priors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
from numpyro.distributions import constraints, flows, transforms

from elbo_lab import losses
from tests.losses import guests

pytestmark = pytest.mark.usefixtures("fast_compilation")


def normal(mean, scale, matrix):
    del matrix
    return dist.Normal(mean, scale).to_event(1)


def autoregressive(mean, scale, matrix):
    flow = flows.InverseAutoregressiveTransform(lambda z: guests.conditioner(matrix, z))
    return dist.TransformedDistribution(normal(mean, scale, None), [flow])


def affine_chain(mean, scale, matrix):
    """All parameters are in the transformations, none in the base distribution."""
    tril = jnp.eye(guests.L).at[1, 0].set(matrix[0, 1])
    base = dist.Normal(jnp.zeros(mean.shape), 1.0).to_event(1)
    shift = jnp.zeros(guests.L)
    chain = [transforms.LowerCholeskyAffine(shift, tril), transforms.AffineTransform(mean, scale)]
    return dist.TransformedDistribution(base, chain)


FLOWS = [affine_chain, autoregressive]
PRIOR = normal(jnp.zeros(guests.L), jnp.ones(guests.L), None)


@pytest.mark.parametrize("guest", guests.slow_but_last(normal, *FLOWS))
def test_freezing(guest):
    guests.check_freezing(guest)


def full(mean, scale, matrix):
    """As `normal`, by a Cholesky factor."""
    del matrix
    return dist.MultivariateNormal(mean, scale_tril=scale[..., None] * jnp.eye(guests.L))


def low_rank(mean, scale, matrix):
    """As `normal` up to covariances of 1e-8, by a matrix of rank one and a diagonal."""
    del matrix
    factor = jnp.full((*mean.shape, 1), 1e-4)
    return dist.LowRankMultivariateNormal(mean, factor, scale**2)


@pytest.mark.slow
@pytest.mark.parametrize("guest, draws", [(normal, 2_000), (full, 2_000), (low_rank, 16_000)])
def test_estimators_follow_the_exact_gradient(guest, draws):
    guests.check_gradients(guest, draws=draws)


@pytest.mark.slow
def test_batch_objectives():
    guests.check_batch_objectives(normal)


@pytest.mark.slow
@pytest.mark.parametrize("kl", ["mc", "analytic"])
def test_normals_and_the_model_reach_the_greatest_likelihood(kl):
    optimum = guests.greatest_likelihood()
    guests.check_training(normal, optimum, joint=True, kl=kl, num_samples=4)


@pytest.mark.slow
@pytest.mark.parametrize(("guest", "estimator"), guests.flow_cases(*FLOWS))
def test_flows_reach_log_px(guest, estimator):
    guests.check_flow(guest, PRIOR, estimator)


@pytest.mark.parametrize("estimator", ["dreg", "score"])
def test_a_support_whose_end_is_scaled_is_refused(estimator):
    """s y lies in (s, inf) for y in (1, inf), and in (0, inf) for y in (0, inf)."""

    def loss(scale, low):
        base = dist.TruncatedNormal(0.0, 1.0, low=low)
        posterior = dist.TransformedDistribution(base, transforms.AffineTransform(0.0, scale))
        arguments = posterior, dist.Normal(0.0, 3.0), lambda z: -(z**2)
        return losses.iwae(jax.random.key(0), *arguments, num_samples=3, estimator=estimator)[0]

    with pytest.raises(ValueError, match=f'"{estimator}" needs .*support .*use reparam'):
        jax.eval_shape(jax.grad(lambda scale: loss(scale, 1.0)), 2.0)
    assert jax.eval_shape(jax.grad(lambda scale: loss(scale, 0.0)), 2.0).shape == ()


class OneDirection(transforms.Transform):
    """A flow without an inverse, as planar and block neural autoregressive ones are."""

    domain = codomain = constraints.real_vector

    def __init__(self, steepness):
        self.steepness = steepness

    def __call__(self, z):
        return z + self.steepness * jnp.tanh(z)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.sum(jnp.log1p(self.steepness / jnp.cosh(x) ** 2), axis=-1)

    def tree_flatten(self):
        return (self.steepness,), (("steepness",), {})


def one_direction_loss(steepness, estimator, flow="planar"):
    def network(z):
        return z + steepness * jnp.tanh(z), jnp.log1p(steepness / jnp.cosh(z) ** 2)

    block = flows.BlockNeuralAutoregressiveTransform(network)
    transform = block if flow == "block" else OneDirection(steepness)
    posterior = dist.TransformedDistribution(PRIOR, [transform])
    arguments = posterior, PRIOR, lambda z: -jnp.sum(z**2)
    return losses.iwae(jax.random.key(0), *arguments, num_samples=3, estimator=estimator)[0]


@pytest.mark.parametrize("estimator", ["stl", "dreg", "score", "wake"])
@pytest.mark.parametrize("flow", ["block", "planar"])
def test_flows_without_an_inverse_are_refused(flow, estimator):
    slope = functools.partial(one_direction_loss, estimator=estimator, flow=flow)
    with pytest.raises(ValueError, match="TransformedDistribution cannot evaluate log_prob at a"):
        jax.eval_shape(jax.grad(slope), 0.5)


def test_reparam_needs_no_inverse():
    """Value and derivative, of the same draws in float64, by hand."""
    y = np.float64(PRIOR.sample(jax.random.key(0), (3,)))

    def exact(steepness):
        z = y + steepness * np.tanh(y)
        log_q = np.sum(-(y**2) / 2 - np.log1p(steepness / np.cosh(y) ** 2), axis=-1)
        log_w = -np.sum(z**2, axis=-1) - np.sum(z**2, axis=-1) / 2 - log_q
        return -(scipy.special.logsumexp(log_w) - np.log(3))

    slope = functools.partial(one_direction_loss, estimator="reparam")
    value, derivative = jax.jit(jax.value_and_grad(slope))(0.5)
    np.testing.assert_allclose(value, exact(0.5), rtol=1e-5)
    expected = (exact(0.5 + 1e-5) - exact(0.5 - 1e-5)) / 2e-5
    np.testing.assert_allclose(derivative, expected, rtol=1e-4)
