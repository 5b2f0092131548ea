"""Objectives with a regularizer per example, against NumPy float64 from the terms' definitions."""

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


def compute(objective, *, seed=0, params=PARAMS, **options):
    """(loss, aux, z) in one compiled call; z are the draws that log_weights makes of that key."""

    @jax.jit
    def run():
        arguments = linear_gaussian.distributions(params, X)
        draws = losses.log_weights(jax.random.key(seed), *arguments, K)
        return *objective(jax.random.key(seed), *arguments, num_samples=K, **options), draws.z

    return jax.tree.map(np.asarray, run())


def kl_per_dimension(params=PARAMS):
    mean, variance = X @ params.a.T + params.c, np.exp(2 * params.log_scale)
    return 0.5 * (variance + mean**2 - 1 - np.log(variance))  # [B, L]


def reconstruction(z, params=PARAMS):
    """1/K sum_k log p(x|z_k), [B]."""
    variance = linear_gaussian.SIGMA**2
    squares = (X - z @ params.w.T - params.b) ** 2 / variance
    return np.mean(-0.5 * np.sum(squares + np.log(2 * np.pi * variance), axis=-1), axis=0)


close = functools.partial(np.testing.assert_allclose, rtol=1e-11)


def test_capacity_vae():
    kl = np.sum(kl_per_dimension(), axis=-1)
    for capacity in (np.median(kl), 50.0):  # With KLs on either side of it, and on one.
        loss, aux, z = compute(losses.capacity_vae, gamma=7.0, capacity=capacity)
        close(aux.kl, kl)
        close(loss, -reconstruction(z) + 7 * np.abs(kl - capacity))


def test_capacity_of_zero_is_the_beta_vae_draw_for_draw():
    loss, _, _ = compute(losses.capacity_vae, gamma=7.0, capacity=0.0)
    close(loss, compute(losses.beta_vae, beta=7.0, kl="analytic")[0])


@pytest.mark.parametrize("group_size", [1, 2])
def test_free_bits(group_size):
    by_dimension = kl_per_dimension()
    groups = by_dimension.reshape(B, L // group_size, group_size).sum(axis=-1)
    floor = float(np.median(groups))  # Some are above it and some below.
    loss, aux, z = compute(losses.free_bits, min_kl=floor, group_size=group_size)
    floored = np.sum(np.maximum(groups, floor), axis=-1)
    close(loss, -reconstruction(z) + floored)
    close(aux.kl, np.sum(by_dimension, axis=-1))
    assert np.any(floored > aux.kl + 1e-3)


def test_free_bits_of_none_are_the_elbo_with_the_kl_in_closed_form():
    loss, _, _ = compute(losses.free_bits, min_kl=0.0)
    close(loss, compute(losses.elbo, kl="analytic")[0])


def test_free_bits_give_a_floored_dimension_no_gradient():
    floors = np.sort(np.unique(kl_per_dimension()))
    floor = (floors[len(floors) // 2 - 1] + floors[len(floors) // 2]) / 2

    @jax.jit
    @jax.grad
    def gradient(c):
        posterior, prior, _ = linear_gaussian.distributions(PARAMS._replace(c=c), X)
        nothing = jnp.zeros(B)
        loss, _ = losses.free_bits(
            jax.random.key(0), posterior, prior, lambda z: nothing, min_kl=floor
        )
        return jnp.sum(loss)

    mean = X @ PARAMS.a.T + PARAMS.c
    counted = kl_per_dimension() > floor
    assert np.any(counted) and not np.all(counted)
    close(gradient(PARAMS.c), np.sum(mean * counted, axis=0), atol=1e-14)


def test_free_bits_need_groups_that_divide_the_dimensions_and_a_product():
    with pytest.raises(ValueError, match="group_size must divide .* 4; got 3"):
        compute(losses.free_bits, group_size=3)
    posterior = dist.MultivariateNormal(jnp.zeros((B, L)), jnp.eye(L))
    prior = dist.Normal(jnp.zeros(L), 1.0).to_event(1)
    with pytest.raises(ValueError, match="MultivariateNormal is not seen to be a product"):
        losses.free_bits(jax.random.key(0), posterior, prior, lambda z: jnp.zeros(B))


@pytest.mark.parametrize("kl", ["mc", "analytic"])
def test_lambda_vae_is_the_textbooks_and_lambda_times_the_elbo_of_that_variance(kl):
    variance = linear_gaussian.SIGMA**2

    def objective(key, posterior, prior, log_likelihood, num_samples):
        del log_likelihood
        return losses.lambda_vae(
            key,
            posterior,
            prior,
            lambda z: linear_gaussian.affine(z, PARAMS.w, PARAMS.b),
            x=X,
            regularization=variance,
            num_samples=num_samples,
            kl=kl,
        )

    loss, aux, z = compute(objective)
    half_squares = np.mean(-0.5 * np.sum((X - z @ PARAMS.w.T - PARAMS.b) ** 2, axis=-1), axis=0)
    close(np.mean(aux.log_px_z, axis=0), half_squares)
    close(-loss, half_squares - variance * aux.kl)
    if kl == "analytic":
        close(aux.kl, np.sum(kl_per_dimension(), axis=-1))
    # The ELBO of the same draws, whose likelihood has this variance (and its constants).
    elbo = -compute(losses.elbo, kl=kl)[0]
    close(-loss, variance * (elbo + D / 2 * np.log(2 * np.pi * variance)))


def test_free_bits_refuses_a_floor_for_each_example():
    def loss(key):
        posterior, prior = (dist.Normal(jnp.zeros((4, 3)), 1).to_event(1) for _ in range(2))
        return losses.free_bits(key, posterior, prior, lambda z: z[:, 0], min_kl=jnp.ones(4))

    with pytest.raises(ValueError, match=r"one for each group, shape \(3,\); got shape \(4,\)"):
        jax.eval_shape(loss, jax.random.key(0))
