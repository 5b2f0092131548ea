"""Closed-form KLs of Gaussians against formulas, integrals and finite differences in float64.

Also the lookup of `kl_divergence` by type.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from tests.losses.law_forms import kl_of_normals, random_covariances

B, L = 4, 3
gaussian_kl, gaussian_kl_full = jax.jit(losses.gaussian_kl), jax.jit(losses.gaussian_kl_full)


def random_gaussians(seed: int = 0):
    """mean_q, scale_q [B, L] and mean_p, scale_p [L]."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.uniform(-1, 1, size=(B + 1, L)))
    means = rng.normal(size=(B + 1, L))
    arrays = means[:B], scales[:B], means[B], scales[B]
    return [array.astype(np.float32) for array in arrays]


def kl_float64(mean_q, scale_q, mean_p=0.0, scale_p=1.0):
    """The textbook's formula by variances, summed over the last axis."""
    mean_q, scale_q, mean_p, scale_p = (
        np.asarray(array, np.float64) for array in (mean_q, scale_q, mean_p, scale_p)
    )
    var_q, var_p = scale_q**2, scale_p**2
    terms = np.log(var_p / var_q) + (var_q + (mean_q - mean_p) ** 2) / var_p - 1
    return 0.5 * np.sum(terms, axis=-1)


# Sums of a few float32 terms of order 1 to 10.
close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6)


def test_the_textbooks_13_24_in_its_own_notation():
    """The default prior is the standard normal."""
    mean, scale, _, _ = (a.astype(np.float64) for a in random_gaussians())
    by_hand = [
        0.5 * (np.trace(np.diag(s**2)) + m @ m - L - np.log(np.linalg.det(np.diag(s**2))))
        for m, s in zip(mean, scale, strict=True)
    ]
    close(gaussian_kl(np.float32(mean), np.float32(scale)), by_hand)


def test_direction_of_the_divergence():
    # KL(N(0, 1) || N(0, e^2)) = 1/2 (e^-2 - 1) + 1; the other way 1/2 (e^2 - 1) - 1.
    zero, one = jnp.zeros(1), jnp.ones(1)
    close(gaussian_kl(zero, one, zero, np.e * one), 0.5 * (np.exp(-2) - 1) + 1)
    close(gaussian_kl(zero, np.e * one, zero, one), 0.5 * (np.exp(2) - 1) - 1)


def test_gaussian_kl_by_numerical_integration():
    mean_q, scale_q, mean_p, scale_p = 0.7, 0.4, -0.2, 1.3
    # The trapezoid rule converges faster than any power for such integrands.
    z = np.linspace(mean_q - 12 * scale_q, mean_q + 12 * scale_q, 4001)

    def log_density(mean, scale):
        return -0.5 * ((z - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)

    log_q = log_density(mean_q, scale_q)
    integral = np.trapezoid(np.exp(log_q) * (log_q - log_density(mean_p, scale_p)), z)
    arguments = (jnp.array([v]) for v in (mean_q, scale_q, mean_p, scale_p))
    np.testing.assert_allclose(gaussian_kl(*arguments), integral, rtol=2e-6)


def test_zero_at_equality_and_positive_elsewhere():
    mean_q, scale_q, mean_p, scale_p = random_gaussians()
    np.testing.assert_array_equal(gaussian_kl(mean_q, scale_q, mean_q, scale_q), 0)
    assert jnp.all(gaussian_kl(mean_q, scale_q, mean_p, scale_p) > 0)
    cov = random_covariances(1).astype(np.float32)
    # trace(I) - L and the log-determinants cancel up to rounding.
    np.testing.assert_allclose(gaussian_kl_full(mean_q, cov, mean_q, cov), np.zeros(B), atol=2e-6)


def test_extreme_scales_stay_finite():
    scale = jnp.array([[1e-10], [1e10]])
    total = jax.jit(jax.value_and_grad(lambda s: jnp.sum(losses.gaussian_kl(jnp.zeros(1), s))))
    value, gradient = total(scale)
    np.testing.assert_allclose(value, np.sum(kl_float64(0.0, scale)), rtol=1e-5)
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize(
    "shapes",
    [((L,), (L,)), ((B, L), (L,)), ((L,), (B, L)), ((2, B, L), (B, L)), ((2, 1, L), (B, L))],
)
def test_gaussian_kl_equals_float64_formula_and_broadcasts(shapes):
    rng = np.random.default_rng(2)
    arrays = [rng.uniform(0.5, 2, size=shape).astype(np.float32) for shape in shapes for _ in "ms"]
    value = gaussian_kl(*arrays)
    assert value.shape == np.broadcast_shapes(*shapes)[:-1]
    close(value, kl_float64(*arrays))


def test_gaussian_kl_full_equals_float64_formula_and_broadcasts():
    rng = np.random.default_rng(3)
    mean_q, mean_p = rng.normal(size=(B, L)), rng.normal(size=L)
    cov_q, cov_p = random_covariances(4, B), random_covariances(5)
    expected = [kl_of_normals(mean_q[i], cov_q[i], mean_p, cov_p) for i in range(B)]
    value = gaussian_kl_full(*(np.float32(a) for a in (mean_q, cov_q, mean_p, cov_p)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    single = gaussian_kl_full(*(np.float32(a) for a in (mean_q[0], cov_q[0], mean_p, cov_p)))
    assert single.shape == ()
    np.testing.assert_allclose(single, expected[0], rtol=1e-5)
    # p has more batch dimensions than q.
    mean, cov = np.zeros(L, np.float32), np.float32(random_covariances(6))
    covs_p = np.float32(random_covariances(7, 2, B))
    value = gaussian_kl_full(mean, cov, mean, covs_p)
    expected = [[kl_of_normals(mean, cov, mean, c) for c in row] for row in covs_p]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_gaussian_kl_full_is_nan_without_positive_definiteness():
    eye = jnp.eye(L)
    assert jnp.isnan(gaussian_kl_full(jnp.zeros(L), -eye, jnp.zeros(L), eye))


def test_gradients_equal_finite_differences():
    arguments = [np.asarray(a, np.float64) for a in random_gaussians()]
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(losses.gaussian_kl(*a)), argnums=(0, 1, 2, 3)))(
        *(np.float32(a) for a in arguments)
    )
    step = 1e-6
    for i, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arguments]
                moved[i][index] += sign * step
                values.append(np.sum(kl_float64(*moved)))
            expected = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(gradient[index], expected, rtol=1e-5, atol=1e-5)


