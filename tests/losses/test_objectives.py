"""Objectives against the exact answers of a linear-Gaussian model, in NumPy float64.

Keys are fixed. Tolerances are four standard errors of the mean over independent draws, which a
right value exceeds in one comparison of 16,000.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from tests.losses import linear_gaussian
from tests.losses.mean_gradients import float32

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = np.array([0.5, -1.0, 1.5])
PARAMS = linear_gaussian.make_params()
# q is further from the posterior, Var_q[w / p(x)] = 1, and the bounds differ visibly.
LOOSE = linear_gaussian.make_params(seed=2)
LOOSE = LOOSE._replace(log_scale=LOOSE.log_scale + 0.2)


def loss_and_aux(objective, params, x, key, **options):
    return objective(key, *linear_gaussian.distributions(params, x), **options)


def many_losses(objective, params, x=X, draws: int = 10_000, **options):
    """Losses of independent keys, [draws], float64."""
    loss = functools.partial(loss_and_aux, objective, float32(params), float32(x), **options)
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: loss(key)[0]))(keys), np.float64)


def many_gradients(objective, params, x=X, draws: int = 10_000, **options):
    """Losses [draws] and gradients [draws, ...] of independent keys, float64."""

    def loss(params, key):
        return loss_and_aux(objective, params, float32(x), key, **options)[0]

    keys = jax.random.split(jax.random.key(1), draws)
    both = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))(float32(params), keys)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), both)


def assert_mean_equals(samples, exact):
    """Checks means over the first axis, to four standard errors and float32's rounding."""
    error = np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(np.abs(np.mean(samples, axis=0) - exact) <= 4 * error + 1e-5)


def assert_gradient_mean_equals(gradients, exact):
    for name, samples, expected in zip(exact._fields, gradients, exact, strict=True):
        assert samples.shape[1:] == expected.shape, name
        assert_mean_equals(samples, expected)


# The reference itself.


def test_reference_gap_is_the_kl_to_the_posterior():
    for params in (PARAMS, LOOSE):
        mean, cov = linear_gaussian.exact_posterior(params, X)
        q_mean, q_var = params.a @ X + params.c, np.exp(2 * params.log_scale)
        precision, distance = np.linalg.inv(cov), mean - q_mean
        gap = 0.5 * (np.trace(precision * q_var) + distance @ precision @ distance - len(mean))
        gap += 0.5 * (np.linalg.slogdet(cov)[1] - np.sum(np.log(q_var)))
        reconstruction, kl = linear_gaussian.reconstruction_and_kl(params, X)
        np.testing.assert_allclose(
            linear_gaussian.log_px(params, X) - (reconstruction - kl), gap, rtol=1e-10
        )


def test_reference_gradient_is_the_derivative_of_its_value():
    def value(params):
        reconstruction, kl = linear_gaussian.reconstruction_and_kl(params, X)
        return reconstruction - 3 * kl

    numerical = linear_gaussian.finite_difference(value, PARAMS)
    closed_form = linear_gaussian.elbo_gradient(PARAMS, X, beta=3)
    for slope, expected in zip(numerical, closed_form, strict=True):
        np.testing.assert_allclose(slope, expected, atol=1e-8)


def test_reference_moments_agree_with_quadrature():
    params, x = linear_gaussian.one_latent(), X[:2]
    points, weights = np.polynomial.hermite_e.hermegauss(150)
    z = params.a @ x + params.c + np.exp(params.log_scale) * points[:, None]
    ratio = np.exp(linear_gaussian.log_weight(params, x, z) - linear_gaussian.log_px(params, x))
    for order in (1, 2, 3):
        moment = weights @ ratio**order / np.sum(weights)
        np.testing.assert_allclose(
            linear_gaussian.relative_moment(params, x, order), moment, rtol=1e-9
        )


# ELBO and beta-VAE: value and gradient in closed form.


@pytest.mark.parametrize("kl", ["mc", "analytic"])
@pytest.mark.parametrize("objective, beta", [("elbo", 1.0), ("beta_vae", 3.0)])
def test_elbo_and_beta_vae_value_and_gradient(objective, beta, kl):
    options = {"beta": beta} if objective == "beta_vae" else {}
    values, gradients = many_gradients(losses.OBJECTIVES[objective], PARAMS, kl=kl, **options)
    reconstruction, divergence = linear_gaussian.reconstruction_and_kl(PARAMS, X)
    assert_mean_equals(-values, reconstruction - beta * divergence)
    exact = linear_gaussian.elbo_gradient(PARAMS, X, beta)
    assert_gradient_mean_equals(jax.tree.map(np.negative, gradients), exact)


