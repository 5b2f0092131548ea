"""Objectives whose two networks follow different targets: the gradient of each network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.losses import bounds
from tests.losses import linear_gaussian
from tests.losses.mean_gradients import float32

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = np.array([0.5, -1.0, 1.5])
LOOSE = linear_gaussian.make_params(seed=2)
LOOSE = LOOSE._replace(log_scale=LOOSE.log_scale + 0.2)
GENERATION, INFERENCE = ("w", "b"), ("a", "c", "log_scale")
SIGMA = linear_gaussian.SIGMA


def distributions(params, x, prior_mean=0.0):
    posterior, _, log_likelihood = linear_gaussian.distributions(params, x)
    return posterior, dist.Normal(prior_mean + jnp.zeros(2), 1.0).to_event(1), log_likelihood


@functools.cache
def value_and_gradient(objective, **options):
    """Value and gradient by one key, float64; the generation network includes the prior's mean."""

    def loss(params, prior_mean):
        arguments = distributions(params, X, prior_mean)
        return objective(jax.random.key(0), *arguments, **options)[0]

    with jax.enable_x64(True):
        value, (by_params, by_prior) = jax.jit(jax.value_and_grad(loss, (0, 1)))(LOOSE, np.zeros(2))
        gradient = jax.tree.map(np.asarray, by_params._asdict() | {"prior": by_prior})
    return float(value), gradient


def assert_same(gradient, expected, names, sign=1):
    """Checks some leaves of a gradient against sign * expected."""
    for name in names:
        assert np.max(np.abs(expected[name])) > 1e-3
        np.testing.assert_allclose(gradient[name], sign * expected[name], rtol=0, atol=1e-12)


close = functools.partial(np.testing.assert_allclose, rtol=1e-13)


def test_piwae_is_iwae_for_p_and_miwae_for_q_draw_for_draw():
    groups = {"num_outer": 3, "num_samples": 2, "estimator": "dreg"}
    value, gradient = value_and_gradient(losses.piwae, **groups)
    iwae_value, iwae = value_and_gradient(losses.iwae, num_samples=6)
    miwae_value, miwae = value_and_gradient(losses.miwae, **groups)
    close(value, iwae_value)
    assert abs(iwae_value - miwae_value) > 1e-3
    assert_same(gradient, iwae, (*GENERATION, "prior"))
    assert_same(gradient, miwae, INFERENCE)


def test_iwae_elbo_is_iwae_for_p_and_the_elbo_for_q_draw_for_draw():
    options = {"num_samples": 6, "estimator": "stl"}
    value, gradient = value_and_gradient(losses.iwae_elbo, **options)
    iwae_value, iwae = value_and_gradient(losses.iwae, num_samples=6)
    _, elbo = value_and_gradient(losses.elbo, **options)
    close(value, iwae_value)
    assert_same(gradient, iwae, (*GENERATION, "prior"))
    assert_same(gradient, elbo, INFERENCE)


def test_cubo_is_descended_by_q_while_p_ascends_iwae():
    options = {"num_samples": 6, "estimator": "dreg"}
    value, gradient = value_and_gradient(losses.cubo, power=2.0, **options)
    bound = functools.partial(bounds.cubo, power=2.0)
    minus_cubo, cubo = value_and_gradient(losses.from_bound, bound=bound, **options)
    _, iwae = value_and_gradient(losses.iwae, num_samples=6)
    close(value, -minus_cubo)
    assert_same(gradient, cubo, INFERENCE, sign=-1)
    assert_same(gradient, iwae, (*GENERATION, "prior"))


# The sleep phase.


def networks(params):
    """The networks that the sleep phase needs, as keyword arguments."""

    def inference(x):
        return linear_gaussian.distributions(params, x)[0]

    def generation(z):
        return dist.Normal(z @ params.w.T + params.b, SIGMA).to_event(1)

    return {"inference": inference, "generation": generation}


