"""Mixtures of any components: normalized, and equal to NumPy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as laws
from scipy.special import logsumexp

from elbo_lab.distributions import mixtures
from elbo_lab.distributions.mixtures import (
    BernoulliComponents,
    GaussianComponents,
    in_blocks,
    mixture,
    responsibilities,
)
from elbo_lab.models import components

pytestmark = pytest.mark.usefixtures("fast_compilation")

WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[-1.0, 0.5], [1.0, 2.0], [0.0, -2.0]])
FACTOR = np.array([[0.8, 0.0], [-0.6, 0.5]])
COVARIANCE = FACTOR @ FACTOR.T
COVARIANCES = {
    "full": np.stack([COVARIANCE, 0.5 * COVARIANCE, np.eye(2)]),
    "diagonal": np.array([[0.3, 1.0], [0.5, 0.2], [1.0, 1.0]]),
    "tied": COVARIANCE,
}
FLOOR = 0.1


def law(kind: str):
    arrays = (jnp.log(WEIGHTS), MEANS, COVARIANCES[kind])
    arrays = [jnp.asarray(array, jnp.float32) for array in arrays]
    return components.law(*arrays, kind, FLOOR)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_a_gaussian_mixture_is_that_of_scipy_and_sums_to_one(kind):
    """The trapezoid rule converges faster than any power on a density with such tails."""
    axis, width = np.linspace(-8, 8, 161, retstep=True)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    given = jax.jit(lambda x: responsibilities(law(kind), x))
    rows, log_px = given(jnp.asarray(x, jnp.float32))
    assert np.sum(np.exp(np.float64(log_px))) * width**2 == pytest.approx(1, abs=2e-6)
    covariances = COVARIANCES[kind]
    if kind == "diagonal":
        covariances = np.stack([np.diag(row) for row in covariances])
    covariances = np.broadcast_to(covariances, (3, 2, 2)) + FLOOR * np.eye(2)
    parts = [laws.multivariate_normal(m, c) for m, c in zip(MEANS, covariances, strict=True)]
    log_joint = np.log(WEIGHTS) + np.stack([part.logpdf(x) for part in parts], axis=1)
    expected = logsumexp(log_joint, axis=1)
    np.testing.assert_allclose(log_px, expected, rtol=2e-5, atol=2e-5)
    posterior = np.exp(log_joint - expected[:, None])
    np.testing.assert_allclose(rows, posterior, atol=2e-4)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of at most 4 rows."""
    monkeypatch.setattr(mixtures, "BLOCK_SIZE", 8)
    monkeypatch.setattr(mixtures, "LEAST_ROWS", 4)


@pytest.mark.parametrize(("number", "blocks"), [(0, 1), (3, 1), (8, 2), (10, 3)])
def test_blocks_have_every_row_once_and_then_zeros(small_blocks, number, blocks):
    x = 1 + np.arange(number * 2).reshape(number, 2)
    divided = in_blocks(jnp.asarray(x), row_size=6)
    assert divided.shape == (blocks, -(-number // blocks), 2)
    in_order = np.swapaxes(divided, 0, 1).reshape(-1, 2)
    np.testing.assert_array_equal(in_order[:number], x)
    assert not np.any(in_order[number:])


def test_gaussians_of_several_blocks_are_those_of_scipy(small_blocks):
    x = np.random.default_rng(0).normal(0, 2, (10, 2))
    factors = np.linalg.cholesky(COVARIANCES["full"])
    law = GaussianComponents(jnp.float32(MEANS), scale_tril=jnp.float32(factors))
    pairs = zip(MEANS, COVARIANCES["full"], strict=True)
    expected = np.stack([laws.multivariate_normal(m, c).logpdf(x) for m, c in pairs], axis=1)
    log_prob = jax.jit(law.log_prob)
    np.testing.assert_allclose(log_prob(jnp.float32(x)[:, None]), expected, rtol=1e-5)
    # One value for each law: the computation of `MultivariateNormal`.
    each = log_prob(jnp.float32(x[:3]))
    np.testing.assert_allclose(each, np.diagonal(expected[:3]), rtol=1e-5)


@pytest.mark.slow
def test_a_mixture_in_one_dimension_sums_to_one():
    law = components.law(
        jnp.zeros(2), jnp.array([[0.0], [3.0]]), jnp.array([[0.04], [1.0]]), "diagonal", 0.01
    )
    axis, width = np.linspace(-5, 11, 801, retstep=True)
    density = np.exp(np.float64(law.log_prob(jnp.asarray(axis[:, None], jnp.float32))))
    assert np.sum(density) * width == pytest.approx(1, abs=2e-6)
    assert law.mean == pytest.approx(1.5)


def test_masses_of_binary_images_sum_to_one():
    p = np.random.default_rng(0).uniform(0.02, 0.98, (3, 6))
    images = np.float32(list(itertools.product((0, 1), repeat=6)))
    arrays = (jnp.asarray(array, jnp.float32) for array in (np.log(WEIGHTS), p))
    log_px = components.law(*arrays, (), "bernoulli", 0.09).log_prob(images)
    clipped = np.clip(p, 0.1, 0.9)  # 0.1 (1 - 0.1) = 0.09
    expected = np.log(WEIGHTS) + laws.bernoulli.logpmf(images[:, None], clipped).sum(-1)
    np.testing.assert_allclose(log_px, logsumexp(expected, axis=1), rtol=1e-5)
    assert np.sum(np.exp(np.float64(log_px))) == pytest.approx(1, abs=1e-6)


def test_bernoulli_components_take_no_array_of_all_pixels_and_components():
    logits, x = jnp.zeros((3, 5)), jnp.zeros((7, 5))

    def log_joint(logits, x):
        return BernoulliComponents(logits).log_prob(x[:, None])

    shapes = [
        variable.aval.shape
        for equation in jax.make_jaxpr(log_joint)(logits, x).eqns
        for variable in equation.outvars
    ]
    assert (7, 3) in shapes and (7, 3, 5) not in shapes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tied", "bernoulli"])
def test_draws_have_the_mean_of_the_mixture(kind):
    if kind == "bernoulli":
        p = np.array([[0.1, 0.9], [0.5, 0.3], [0.8, 0.2]])
        drawn_law = mixture(jnp.log(WEIGHTS), BernoulliComponents(jnp.log(p) - jnp.log1p(-p)))
        means, variances = p, WEIGHTS @ p * (1 - WEIGHTS @ p)
    else:
        drawn_law, means = law(kind), MEANS
        variances = np.diag(COVARIANCE) + FLOOR
        variances = variances + WEIGHTS @ (MEANS - WEIGHTS @ MEANS) ** 2
    expected, number = WEIGHTS @ means, 2000
    np.testing.assert_allclose(drawn_law.mean, expected, rtol=1e-5)
    draws = np.asarray(drawn_law.sample(jax.random.key(0), (number,)))
    assert draws.shape == (number, 2)
    assert np.all(np.abs(draws.mean(0) - expected) < 4 * np.sqrt(variances / number))
