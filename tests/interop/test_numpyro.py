"""NumPyro's distributions as posteriors and priors."""

import guests
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, flows, transforms

from elbo_lab import losses

pytestmark = pytest.mark.usefixtures("fast_compilation")


def normal(mean, scale, matrix):
    del matrix
    return dist.Normal(mean, scale).to_event(1)


def autoregressive(mean, scale, matrix):
    flow = flows.InverseAutoregressiveTransform(lambda z: guests.conditioner(matrix, z))
    return dist.TransformedDistribution(normal(mean, scale, None), [flow])


def affine_chain(mean, scale, matrix):
    """All in the transformations, which the base distribution knows nothing of."""
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


@pytest.mark.slow
def test_estimators_follow_the_exact_gradient():
    guests.check_gradients(normal)


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


class OneDirection(transforms.Transform):
    """Of a flow without an inverse, as planar and block neural autoregressive ones are."""

    domain = codomain = constraints.real_vector

    def __call__(self, z):
        return z + 0.5 * jnp.tanh(z)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.sum(jnp.log1p(0.5 / jnp.cosh(x) ** 2), axis=-1)


@pytest.mark.parametrize("estimator", ["reparam", "stl", "dreg", "score", "wake"])
@pytest.mark.parametrize("flow", ["block", "planar"])
def test_flows_without_an_inverse_are_refused(flow, estimator):
    def network(z):
        return jnp.tanh(z) + z, jnp.log(2 - jnp.tanh(z) ** 2)

    block = flows.BlockNeuralAutoregressiveTransform(network)
    transform = block if flow == "block" else OneDirection()
    posterior = dist.TransformedDistribution(PRIOR, [transform])
    arguments = posterior, PRIOR, lambda z: -jnp.sum(z**2)

    def trace():
        return losses.iwae(jax.random.key(0), *arguments, estimator=estimator)

    with pytest.raises(ValueError, match="TransformedDistribution cannot evaluate log_prob at a"):
        jax.eval_shape(trace)
