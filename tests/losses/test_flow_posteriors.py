"""Estimators for an inverse autoregressive q(z|x): exact gradients, and no search in training."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.distributions import Flow
from elbo_lab.distributions.flows import autoregressive, reverse
from elbo_lab.models.networks import gaussian
from tests.losses import linear_gaussian
from tests.losses.jaxprs import primitives
from tests.losses.mean_gradients import many

pytestmark = pytest.mark.usefixtures("fast_compilation")

L, K = 3, 3
MODEL = linear_gaussian.make_params(data_dim=4, latent_dim=L)
X = np.random.default_rng(8).normal(size=4)


def flow_params(size):
    rng = np.random.default_rng(9)
    shapes = {"m": (size, size), "a": (size, size), "mean": (size,), "log_scale": (size,)}
    return {name: 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}


def conditioner(params, y):
    """Shift and log scale, tanh of linear functions of earlier values."""
    mask = np.tri(y.shape[-1], k=-1)
    return tuple(jnp.tanh(y @ (mask * params[name]).T) + 0.1 for name in "ma")


def flow(params):
    step = autoregressive(functools.partial(conditioner, params))
    base = gaussian(params["mean"], jnp.exp(params["log_scale"]))
    return Flow(base, (step, reverse(), step))


class Unrolled:
    """The same law with an inverse that is differentiated value by value, and no base form."""

    def __init__(self, params):
        self.params, self.base = params, gaussian(params["mean"], jnp.exp(params["log_scale"]))

    def sample(self, key, sample_shape=()):
        y = self.base.sample(key, sample_shape)
        for is_last in (False, True):
            shift, log_scale = conditioner(self.params, y)
            y = jnp.exp(log_scale) * y + shift
            y = y if is_last else y[..., ::-1]
        return y

    def log_prob(self, z):
        log_det = 0.0
        for is_last in (True, False):
            z = z if is_last else z[..., ::-1]
            y = jnp.zeros_like(z)
            for _ in range(z.shape[-1]):
                shift, log_scale = conditioner(self.params, y)
                y = (z - shift) * jnp.exp(-log_scale)
            log_det = log_det + jnp.sum(conditioner(self.params, y)[1], axis=-1)
            z = y
        return self.base.log_prob(z) - log_det


def loss(params, key, estimator, posterior=flow, objective=losses.iwae):
    model, x = linear_gaussian.cast(MODEL, params["mean"].dtype), X.astype(params["mean"].dtype)
    _, prior, log_likelihood = linear_gaussian.distributions(model, x)
    options = {"num_samples": K, "estimator": estimator}
    return objective(key, posterior(params), prior, log_likelihood, **options)[0]


@pytest.mark.parametrize(
    "names",
    [
        ("dreg",),
        pytest.param(("reparam", "stl", "wake_dreg", "score", "wake"), marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_an_unrolled_inverse(names):
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, flow_params(L))

        @jax.jit
        def gradients(params):
            def of(name, posterior):
                return jax.grad(loss)(params, jax.random.key(0), name, posterior)

            return {name: (of(name, flow), of(name, Unrolled)) for name in names}

        for own, expected in gradients(params).values():
            for leaf in own:
                np.testing.assert_allclose(own[leaf], expected[leaf], rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_mean_gradients_of_estimators_agree():
    names = ("reparam", "dreg", "score_loo")
    gradients = many(loss, flow_params(L), 4000, names)
    for name in names[1:]:
        for leaf, reference in gradients["reparam"].items():
            difference = gradients[name][leaf] - reference
            error = np.std(difference, axis=0, ddof=1) / math.sqrt(len(difference))
            is_masked = np.all(difference == 0, axis=0)
            distance = np.abs(np.mean(difference, axis=0))
            assert np.all((distance <= 4.5 * error + 1e-5) | is_masked), (name, leaf)


def operations(size, function):
    """Operations of the function of flow parameters of L = size, sorted."""
    return sorted(primitives(jax.make_jaxpr(function)(flow_params(size)).jaxpr))


@pytest.mark.parametrize("estimator", ["reparam", "dreg", "score"])
def test_training_takes_no_pass_per_dimension_in_turn(estimator):
    """The program has no loop and does not grow with L; matrices alone do."""

    def gradient(params):
        def loss(params):
            prior = gaussian(jnp.zeros(len(params["mean"])), 1.0)
            arguments = flow(params), prior, lambda z: -jnp.sum(z**2, axis=-1)
            options = {"num_samples": 2, "estimator": estimator}
            return losses.elbo(jax.random.key(0), *arguments, **options)[0]

        return jax.grad(loss)(params)

    few, many_dimensions = operations(2, gradient), operations(7, gradient)
    assert few == many_dimensions
    assert not {"while", "scan"} & set(few)
    assert ("triangular_solve" in few) == (estimator != "reparam")


def test_a_density_at_a_given_z_is_a_search():
    def density(params):
        return flow(params).log_prob(params["mean"])

    assert {"while", "scan"} & set(operations(3, density))
