"""Objectives whose two networks follow different targets: which gradient reaches which network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from elbo_lab.losses import bounds
from tests.losses import linear_gaussian

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = np.array([0.5, -1.0, 1.5])
LOOSE = linear_gaussian.make_params(seed=2)
LOOSE = LOOSE._replace(log_scale=LOOSE.log_scale + 0.2)
GENERATION, INFERENCE = ("w", "b"), ("a", "c", "log_scale")
SIGMA = linear_gaussian.SIGMA


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def distributions(params, x, prior_mean=0.0):
    posterior, _, log_likelihood = linear_gaussian.distributions(params, x)
    return posterior, dist.Normal(prior_mean + jnp.zeros(2), 1.0).to_event(1), log_likelihood


@functools.cache
def value_and_gradient(objective, **options):
    """By one key, float64; a mean of the prior is among the generation network's parameters."""

    def loss(params, prior_mean):
        arguments = distributions(params, X, prior_mean)
        return objective(jax.random.key(0), *arguments, **options)[0]

    with jax.enable_x64(True):
        value, (by_params, by_prior) = jax.jit(jax.value_and_grad(loss, (0, 1)))(LOOSE, np.zeros(2))
        gradient = jax.tree.map(np.asarray, by_params._asdict() | {"prior": by_prior})
    return float(value), gradient


def assert_same(one, other, names, sign=1):
    for name in names:
        assert np.max(np.abs(other[name])) > 1e-3
        np.testing.assert_allclose(one[name], sign * other[name], rtol=0, atol=1e-12)


close = functools.partial(np.testing.assert_allclose, rtol=1e-13)


def test_piwae_is_iwae_for_p_and_miwae_for_q_draw_for_draw():
    groups = {"num_outer": 3, "num_samples": 2, "estimator": "dreg"}
    value, gradient = value_and_gradient(losses.piwae, **groups)
    of_p, iwae = value_and_gradient(losses.iwae, num_samples=6)
    of_q, miwae = value_and_gradient(losses.miwae, **groups)
    close(value, of_p)
    assert abs(of_p - of_q) > 1e-3
    assert_same(gradient, iwae, (*GENERATION, "prior"))
    assert_same(gradient, miwae, INFERENCE)


def test_iwae_elbo_is_iwae_for_p_and_the_elbo_for_q_draw_for_draw():
    options = {"num_samples": 6, "estimator": "stl"}
    value, gradient = value_and_gradient(losses.iwae_elbo, **options)
    of_p, iwae = value_and_gradient(losses.iwae, num_samples=6)
    _, elbo = value_and_gradient(losses.elbo, **options)
    close(value, of_p)
    assert_same(gradient, iwae, (*GENERATION, "prior"))
    assert_same(gradient, elbo, INFERENCE)


def test_cubo_is_descended_by_q_while_p_ascends_iwae():
    options = {"num_samples": 6, "estimator": "dreg"}
    value, gradient = value_and_gradient(losses.cubo, power=2.0, **options)
    bound = functools.partial(bounds.cubo, power=2.0)
    minus, cubo = value_and_gradient(losses.from_bound, bound=bound, **options)
    _, iwae = value_and_gradient(losses.iwae, num_samples=6)
    close(value, -minus)
    assert_same(gradient, cubo, INFERENCE, sign=-1)
    assert_same(gradient, iwae, (*GENERATION, "prior"))


# The sleep phase.


def asleep(params, x):
    def inference(x):
        return linear_gaussian.distributions(params, x)[0]

    def generation(z):
        return dist.Normal(z @ params.w.T + params.b, SIGMA).to_event(1)

    return {"inference": inference, "generation": generation}


def sleep_loss(params):
    """Exact E_{p(x, z)}[-log q(z|x)]: z - A x - c is normal, of mean -(A b + c) and covariance
    (I - A W)(I - A W)^T + sigma^2 A A^T.
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
        given = asleep(params, X) if objective in (losses.rws, losses.wake_sleep) else {}
        return objective(key, *arguments, **given, **options)[0]

    keys = jax.random.split(jax.random.key(1), draws)
    found = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))(float32(LOOSE), keys)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


def assert_means(samples, expected, variances=0.0):
    error = np.sqrt((np.var(samples, axis=0, ddof=1) + variances) / len(samples))
    assert np.all(np.abs(np.mean(samples, axis=0) - expected) <= 4 * error + 1e-5)


@pytest.mark.slow
def test_dreams_teach_q_in_rws_and_wake_sleep_and_p_stays_awake():
    exact = linear_gaussian.finite_difference(sleep_loss, LOOSE)
    elbo = linear_gaussian.elbo_gradient(LOOSE, X)
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(LOOSE, X)
    values, found = many(losses.wake_sleep)
    assert_means(-values, reconstruction - kl)
    for field in GENERATION:
        # p's parameters learn from no dream, though dreams are made by p.
        assert_means(-getattr(found, field), getattr(elbo, field))
    for field in INFERENCE:
        assert_means(getattr(found, field), getattr(exact, field))
        assert np.max(np.abs(getattr(exact, field))) > 0.05
    _, found = many(losses.rws, num_samples=5, phase="sleep")
    for field in INFERENCE:
        assert_means(getattr(found, field), getattr(exact, field))


def test_rws_of_both_phases_is_their_mean():
    exact = linear_gaussian.finite_difference(sleep_loss, LOOSE)
    values, both = many(losses.rws, num_samples=5, phase="both")
    other_values, wake = many(losses.iwae, num_samples=5, estimator="wake")
    assert_means(values, np.mean(other_values), np.var(other_values))
    for field in LOOSE._fields:
        samples, awake = getattr(both, field), getattr(wake, field)
        mean, variance = np.mean(awake, axis=0), np.var(awake, axis=0)
        if field in INFERENCE:
            assert_means(samples, (mean + getattr(exact, field)) / 2, variance / 4)
            assert np.max(np.abs(mean - getattr(exact, field))) > 0.05
        else:
            assert_means(samples, mean, variance)


def test_the_sleep_phase_needs_both_networks_and_a_known_phase():
    def raises(match, objective, given, **options):
        def trace():
            arguments = distributions(float32(LOOSE), float32(X))
            return objective(jax.random.key(0), *arguments, **given, **options)[0]

        with pytest.raises(ValueError, match=match):
            jax.eval_shape(trace)

    raises("phase must be one of wake, sleep, both; got 'dream'", losses.rws, {}, phase="dream")
    raises("needs inference .* and generation", losses.rws, {}, phase="sleep")
    raises("needs inference .* and generation", losses.wake_sleep, {})
    params = float32(LOOSE)
    given = asleep(params, X)
    given["inference"] = lambda x: linear_gaussian.distributions(params, x)[0].base_dist
    raises(r"inference must give log q\(z\|x\) of shape \(\)", losses.wake_sleep, given)
