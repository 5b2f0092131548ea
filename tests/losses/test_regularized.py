"""Objectives with a regularizer per example, against their definitions in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from tests.losses import linear_gaussian

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, D, L, K = 3, 5, 4, 2
PARAMS = linear_gaussian.make_params(D, L)
X = np.random.default_rng(7).normal(size=(B, D))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def compute(objective, **options):
    """(loss, aux, z) in one compiled call; z are the draws of log_weights by the same key."""

    @jax.jit
    def run():
        arguments = linear_gaussian.distributions(PARAMS, X)
        draws = losses.log_weights(jax.random.key(0), *arguments, K)
        return *objective(jax.random.key(0), *arguments, num_samples=K, **options), draws.z

    return jax.tree.map(np.asarray, run())


def kl_per_dimension():
    mean, variance = X @ PARAMS.a.T + PARAMS.c, np.exp(2 * PARAMS.log_scale)
    return 0.5 * (variance + mean**2 - 1 - np.log(variance))  # [B, L]


def reconstruction(z):
    """1/K sum_k log p(x|z_k), [B]."""
    variance = linear_gaussian.SIGMA**2
    squares = (X - z @ PARAMS.w.T - PARAMS.b) ** 2 / variance
    return np.mean(-0.5 * np.sum(squares + np.log(2 * np.pi * variance), axis=-1), axis=0)


close = functools.partial(np.testing.assert_allclose, rtol=1e-11)


def test_capacity_vae():
    kl = np.sum(kl_per_dimension(), axis=-1)
    for capacity in (0.0, np.median(kl), 50.0):  # Below all KLs, among them, and above them.
        loss, aux, z = compute(losses.capacity_vae, gamma=7.0, capacity=capacity)
        close(aux.kl, kl)
        close(loss, -reconstruction(z) + 7 * np.abs(kl - capacity))


@pytest.mark.parametrize(("group_size", "factor"), [(1, 0.0), (1, 1.0), (2, 1.0)])
def test_free_bits(group_size, factor):
    by_dimension = kl_per_dimension()
    groups = by_dimension.reshape(B, L // group_size, group_size).sum(axis=-1)
    floor = factor * np.median(groups)  # 0, or above some groups and below the others.
    loss, aux, z = compute(losses.free_bits, min_kl=floor, group_size=group_size)
    close(loss, -reconstruction(z) + np.sum(np.maximum(groups, floor), axis=-1))
    close(aux.kl, np.sum(by_dimension, axis=-1))


def test_free_bits_give_a_floored_dimension_no_gradient():
    floor = np.median(kl_per_dimension())  # Their number is even: no KL equals it.

    @jax.jit
    @jax.grad
    def gradient(c):
        posterior, prior, _ = linear_gaussian.distributions(PARAMS._replace(c=c), X)
        arguments = posterior, prior, lambda z: jnp.zeros(B)
        return jnp.sum(losses.free_bits(jax.random.key(0), *arguments, min_kl=floor)[0])

    mean = X @ PARAMS.a.T + PARAMS.c
    counted = kl_per_dimension() > floor
    close(gradient(PARAMS.c), np.sum(mean * counted, axis=0), atol=1e-14)


def test_free_bits_need_groups_that_divide_the_dimensions_and_a_product():
    posterior = dist.MultivariateNormal(jnp.zeros((B, L)), jnp.eye(L))
    prior = dist.Normal(jnp.zeros(L), 1.0).to_event(1)

    def loss(key):
        return losses.free_bits(key, posterior, prior, lambda z: jnp.zeros(B))

    with pytest.raises(ValueError, match="group_size must divide .* 4; got 3"):
        compute(losses.free_bits, group_size=3)
    with pytest.raises(ValueError, match="MultivariateNormal is not seen to be a product"):
        jax.eval_shape(loss, jax.random.key(0))


@pytest.mark.parametrize("kl", ["mc", "analytic"])
def test_lambda_vae_is_the_variance_times_an_elbo(kl):
    """The textbook's objective is lambda times the ELBO of a likelihood of variance lambda."""
    variance = linear_gaussian.SIGMA**2

    def objective(key, posterior, prior, log_likelihood, num_samples):
        del log_likelihood
        arguments = posterior, prior, lambda z: linear_gaussian.affine(z, PARAMS.w, PARAMS.b)
        options = {"regularization": variance, "num_samples": num_samples, "kl": kl}
        return losses.lambda_vae(key, *arguments, x=X, **options)

    loss, aux, z = compute(objective)
    half_squares = np.mean(-0.5 * np.sum((X - z @ PARAMS.w.T - PARAMS.b) ** 2, axis=-1), axis=0)
    close(np.mean(aux.log_px_z, axis=0), half_squares)
    close(-loss, half_squares - variance * aux.kl)
    if kl == "analytic":
        close(aux.kl, np.sum(kl_per_dimension(), axis=-1))
    # The ELBO of the same draws, whose likelihood has this variance and constants.
    elbo = -compute(losses.elbo, kl=kl)[0]
    close(-loss, variance * (elbo + D / 2 * np.log(2 * np.pi * variance)))


def test_free_bits_refuses_a_floor_for_each_example():
    def loss(key):
        posterior, prior = (dist.Normal(jnp.zeros((4, 3)), 1).to_event(1) for _ in range(2))
        return losses.free_bits(key, posterior, prior, lambda z: z[:, 0], min_kl=jnp.ones(4))

    with pytest.raises(ValueError, match=r"one for each group, shape \(3,\); got shape \(4,\)"):
        jax.eval_shape(loss, jax.random.key(0))
