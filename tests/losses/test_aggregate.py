"""Objectives of a whole batch, against NumPy float64 in explicit loops."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from elbo_lab import losses
from elbo_lab.losses import aggregate
from tests.losses import calls, linear_gaussian

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, D, L, K = 5, 4, 3, 2
PARAMS = linear_gaussian.make_params(D, L)
X = np.random.default_rng(7).normal(size=(B, D))
MEAN, SCALE = X @ PARAMS.a.T + PARAMS.c, np.exp(PARAMS.log_scale)
KL_PER_DIMENSION = 0.5 * (SCALE**2 + MEAN**2 - 1) - np.log(SCALE)  # [B, L]
KL = np.sum(KL_PER_DIMENSION, axis=-1)
close = functools.partial(np.testing.assert_allclose, rtol=1e-11)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


class Recorded(dist.Independent):
    """A prior that stores its draws as `drawn`."""

    def sample(self, key, sample_shape=()):
        self.drawn = super().sample(key, sample_shape)
        return self.drawn


def compute(objective, recorded=False, **options):
    """(loss, aux, draws of q, draws of the prior) in one compiled call."""

    @jax.jit
    def run():
        posterior, prior, log_likelihood = linear_gaussian.distributions(PARAMS, X)
        prior = Recorded(prior.base_dist, 1) if recorded else prior
        seen = []

        def watched(z):
            seen.append(z)
            return log_likelihood(z)

        arguments = posterior, prior, watched
        all_options = {"num_samples": K, "vectorized": True} | options
        result = objective(jax.random.key(0), *arguments, **all_options)
        return *result, seen[-1], prior.drawn if recorded else None

    return jax.tree.map(np.asarray, run())


def reconstruction(z):
    """1/K sum_k log p(x|z_k), [B]."""
    log_px_z = norm.logpdf(X, z @ PARAMS.w.T + PARAMS.b, linear_gaussian.SIGMA)
    return np.mean(np.sum(log_px_z, axis=-1), axis=0)


def test_free_bits_batch_floors_the_mean_over_the_batch():
    floor = np.median(np.mean(KL_PER_DIMENSION, axis=0)) + 0.01
    loss, aux, z, _ = compute(losses.free_bits_batch, min_kl=floor)
    floored = sum(max(floor, np.mean(KL_PER_DIMENSION[:, n])) for n in range(L))
    close(loss, -reconstruction(z) + floored)
    close(aux.kl, KL)
    close(aux.penalty, floored - np.mean(KL))
    # The mean of floors per example is another number.
    assert abs(floored - np.mean(np.sum(np.maximum(KL_PER_DIMENSION, floor), axis=-1))) > 1e-3


def test_beta_tcvae_by_loops():
    dataset_size, beta = 50, 3.0
    loss, aux, z, _ = compute(losses.beta_tcvae, dataset_size=dataset_size, beta=beta)
    expected, penalties = np.zeros(B), np.zeros(B)
    for i in range(B):
        for k in range(K):
            # log q(z_l | x_j) for every example j and dimension l.
            log_q = np.array(
                [
                    [norm.logpdf(z[k, i, n], MEAN[j, n], SCALE[n]) for n in range(L)]
                    for j in range(B)
                ]
            )
            log_count = np.log(dataset_size * B)
            log_qz = logsumexp(np.sum(log_q, axis=1)) - log_count
            log_qz_l = logsumexp(log_q, axis=0) - log_count
            log_pz_l = norm.logpdf(z[k, i])
            information = np.sum(log_q[i]) - log_qz
            correlation = log_qz - np.sum(log_qz_l)
            by_dimension = np.sum(log_qz_l - log_pz_l)
            expected[i] += (information + beta * correlation + by_dimension) / K
            penalties[i] += (beta - 1) * correlation / K
    close(loss, -reconstruction(z) + expected)
    close(aux.penalty, np.mean(penalties))


def test_beta_tcvae_with_beta_one_is_the_elbo_with_a_monte_carlo_kl():
    loss, aux, *_ = compute(losses.beta_tcvae, dataset_size=50, beta=1.0)
    elbo, elbo_aux, *_ = compute(losses.elbo, kl="mc")
    close(loss, elbo)
    close(aux.kl, elbo_aux.kl)
    assert aux.penalty == 0


def covariance(values):
    return sum(np.outer(v - values.mean(axis=0), v - values.mean(axis=0)) for v in values) / B


def dip_penalty(matrix, off, diagonal):
    total = 0.0
    for i in range(L):
        for j in range(L):
            total += diagonal * (matrix[i, i] - 1) ** 2 if i == j else off * matrix[i, j] ** 2
    return total


@pytest.mark.parametrize("name", ["dip_vae_i", "dip_vae_ii"])
def test_dip_vae(name):
    loss, aux, z, _ = compute(losses.OBJECTIVES[name], lambda_off=3.0, lambda_diag=7.0)
    matrix = covariance(MEAN)
    if name == "dip_vae_ii":
        matrix = matrix + np.diag(SCALE**2)
    penalty = dip_penalty(matrix, 3.0, 7.0)
    close(loss, -reconstruction(z) + KL + penalty)
    close(aux.penalty, penalty)


def squared_mmd(x, y):
    """Gretton et al. 2012, eq. 3, in loops."""

    def kernel(a, b):
        return 2 * len(a) / (2 * len(a) + np.sum((a - b) ** 2))

    def within(s):
        pairs = [kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]
        return np.mean(pairs)

    between = np.mean([kernel(a, b) for a in x for b in y])
    return within(x) + within(y) - 2 * between


def test_info_vae_by_loops():
    loss, aux, z, drawn = compute(losses.info_vae, recorded=True, kl_weight=0.3, mmd_weight=20.0)
    assert drawn.shape == (B, L)
    discrepancy = squared_mmd(z[0], drawn)
    close(loss, -reconstruction(z) + 0.3 * KL + 20 * discrepancy)
    close(aux.penalty, 20 * discrepancy - 0.7 * np.mean(KL), rtol=1e-9)


def test_squared_mmd_is_unbiased():
    x = np.random.default_rng(0).normal(size=(7, 2))
    y = np.random.default_rng(1).normal(size=(5, 2))
    close(jax.jit(aggregate.squared_mmd)(x, y), squared_mmd(x, y), rtol=1e-9)

    @jax.jit
    @jax.vmap
    def many(key):
        a_key, b_key = jax.random.split(key)
        a, b = jax.random.normal(a_key, (4, 2)), jax.random.normal(b_key, (4, 2))
        return aggregate.squared_mmd(a, b), aggregate.squared_mmd(a, b + 1)

    same, apart = np.asarray(many(jax.random.split(jax.random.key(0), 10_000)))
    errors = [np.std(values) / np.sqrt(len(values)) for values in (same, apart)]
    assert abs(np.mean(same)) <= 4 * errors[0]
    assert np.mean(apart) > 4 * errors[1]
    assert np.mean(same < 0) > 0.3  # Unbiased estimates of zero fall on both sides.


@pytest.mark.parametrize("name", calls.NEEDS_BATCH)
def test_other_shapes_than_a_batch_are_refused(name):
    def loss(x):
        return calls.call(name, jax.random.key(0), PARAMS, x)[0]

    message = f"{name} needs a batch.*without jax.vmap"
    for shape in ((D,), (1, D), (2, B, D)):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(loss, jnp.zeros(shape))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(jax.vmap(loss), jnp.zeros((B, D)))


@pytest.mark.parametrize("name", ["beta_tcvae", "dip_vae_ii", "free_bits_batch"])
def test_posteriors_that_are_no_product_are_refused(name):
    posterior = dist.MultivariateNormal(jnp.zeros((B, L)), jnp.eye(L))
    with pytest.raises(ValueError, match="MultivariateNormal is not seen to be a product"):
        jax.eval_shape(lambda: calls.call(name, jax.random.key(0), PARAMS, X, posterior=posterior))


def test_the_mean_penalty_of_batches_may_be_below_the_data_sets_penalty():
    """Means (1, 1) and (-1, -1), equally often: all covariances are 1, and the penalty is 2.

    The penalties of all 16 batches of 4, by hand, off the diagonal plus on it: 0 + 2 where all are
    equal (2 batches), 1.125 + 0.125 for one against three (8), 2 + 0 for two against two (6). The
    mean is 1.625.
    """
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=4)), np.float32)  # [16, 4]

    def penalty(key, signs):
        posterior = dist.Normal(jnp.stack([signs, signs], axis=-1), 0.5).to_event(1)
        prior = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
        arguments = posterior, prior, lambda z: jnp.zeros(z.shape[:-1])
        return losses.dip_vae_i(key, *arguments, lambda_off=1.0, lambda_diag=1.0)[1].penalty

    keys = jax.random.split(jax.random.key(0), len(signs))
    penalties = jax.jit(jax.vmap(penalty))(keys, signs)
    np.testing.assert_allclose(np.mean(penalties), 1.625, rtol=1e-6)