def test_gradient_of_full_covariance_equals_float64_formula():
    cov_q, cov_p = np.float32(random_covariances(8)), np.float32(random_covariances(9))
    mean = np.zeros(L, np.float32)
    gradient = jax.jit(jax.grad(losses.gaussian_kl_full, argnums=1))(mean, cov_q, mean, cov_p)
    # d/dS_q = 1/2 (S_p^-1 - S_q^-1).
    expected = 0.5 * (np.linalg.inv(np.float64(cov_p)) - np.linalg.inv(np.float64(cov_q)))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


# kl_divergence: a lookup by type. test_closed_forms.py has NumPyro's laws.


class Plain:
    """A user's own distribution, of no library."""


class WithMethod:
    """A distribution with its own KL method, as Distrax's have."""

    def kl_divergence(self, prior):
        if isinstance(prior, Plain):
            return jnp.array([7.0])
        raise NotImplementedError


@pytest.fixture
def registry():
    stored = dict(losses.KL_REGISTRY)
    yield losses.KL_REGISTRY
    losses.KL_REGISTRY.clear()
    losses.KL_REGISTRY.update(stored)


def test_a_users_pair(registry):
    q, p = Plain(), WithMethod()
    registry[Plain, WithMethod] = lambda first, second: (first, second)
    assert losses.kl_divergence(q, p) == (q, p)  # In this order.
    with pytest.raises(ValueError, match="Plain and Plain"):
        losses.kl_divergence(q, q)


def test_a_users_pair_takes_precedence_over_the_library(registry):
    q = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    registry[type(q), type(q)] = lambda *_: "mine"
    assert losses.kl_divergence(q, q) == "mine"


def test_the_posteriors_own_method():
    np.testing.assert_array_equal(losses.kl_divergence(WithMethod(), Plain()), [7.0])


UNKNOWN = {
    "Plain and WithMethod": (Plain(), WithMethod()),
    "WithMethod and WithMethod": (WithMethod(), WithMethod()),
    "Plain and Normal": (Plain(), dist.Normal(0.0, 1.0)),
    "Laplace and Normal": (dist.Laplace(0.0, 1.0), dist.Normal(0.0, 1.0)),
}


@pytest.mark.parametrize("names", UNKNOWN)
def test_unknown_pairs_raise(names):
    with pytest.raises(ValueError, match=rf'{names}.*kl="mc".*KL_REGISTRY'):
        losses.kl_divergence(*UNKNOWN[names])


def test_event_shapes_must_agree():
    q = dist.Normal(jnp.zeros((B, L)), 1.0).to_event(1)
    for p, shape in ((dist.Normal(0.0, 1.0), "()"), (dist.Normal(jnp.zeros(2), 1.0), "(2,)")):
        p = p.to_event(len(p.batch_shape))
        with pytest.raises(ValueError, match="event shape") as error:
            losses.kl_divergence(q, p)
        assert f"({L},)" in str(error.value) and shape in str(error.value)