def test_more_draws_keep_the_elbo_and_lower_its_variance():
    single = many_losses(losses.elbo, LOOSE, num_samples=1)
    means = many_losses(losses.elbo, LOOSE, num_samples=10)
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(LOOSE, X)
    assert_mean_equals(-means, reconstruction - kl)
    # A ratio of sample variances of 10,000 draws: tails heavier than a normal's need 10%.
    np.testing.assert_allclose(np.var(single) / np.var(means), 10, rtol=0.1)


@pytest.mark.parametrize("kl", ["mc", "analytic"])
def test_beta_one_is_the_elbo_draw_for_draw(kl):
    options = {"draws": 50, "num_samples": 3, "kl": kl}
    np.testing.assert_array_equal(
        many_losses(losses.beta_vae, PARAMS, beta=1.0, **options),
        many_losses(losses.elbo, PARAMS, **options),
    )


def test_beta_weighs_the_kl_and_may_be_traced():
    params, x = float32(PARAMS), float32(X)

    def value(beta):
        return loss_and_aux(losses.beta_vae, params, x, jax.random.key(3), beta=beta)

    betas = jnp.array([0.0, 1.0, 4.0])
    loss, aux = jax.jit(jax.vmap(value))(betas)
    _, kl = linear_gaussian.reconstruction_and_kl(PARAMS, X)
    np.testing.assert_allclose(aux.kl, kl, rtol=1e-5)
    np.testing.assert_allclose(loss, betas * kl - np.asarray(aux.log_px_z)[:, 0], rtol=1e-5)
    slope = jax.jit(jax.grad(lambda beta: value(beta)[0]))(2.0)
    np.testing.assert_allclose(slope, kl, rtol=1e-5)


# IWAE and MIWAE.


@pytest.fixture(scope="module")
def bounds():
    """Estimates of the IWAE bound by K."""
    draws = {1: 10_000, 5: 10_000, 50: 4_000, 500: 4_000}
    return {k: -many_losses(losses.iwae, LOOSE, draws=n, num_samples=k) for k, n in draws.items()}


@pytest.mark.slow
def test_iwae_rises_with_k_towards_log_px(bounds):
    log_px = linear_gaussian.log_px(LOOSE, X)
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(LOOSE, X)
    assert_mean_equals(bounds[1], reconstruction - kl)
    errors = {k: np.std(b) / np.sqrt(len(b)) for k, b in bounds.items()}
    means = {k: np.mean(b) for k, b in bounds.items()}
    for small, large in ((1, 5), (5, 50)):
        assert means[large] - means[small] > 4 * np.hypot(errors[small], errors[large])
    assert means[500] > means[50]
    assert all(means[k] < log_px + 4 * errors[k] for k in bounds)


@pytest.mark.slow
@pytest.mark.parametrize("k", [50, 500])
def test_iwae_gap_follows_its_expansion(k, bounds):
    # mean weight / p(x) = 1 + d with E d = 0, E d^2 = m2 / K, E d^3 = m3 / K^2 and
    # E d^4 = 3 m2^2 / K^2 + O(K^-3), and log(1 + d) = d - d^2 / 2 + d^3 / 3 - d^4 / 4 + ...
    second, third = (linear_gaussian.relative_moment(LOOSE, X, n) for n in (2, 3))
    m2, m3 = second - 1, third - 3 * second + 2
    gap = m2 / (2 * k) - m3 / (3 * k**2) + 3 * m2**2 / (4 * k**2)
    assert gap > 5e-4
    error = np.std(bounds[k]) / np.sqrt(len(bounds[k]))
    remainder = 10 / k**3  # Moments of w / p(x) here are of order one to ten.
    exact = linear_gaussian.log_px(LOOSE, X) - gap
    assert abs(np.mean(bounds[k]) - exact) <= 4 * error + remainder + 1e-5


