"""TensorFlow Probability's distributions, on JAX, as posteriors and priors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorflow_probability.substrates import jax as tfp

from elbo_lab import losses
from tests.losses import guests

tfb, tfd = tfp.bijectors, tfp.distributions
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fast_compilation"),
    # The library's own calls of NumPy functions.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_probability"),
]


def normal(mean, scale, matrix):
    del matrix
    return tfd.Independent(tfd.Normal(mean, scale), 1)


def diagonal(mean, scale, matrix):
    del matrix
    return tfd.MultivariateNormalDiag(mean, scale)


def autoregressive(mean, scale, matrix):
    flow = tfb.MaskedAutoregressiveFlow(lambda z: guests.conditioner(matrix, z))
    return tfd.TransformedDistribution(normal(mean, scale, None), flow)


def coupling(mean, scale, matrix):
    """Real NVP and an affine map; the base distribution has no parameters."""

    def conditioner(z, size, **kwargs):
        shift, log_scale = guests.conditioner(
            matrix, jnp.pad(z, [(0, 0)] * (z.ndim - 1) + [(0, 1)])
        )
        return shift[..., -size:], log_scale[..., -size:]

    nvp = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=conditioner)
    chain = tfb.Chain([tfb.Shift(mean), tfb.ScaleMatvecDiag(scale), nvp])
    return tfd.TransformedDistribution(normal(jnp.zeros(mean.shape), 1.0, None), chain)


FLOWS = [autoregressive, coupling]
PRIOR = diagonal(jnp.zeros(guests.L), jnp.ones(guests.L), None)


@pytest.mark.parametrize("guest", guests.slow_but_last(normal, *FLOWS))
def test_freezing(guest):
    guests.check_freezing(guest)


def test_estimators_follow_the_exact_gradient():
    guests.check_gradients(diagonal, ("dreg", "vimco"))


@pytest.mark.parametrize("guest", [pytest.param(normal, marks=pytest.mark.slow), diagonal])
def test_batch_objectives(guest):
    guests.check_batch_objectives(guest)


@pytest.mark.parametrize("kl", [pytest.param("mc", marks=pytest.mark.slow), "analytic"])
def test_normals_and_the_model_reach_the_greatest_likelihood(kl):
    optimum = guests.greatest_likelihood()
    guests.check_training(normal, optimum, joint=True, kl=kl, num_samples=4)


@pytest.mark.parametrize(("guest", "estimator"), guests.flow_cases(*FLOWS))
def test_flows_reach_log_px(guest, estimator):
    guests.check_flow(guest, PRIOR, estimator)


def test_closed_form_kl_between_its_two_forms_of_independent_normals():
    guests.check_closed_forms(normal, diagonal)


def test_cached_inverses_change_no_gradient():
    """Bijectors cache inputs and outputs. With vectorized=True, log_prob gets the array that was
    sampled, and may read its inverse from the cache.
    """
    state = guests.PARAMS, np.full((guests.L, 2 * guests.L), 0.1, np.float32)

    def loss(state, vectorized):
        arguments = guests.problem_of(autoregressive, PRIOR, state[0], guests.X, state[1])
        return jnp.sum(losses.iwae(jax.random.key(0), *arguments, vectorized=vectorized)[0])

    gradients = jax.jit(lambda state: [jax.grad(loss)(state, flag) for flag in (False, True)])
    chex.assert_trees_all_close(*gradients(state), rtol=1e-4, atol=1e-4)


def test_jumping_draws_are_refused_by_path_estimators():
    logits = jnp.zeros((4, 3))
    normals = tfd.MultivariateNormalDiag(jnp.zeros((4, 3, 2)), jnp.ones((4, 3, 2)))
    bernoulli = tfd.Bernoulli(jnp.zeros((4, 2)), dtype=jnp.float32)
    for posterior in (
        tfd.MixtureSameFamily(tfd.Categorical(logits), normals),
        tfd.Independent(bernoulli, 1),
    ):
        arguments = posterior, posterior, lambda z: -jnp.sum(z**2, axis=-1)
        with pytest.raises(ValueError, match="whose draws can be differentiated"):
            jax.eval_shape(lambda: losses.iwae(jax.random.key(0), *arguments))  # noqa: B023


def test_joint_distributions_of_two_layers():
    """Draws are a list of arrays; log densities against NumPy."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(4, 2)).astype(np.float32)

    def joint(loc):
        scale = jnp.ones(2)
        return tfd.JointDistributionSequential(
            [diagonal(loc, scale, None), lambda z: diagonal(0.5 * z, scale, None)],
            batch_ndims=loc.ndim - 1,
        )

    @jax.jit
    def draw():
        arguments = joint(mean), joint(jnp.zeros(2)), lambda z: -jnp.sum(z[0] * z[1], axis=-1)
        return losses.log_weights(jax.random.key(0), *arguments, num_samples=3)

    draws = draw()
    z_1, z_2 = (np.float64(z) for z in draws.z)
    assert z_1.shape == z_2.shape == (3, 4, 2)
    # The second layer has the same law in q and p, and cancels.
    log_w = np.sum(0.5 * (z_1 - mean) ** 2 - 0.5 * z_1**2 - z_1 * z_2, axis=-1)
    np.testing.assert_allclose(draws.log_w, log_w, rtol=1e-5, atol=1e-5)
