"""SUMO: the roulette's law, its sums, and its mean against the exact log-likelihood.

The variance of `sumo_log_px` is infinite (`roulette.py` says why), so means of its values are not
normal. It is compared value by value with `bounds.sumo` of the same draws. The mean is tested for
`sumo` of 81 draws, as many as the roulette has terms before its knee, whose variance is finite.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab import losses
from elbo_lab.losses import bounds, roulette
from tests.losses import linear_gaussian
from tests.losses.mean_gradients import float32
from tests.losses.own_normal import OwnNormal

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = np.array([0.5, -1.0, 1.5])
PARAMS = linear_gaussian.make_params()


def survival(term):
    """P(T >= k): 1/k up to 80, then falling by 0.9 a term."""
    return 1 / term if term <= 80 else 0.9 ** (term - 80) / 80


def test_survival_probabilities():
    terms = np.arange(1, 200)
    expected = np.array([survival(int(term)) for term in terms])
    probabilities = jax.jit(bounds.roulette_survival)(jnp.asarray(terms, jnp.float32))
    np.testing.assert_allclose(probabilities, expected, rtol=2e-5)


def test_terms_follow_the_survival_probabilities():
    draws = 1_000_000
    terms = np.asarray(jax.jit(lambda key: roulette.draw_terms(key, (draws,)))(jax.random.key(0)))
    assert np.min(terms) == 1 and np.all(terms == np.round(terms))
    for term in (1, 2, 3, 7, 40, 79, 80, 81, 82, 90, 110):
        p = survival(term)
        error = np.sqrt(p * (1 - p) / draws)
        assert abs(np.mean(terms >= term) - p) <= 4 * error, term


def many(function, draws, **options):
    """Values of independent keys, float64."""

    def run(key):
        arguments = linear_gaussian.distributions(float32(PARAMS), float32(X))
        return function(key, *arguments, **options)

    keys = jax.random.split(jax.random.key(1), draws)
    return np.float64(jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=1_000))(keys))


def error_of(samples):
    return np.std(samples, ddof=1) / np.sqrt(len(samples))


@pytest.mark.slow
def test_sumo_has_the_mean_of_the_exact_log_likelihood():
    values = -many(lambda *a, **o: losses.sumo(*a, **o)[0], 20_000, num_samples=81)
    exact, moment = linear_gaussian.log_px(PARAMS, X), linear_gaussian.relative_moment
    # The bound of 81 draws lacks Var[w / p(x)] / (2 * 81) at first order.
    bias = (moment(PARAMS, X, 2) - 1) / (2 * 81)
    assert bias < 0.2 * error_of(values)
    assert abs(np.mean(values) - exact) <= 4 * error_of(values)
    # The comparison can distinguish log p(x) from the ELBO, which is the roulette's first term.
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(PARAMS, X)
    assert exact - (reconstruction - kl) > 6 * error_of(values)


@pytest.mark.slow
def test_sumo_log_px_is_sumo_of_the_draws_that_its_terms_need():
    chunk, limit = 3, 96

    @jax.jit
    @jax.vmap
    def run(key):
        arguments = linear_gaussian.distributions(PARAMS, X)
        value = losses.sumo_log_px(jax.random.clone(key), *arguments, chunk=chunk)
        # The same draws, in chunks, and the same terms, by the same keys.
        draws_key, terms_key = jax.random.split(jax.random.clone(key))
        terms = roulette.draw_terms(terms_key)
        keys = jax.vmap(functools.partial(jax.random.fold_in, draws_key))(np.arange(limit // chunk))
        log_w = jax.vmap(lambda key: losses.log_weights(key, *arguments, chunk).log_w)(keys)
        return value, bounds.sumo(log_w.ravel(), terms), terms

    with jax.enable_x64(True):
        value, expected, terms = map(np.asarray, run(jax.random.split(jax.random.key(2), 50)))
    covered = terms < limit
    assert np.sum(covered & (terms > 16)) >= 2 and np.sum(covered) >= 40
    np.testing.assert_allclose(value[covered], expected[covered], rtol=1e-9)


@pytest.mark.slow
def test_sumo_has_the_mean_of_the_iwae_bound_of_all_its_draws():
    number = 4
    sumo = -many(lambda *a, **o: losses.sumo(*a, **o)[0], 40_000, num_samples=number)
    iwae = -many(lambda *a, **o: losses.iwae(*a, **o)[0], 40_000, num_samples=number)
    error = np.hypot(error_of(sumo), error_of(iwae))
    assert abs(np.mean(sumo) - np.mean(iwae)) <= 4 * error


@pytest.mark.slow
def test_sumo_of_many_draws_keeps_its_digits():
    """Terms beyond the knee are exact, though the probabilities of unused terms underflow."""
    log_w = -3 + 2 * np.random.default_rng(0).normal(size=(1_100, 2)).astype(np.float32)
    bound = np.logaddexp.accumulate(np.float64(log_w)) - np.log(np.arange(1, 1_101))[:, None]
    rises = np.diff(bound, axis=0)
    terms = np.array([3, 90])
    expected = bound[0] + [
        sum(rises[k - 1, i] / survival(k) for k in range(1, n + 1)) for i, n in enumerate(terms)
    ]

    def total(log_w):
        return jnp.sum(bounds.sumo(log_w, terms))

    value, v = jax.jit(jax.value_and_grad(total))(log_w)
    np.testing.assert_allclose(value, np.sum(expected), rtol=1e-5)
    np.testing.assert_allclose(np.sum(v, axis=0), 1, rtol=1e-5)


def test_nothing_is_promoted_and_the_loop_runs_under_shard_map():
    """Tracing makes both checks; float32 log-weights are traced under x64 too."""

    def normal(mean):
        return OwnNormal(mean, jnp.ones_like(mean))

    def compute(mean):
        arguments = normal(jnp.zeros_like(mean)), normal(mean / 2).log_prob
        log_px_key, sumo_key = jax.random.split(jax.random.key(0))
        estimate = losses.sumo_log_px(log_px_key, normal(mean), *arguments, chunk=3)
        slope = jax.grad(lambda m: jnp.sum(losses.sumo(sumo_key, normal(m), *arguments)[0]))
        return estimate, slope(mean)

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    data = jax.sharding.PartitionSpec("data")
    sharded = jax.shard_map(compute, mesh=mesh, in_specs=data, out_specs=data, check_vma=True)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            estimate, slope = jax.eval_shape(sharded, jnp.zeros((4, 3), jnp.float32))
        assert (estimate.shape, slope.shape) == ((4,), (4, 3))
        assert estimate.dtype == slope.dtype == jnp.float32