@pytest.mark.parametrize("name, options", [("iwae", {}), ("miwae", {"num_outer": 3})])
def test_iwae_2_value_and_gradient_equal_quadrature(name, options):
    params, x = linear_gaussian.one_latent(), X[:2]
    value = functools.partial(linear_gaussian.iwae_2, x=x, nodes=80)
    np.testing.assert_allclose(value(params), linear_gaussian.iwae_2(params, x, 120), rtol=1e-12)
    values, gradients = many_gradients(
        losses.OBJECTIVES[name], params, x, draws=40_000, num_samples=2, **options
    )
    assert_mean_equals(-values, value(params))
    exact = linear_gaussian.finite_difference(value, params)
    assert_gradient_mean_equals(jax.tree.map(np.negative, gradients), exact)
    # The comparison can distinguish IWAE-2 from the ELBO.
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(params, x)
    assert value(params) - (reconstruction - kl) > 0.02


@pytest.mark.parametrize(
    "name, options",
    [
        ("elbo", {"num_samples": 1}),
        ("elbo", {"num_samples": 7}),
        ("iwae", {"num_samples": 5}),
        ("miwae", {"num_outer": 3, "num_samples": 4}),
    ],
)
def test_every_draw_is_exact_at_the_exact_posterior(name, options):
    mean, cov = float32(linear_gaussian.exact_posterior(PARAMS, X))
    _, prior, log_likelihood = linear_gaussian.distributions(float32(PARAMS), float32(X))

    def loss(key):
        posterior = dist.MultivariateNormal(mean, cov)
        return losses.OBJECTIVES[name](key, posterior, prior, log_likelihood, **options)[0]

    values = jax.jit(jax.vmap(loss))(jax.random.split(jax.random.key(4), 1_000))
    # The variance is zero up to rounding: sums of about ten terms of up to 10 nats in float32.
    np.testing.assert_allclose(-values, linear_gaussian.log_px(PARAMS, X), atol=2e-5)


def test_an_analytic_kl_has_variance_at_the_exact_posterior():
    params = linear_gaussian.with_exact_posterior(PARAMS)
    log_px = linear_gaussian.log_px(params, X)
    monte_carlo = many_losses(losses.elbo, params, draws=2_000, kl="mc")
    np.testing.assert_allclose(-monte_carlo, log_px, atol=2e-5)
    analytic = many_losses(losses.elbo, params, draws=2_000, kl="analytic")
    assert_mean_equals(-analytic, log_px)
    assert np.std(analytic) > 0.1


def test_miwae_of_one_group_is_iwae_and_of_one_draw_the_elbo():
    arguments = linear_gaussian.distributions(float32(PARAMS), float32(X))

    @jax.jit
    @jax.vmap
    def compute(seed):
        def loss(objective, **options):
            return objective(jax.random.key(seed), *arguments, **options)[0]

        one_group = loss(losses.miwae, num_outer=1, num_samples=6)
        one_draw = loss(losses.miwae, num_outer=6, num_samples=1)
        iwae, elbo = loss(losses.iwae, num_samples=6), loss(losses.elbo, num_samples=6)
        single = loss(losses.iwae, num_samples=1), loss(losses.elbo, num_samples=1)
        return (one_group, iwae), (one_draw, elbo), single

    for values, expected in compute(jnp.arange(50)):
        np.testing.assert_allclose(values, expected, rtol=1e-6)


# The gradient of one draw, term by term.


def test_defects_4_and_5_the_generation_networks_weights_are_w():
    params, x = float32(LOOSE), float32(X)

    def loss(b):
        arguments = linear_gaussian.distributions(params._replace(b=b), x)
        draws = losses.log_weights(jax.random.key(5), *arguments, num_samples=4)
        return losses.iwae(jax.random.key(5), *arguments, num_samples=4)[0], draws.z

    slope, z = jax.jit(jax.grad(loss, has_aux=True))(params.b)
    z = np.asarray(z, np.float64)  # [K, L]
    log_w = linear_gaussian.log_weight(LOOSE, X, z)
    w = np.exp(log_w - np.max(log_w))
    w /= np.sum(w)
    slopes = (X - z @ LOOSE.w.T - LOOSE.b) / linear_gaussian.SIGMA**2  # d log p(x|z_k) / db
    np.testing.assert_allclose(-slope, w @ slopes, rtol=1e-4, atol=1e-5)
    for wrong in (w**2, 1 / w / np.sum(1 / w), np.full(4, 0.25)):
        assert np.max(np.abs(wrong @ slopes - w @ slopes)) > 0.05
