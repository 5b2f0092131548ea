"""Neither ranks nor types are promoted implicitly inside `elbo_lab.losses`.

`conftest.py` turns both of JAX's checks on in all tests of this folder. Here are half precision,
callers' weights of other types, and each check alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.losses.estimators import ovis, score
from tests.losses import calls, own_normal, pairs

pytestmark = pytest.mark.usefixtures("fast_compilation")

BFLOAT16 = pairs.params_of(jnp.bfloat16)
FLOAT32 = pairs.params_of(np.float32)
X = pairs.X.astype(np.float32)
REFUSED_ALONE = [("raise", "standard"), ("allow", "strict")]
# Each objective with the first of its estimators.
FIRST = [(name, (entry.estimators or (None,))[0]) for name, entry in losses.CATALOGUE.items()]


def row_of(name, estimator):
    library = "numpyro" if name in pairs.NEEDS_FACTORS else "own"
    return pairs.Row(name, estimator, library, "strict")


def trace(name, estimator, params, vectorized=False, **replaced):
    """Shapes and types of loss, aux and slopes; nothing is computed."""
    row = row_of(name, estimator)

    def loss(params, key):
        posterior, prior, log_likelihood = pairs.problem_of(row, params, X)
        options, mean = pairs.options_of(row, params, X)
        options |= {"vectorized": vectorized} | replaced
        arguments = posterior, prior, mean if "x" in options else log_likelihood
        value, aux = losses.OBJECTIVES[name](key, *arguments, **options)
        return jnp.sum(value), (value, aux)

    slopes, parts = jax.eval_shape(jax.grad(loss, has_aux=True), params, jax.random.key(0))
    return *parts, slopes


def check(name, estimator, params, **options):
    loss, aux, slopes = trace(name, estimator, params, **options)
    for leaf in jax.tree.leaves((loss, aux)):
        assert leaf.dtype == np.float32, (name, estimator)
    for slope, leaf in zip(slopes, params, strict=True):
        assert slope.dtype == leaf.dtype, (name, estimator)


@pytest.mark.parametrize(("name", "estimator"), FIRST)
def test_half_precision_is_added_in_float32(name, estimator):
    """Densities and KLs are bfloat16, and a user's own class where the objective takes one."""
    check(name, estimator, BFLOAT16)


@pytest.mark.slow
@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("params", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_every_pair_by_both_conventions(params, vectorized):
    for name, estimator in calls.PAIRS:
        check(name, estimator, params, vectorized=vectorized)


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize(("rank", "dtype"), REFUSED_ALONE)
def test_each_check_alone(rank, dtype):
    with jax.numpy_rank_promotion(rank), jax.numpy_dtype_promotion(dtype):
        for name, estimator in FIRST:
            check(name, estimator, BFLOAT16)


# Callers' weights, whose types are the caller's: integers here.
WEIGHTS = [
    ("beta_vae", {"kl": "mc"}, ("beta",)),
    ("beta_vae", {"kl": "analytic"}, ("beta",)),
    ("ciwae", {}, ("beta",)),
    ("renyi", {}, ("alpha",)),
    ("cubo", {}, ("power",)),
    ("capacity_vae", {}, ("gamma", "capacity")),
    ("free_bits", {}, ("min_kl",)),
    ("free_bits_batch", {}, ("min_kl",)),
    ("lambda_vae", {}, ("regularization",)),
    ("beta_tcvae", {}, ("beta",)),
    ("dip_vae_i", {}, ("lambda_off", "lambda_diag")),
    ("info_vae", {}, ("kl_weight", "mmd_weight")),
]


@pytest.mark.parametrize(("name", "options", "weights"), WEIGHTS)
def test_weights_of_another_type(name, options, weights):
    def with_weight(weight):
        by_name = dict.fromkeys(weights, weight)
        return trace(name, "reparam", FLOAT32, **options, **by_name)[0]

    assert jax.eval_shape(with_weight, jnp.int32(1)).dtype == np.float32


def test_other_functions_that_take_a_posterior():
    row = row_of("iwae", "reparam")
    functions = {
        "sumo_log_px": losses.sumo_log_px,
        "log_weights": lambda *args: losses.log_weights(*args, num_samples=3).log_w,
        "from_bound": lambda *args: losses.from_bound(
            *args, bound=lambda log_w: jnp.max(log_w, axis=0), estimator="score_loo"
        )[0],
        "baseline": lambda *args: losses.iwae(
            *args, estimator=functools.partial(score, baseline=jnp.zeros(pairs.B, jnp.bfloat16))
        )[0],
        "gamma": lambda *args: losses.iwae(*args, estimator=functools.partial(ovis, gamma=1))[0],
    }
    for params in (FLOAT32, BFLOAT16):
        for name, function in functions.items():

            def of_problem(params, key, function=function):
                return function(key, *pairs.problem_of(row, params, X))

            shape = jax.eval_shape(of_problem, params, jax.random.key(0))
            assert shape.dtype == np.float32, name


def test_a_closed_form_of_half_precision_is_added_in_float32():
    """bfloat16 numbers of hundreds are two apart; the loss must not be rounded to them."""

    @jax.jit
    def compute():
        mean = jnp.full((2, pairs.L), 17.0, jnp.bfloat16)
        scale = jnp.ones(pairs.L, jnp.bfloat16)
        posterior, prior = (own_normal.OwnNormal(m, scale) for m in (mean, 0 * mean))
        arguments = posterior, prior, lambda z: jnp.full(z.shape[:-1], 0.125, z.dtype)
        loss, aux = losses.elbo(jax.random.key(0), *arguments, kl="analytic")
        return loss, aux.kl, own_normal.kl(posterior, prior)

    loss, kl, half_kl = compute()
    assert half_kl.dtype == jnp.bfloat16 and loss.dtype == kl.dtype == np.float32
    assert np.all(np.abs(np.float64(half_kl) - 17.0**2) <= 2)  # two halves of 17^2
    np.testing.assert_array_equal(loss, np.float32(half_kl) - np.float32(0.125))