def sleep_loss(params):
    """Exact E_{p(x, z)}[-log q(z|x)].

    z - A x - c is normal, with mean -(A b + c) and covariance (I - A W)(I - A W)^T + sigma^2 A A^T.
    """
    difference = np.eye(2) - params.a @ params.w
    mean = params.a @ params.b + params.c
    second = difference @ difference.T + SIGMA**2 * params.a @ params.a.T + np.outer(mean, mean)
    precision = np.exp(-2 * params.log_scale)
    return np.sum(params.log_scale + 0.5 * (np.log(2 * np.pi) + precision * np.diag(second)))


def many(objective, draws=10_000, **options):
    """Losses [draws] and gradients of independent keys, float64."""

    def loss(params, key):
        arguments = distributions(params, float32(X))
        sleeps = objective in (losses.rws, losses.wake_sleep)
        return objective(key, *arguments, **networks(params) if sleeps else {}, **options)[0]

    keys = jax.random.split(jax.random.key(1), draws)
    slopes = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), slopes(float32(LOOSE), keys))


def assert_means(samples, expected, variances=0.0):
    """Checks means to four standard errors; `variances` are those of the expected values."""
    error = np.sqrt((np.var(samples, axis=0, ddof=1) + variances) / len(samples))
    assert np.all(np.abs(np.mean(samples, axis=0) - expected) <= 4 * error + 1e-5)


@pytest.mark.slow
def test_sleep_trains_q_in_rws_and_wake_sleep_and_leaves_p_alone():
    exact = linear_gaussian.finite_difference(sleep_loss, LOOSE)
    elbo = linear_gaussian.elbo_gradient(LOOSE, X)
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(LOOSE, X)
    values, gradient = many(losses.wake_sleep)
    assert_means(-values, reconstruction - kl)
    for field in GENERATION:
        # The sleep loss's samples come from p, but p's parameters get no gradient from them.
        assert_means(-getattr(gradient, field), getattr(elbo, field))
    for field in INFERENCE:
        assert_means(getattr(gradient, field), getattr(exact, field))
        assert np.max(np.abs(getattr(exact, field))) > 0.05
    _, gradient = many(losses.rws, num_samples=5, phase="sleep")
    for field in INFERENCE:
        assert_means(getattr(gradient, field), getattr(exact, field))


def test_rws_of_both_phases_is_their_mean():
    exact = linear_gaussian.finite_difference(sleep_loss, LOOSE)
    values, both = many(losses.rws, num_samples=5, phase="both")
    wake_values, wake = many(losses.iwae, num_samples=5, estimator="wake")
    assert_means(values, np.mean(wake_values), np.var(wake_values))
    for field in LOOSE._fields:
        samples, wake_samples = getattr(both, field), getattr(wake, field)
        mean, variance = np.mean(wake_samples, axis=0), np.var(wake_samples, axis=0)
        if field in INFERENCE:
            assert_means(samples, (mean + getattr(exact, field)) / 2, variance / 4)
            assert np.max(np.abs(mean - getattr(exact, field))) > 0.05
        else:
            assert_means(samples, mean, variance)


def test_the_sleep_phase_needs_both_networks_and_a_known_phase():
    params = float32(LOOSE)

    def raises(match, objective, **options):
        def trace():
            return objective(jax.random.key(0), *distributions(params, float32(X)), **options)[0]

        with pytest.raises(ValueError, match=match):
            jax.eval_shape(trace)

    raises("phase must be one of wake, sleep, both; got 'dream'", losses.rws, phase="dream")
    raises("needs inference .* and generation", losses.rws, phase="sleep")
    raises("needs inference .* and generation", losses.wake_sleep)
    options = networks(params)
    options["inference"] = lambda x: linear_gaussian.distributions(params, x)[0].base_dist
    raises(r"inference must give log q\(z\|x\) of shape \(\)", losses.wake_sleep, **options)
