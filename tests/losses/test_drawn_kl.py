"""Regularized objectives with a KL from draws, against NumPy and against the closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from elbo_lab import losses
from tests.losses import linear_gaussian
from tests.losses.mean_gradients import float32, standard_errors_off

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, D, L, K, KEYS = 4, 3, 2, 3, 4000
PARAMS = linear_gaussian.make_params(D, L)
# A narrow q, whose KL of about 5 nats is far from both floors below for all draws.
PARAMS = PARAMS._replace(log_scale=PARAMS.log_scale - 2)
X = np.random.default_rng(7).normal(size=(B, D))
# Settings with which the expectation of the estimate is the closed form's objective. A floor that
# is never reached, and one that is always reached.
CASES = {
    "free_bits": {"min_kl": 0.05, "group_size": L},
    "free_bits, floored": {"min_kl": 50.0, "group_size": L},
    "free_bits_batch": {"min_kl": 0.05, "group_size": L},
    "free_bits_batch, floored": {"min_kl": 50.0, "group_size": L},
    "dip_vae_i": {"lambda_off": 3.0, "lambda_diag": 7.0},
    "dip_vae_ii": {"lambda_off": 3.0, "lambda_diag": 7.0},
    "info_vae": {"kl_weight": 0.5, "mmd_weight": 20.0},
}


def objective_of(case):
    return functools.partial(losses.OBJECTIVES[case.split(",")[0]], num_samples=K, **CASES[case])


@pytest.mark.parametrize(
    "case",
    [
        case if case in ("free_bits", "info_vae") else pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_means_of_value_and_gradient_are_those_of_the_closed_form(case):
    """The same draws with both KLs: only the error of the estimated KL is left to average out."""

    def total(params, key, kl):
        arguments = linear_gaussian.distributions(params, float32(X))
        loss, aux = objective_of(case)(key, *arguments, kl=kl)
        return jnp.mean(loss), (jnp.mean(aux.kl), aux.kl - jnp.mean(aux.log_qz_x - aux.log_pz, 0))

    def difference(params, key):
        both = [
            jax.value_and_grad(total, has_aux=True)(params, jax.random.clone(key), kl)
            for kl in ("mc", "analytic")
        ]
        (_, (_, off)), _ = both[0]
        values = jax.tree.map(jnp.subtract, *[((loss, aux[0]), g) for (loss, aux), g in both])
        return values, jnp.max(jnp.abs(off))

    keys = jax.random.split(jax.random.key(0), KEYS)
    compiled = jax.jit(jax.vmap(difference, in_axes=(None, 0)))
    (values, slopes), off = jax.tree.map(np.float64, compiled(float32(PARAMS), keys))
    assert np.max(off) == 0  # aux.kl is the mean over the draws.
    for samples in (*values, *slopes):
        assert standard_errors_off(samples, 0.0) <= 4.5
    assert np.std(values[1]) > 0.05
    is_floored = "floored" in case
    assert (np.std(slopes.log_scale) < 1e-4) == is_floored


def test_a_floor_near_the_kl_costs_at_most_half_a_standard_deviation_more():
    exact = np.mean([linear_gaussian.reconstruction_and_kl(PARAMS, x)[1] for x in X])

    def excess(key):
        arguments = linear_gaussian.distributions(float32(PARAMS), float32(X))
        options = {"min_kl": exact, "group_size": L, "num_samples": 1, "kl": "mc"}
        loss, aux = losses.free_bits_batch(key, *arguments, **options)
        return jnp.mean(loss + aux.log_px_z[0]) - exact, jnp.mean(aux.kl)

    keys = jax.random.split(jax.random.key(1), KEYS)
    cost, kl = np.float64(jax.jit(jax.vmap(excess))(keys))
    error = np.std(cost) / np.sqrt(KEYS)
    assert 4 * error < np.mean(cost) <= 0.5 * np.std(kl) + 4 * error
    np.testing.assert_allclose(cost, np.maximum(kl - exact, 0), atol=1e-4)


def test_one_kl_of_all_dimensions_needs_one_group():
    for name in ("free_bits", "free_bits_batch"):
        with pytest.raises(ValueError, match="of all latent dim.* group_size must be 2; got 1"):
            trace(losses.OBJECTIVES[name], kl="mc")


@pytest.mark.parametrize("name", losses.catalogue.KL_BY_DRAWS)
def test_the_draws_of_the_kl_need_reparam(name):
    with pytest.raises(ValueError, match="estimator must be one of reparam here; got 'score'"):
        trace(objective_of(name), kl="mc", estimator="score")
    with pytest.raises(ValueError, match="kl must be one of mc, analytic; got 'exact'"):
        trace(objective_of(name), kl="exact")


def test_draws_of_a_mixture_prior_do_not_train_it():
    def loss(logits, key):
        parts = dist.Normal(jnp.zeros((2, L)), 1.0).to_event(1)
        prior = dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)
        posterior, _, log_likelihood = linear_gaussian.distributions(float32(PARAMS), float32(X))
        return jnp.mean(losses.info_vae(key, posterior, prior, log_likelihood, kl="mc")[0])

    jax.eval_shape(loss, jnp.zeros(2), jax.random.key(0))  # A fixed mixture is as good as another.
    with pytest.raises(ValueError, match="those of MixtureSameFamily cannot"):
        jax.eval_shape(jax.grad(loss), jnp.zeros(2), jax.random.key(0))


def trace(objective, **options):
    def loss(key):
        arguments = linear_gaussian.distributions(float32(PARAMS), float32(X))
        return objective(key, *arguments, **options)[0]

    return jax.eval_shape(loss, jax.random.key(0))
