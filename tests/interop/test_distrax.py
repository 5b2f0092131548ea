"""Distrax's distributions as posteriors and priors."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from tests.losses import guests

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fast_compilation")]


def normal(mean, scale, matrix):
    del matrix
    return distrax.Independent(distrax.Normal(mean, scale), 1)


def diagonal(mean, scale, matrix):
    del matrix
    return distrax.MultivariateNormalDiag(mean, scale)


def scalar_affine(shift_and_log_scale):
    shift, log_scale = jnp.split(shift_and_log_scale, 2, axis=-1)
    return distrax.ScalarAffine(shift, log_scale=log_scale)


def coupling(mean, scale, matrix):
    """The conditioner is a closure, which no pytree operation reaches."""
    bijector = distrax.MaskedCoupling(
        mask=jnp.array([True, False]),
        conditioner=lambda z: z @ (matrix * guests.MASK),
        bijector=scalar_affine,
    )
    return distrax.Transformed(normal(mean, scale, None), bijector)


def inverse_chain(mean, scale, matrix):
    coupled = coupling(mean, scale, -matrix).bijector
    affine = distrax.Block(distrax.ScalarAffine(-mean / scale, 1 / scale + 0 * mean), 1)
    base = normal(jnp.zeros(mean.shape), jnp.ones(mean.shape), None)
    return distrax.Transformed(base, distrax.Inverse(distrax.Chain([affine, coupled])))


FLOWS = [inverse_chain, coupling]
PRIOR = normal(jnp.zeros(guests.L), jnp.ones(guests.L), None)


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


@pytest.mark.parametrize(("guest", "estimator"), guests.flow_cases(*FLOWS, fast="stl"))
def test_flows_reach_log_px(guest, estimator):
    guests.check_flow(guest, PRIOR, estimator)


def test_closed_form_kl_between_its_two_forms_of_independent_normals():
    guests.check_closed_forms(normal, diagonal)


def jumping():
    """Posteriors whose draws are floating point but have no derivative by some of the parameters;
    Distrax does not declare this.
    """
    half, logits = jnp.full((4, 2), 0.5), jnp.zeros((4, 3))
    normals = distrax.MultivariateNormalDiag(jnp.zeros((4, 3, 2)), jnp.ones((4, 3, 2)))
    bernoulli = distrax.Bernoulli(probs=half, dtype=jnp.float32)
    mixture = distrax.MixtureSameFamily(distrax.Categorical(logits), normals)
    return {
        "Bernoulli": distrax.Independent(bernoulli, 1),
        "OneHotCategorical": distrax.OneHotCategorical(logits, dtype=jnp.float32),
        "mixture": mixture,
        "moved mixture": distrax.Transformed(mixture, distrax.Block(distrax.Tanh(), 1)),
        "Quantized": distrax.Independent(distrax.Quantized(distrax.Uniform(0 * half, 8.0)), 1),
    }


@pytest.mark.parametrize("name", jumping())
def test_floating_point_draws_that_jump_are_refused_by_path_estimators(name):
    posterior = jumping()[name]

    def log_likelihood(z):
        return -jnp.sum(z**2, axis=-1)

    def call(estimator):
        arguments = posterior, posterior, log_likelihood
        return losses.iwae(jax.random.key(0), *arguments, estimator=estimator)[0]

    draw = jax.eval_shape(lambda: posterior.sample(seed=jax.random.key(0)))
    assert draw.dtype == jnp.float32
    for estimator in losses.estimators.PATH_ESTIMATORS:
        with pytest.raises(ValueError, match="whose draws can be differentiated"):
            jax.eval_shape(lambda: call(estimator))  # noqa: B023
    assert jax.eval_shape(lambda: call("vimco")).shape == (4,)


def test_mixed_libraries_without_a_closed_form_are_refused():
    import numpyro.distributions as dist

    posterior = distrax.Independent(distrax.Gumbel(np.zeros(guests.L), 1.0), 1)
    prior = dist.Gumbel(np.zeros(guests.L), 1.0).to_event(1)
    arguments = posterior, prior, lambda z: -jnp.sum(z**2)

    def elbo(kl):
        return losses.elbo(jax.random.key(0), *arguments, kl=kl)[0]

    with pytest.raises(ValueError, match="No closed-form KL is known between Independent.Gumbel."):
        jax.eval_shape(lambda: elbo("analytic"))
    assert jax.eval_shape(lambda: elbo("mc")).shape == ()
