"""Laws between bounds, on drawn log-weights, and what their expectations are of log p(x)."""

import functools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import linear_gaussian
import numpy as np
import pytest
from every_bound import AMPLIFICATION, BOUNDS, MEANS, PARTITION, K, evaluate, random_log_w
from scipy.special import logsumexp

from elbo_lab.losses import bounds

pytestmark = pytest.mark.usefixtures("fast_compilation")

EPS = float(np.finfo(np.float32).eps)
every_bound = pytest.mark.parametrize("name", BOUNDS)

# Multiples of 1/8 up to 10^4, so that float32 adds and subtracts them exactly.
LOG_WEIGHTS = arrays.arrays(
    np.float32,
    (K, 4),
    elements=st.one_of(
        st.just(-np.inf),
        st.integers(-800, 0).map(lambda n: n / 8),
        st.integers(-80_000, 80_000).map(lambda n: n / 8),
    ),
    fill=st.nothing(),
)
SHIFTS = st.integers(-5000, 5000)
examples = functools.partial(
    hypothesis.settings,
    derandomize=True,
    deadline=None,
    database=None,
    # The fixture of fast compilation may well serve all examples of a test.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def rounding(log_w, amplification=1):
    """A few units in the last place of the largest log-weight."""
    return 8 * EPS * amplification * np.max(np.abs(log_w), initial=1, where=np.isfinite(log_w))


@every_bound
@examples(max_examples=40)
@hypothesis.given(log_w=LOG_WEIGHTS)
def test_derivatives_are_finite_and_of_one_unit_in_all(name, log_w):
    value, v, path = evaluate(name, log_w)
    assert not np.any(np.isnan(value))
    assert np.all(np.isfinite(v)) and np.all(np.isfinite(path))
    # f(log_w + c) = f(log_w) + c, differentiated by c.
    size = AMPLIFICATION.get(name, 1) + np.sum(np.abs(v), axis=0)
    assert np.all(np.abs(np.sum(v, axis=0) - 1) <= 32 * EPS * size)
    if name in MEANS:
        assert np.all(v >= 0)
    if name == "iwae":
        np.testing.assert_allclose(path, v**2, rtol=0, atol=8 * EPS)


@every_bound
@examples(max_examples=25)
@hypothesis.given(log_w=LOG_WEIGHTS, shift=SHIFTS)
def test_shift_equivariance_of_any_log_weights(name, log_w, shift):
    value, v, path = evaluate(name, log_w)
    moved, moved_v, moved_path = evaluate(name, log_w + np.float32(shift))
    tolerance = rounding(np.abs(log_w) + abs(shift), AMPLIFICATION.get(name, 1))
    np.testing.assert_allclose(moved, value + shift, rtol=0, atol=tolerance)
    # The derivatives see differences alone, which are exact.
    np.testing.assert_array_equal(moved_v, v)
    np.testing.assert_array_equal(moved_path, path)


@examples(max_examples=60)
@hypothesis.given(log_w=LOG_WEIGHTS)
def test_order_on_the_same_log_weights(log_w):
    value = {name: evaluate(name, log_w)[0] for name in BOUNDS}
    least = np.min(log_w, axis=0)
    chains = [
        # Power means rise with the power, that is fall in alpha.
        [least, "renyi(2)", "elbo", "renyi(.5)", "iwae", "renyi(-1)", "vr_max"],
        ["elbo", "miwae", "iwae"],
        ["elbo", "ciwae", "iwae"],
        # The thermodynamic integrand rises from E_q to E_p, and its integral is the IWAE bound.
        ["elbo", "tvo", "iwae"],
    ]
    for chain in chains:
        values = [value[x] if isinstance(x, str) else x for x in chain]
        for low, high in zip(values, values[1:], strict=False):
            assert np.all(low <= high + rounding(log_w)), chain
    np.testing.assert_array_equal(value["cubo(2)"], value["renyi(-1)"])
    assert np.all(value["iwae"] >= value["vr_max"] - np.log(K) - rounding(log_w))


@pytest.mark.parametrize("name", MEANS)
@examples(max_examples=20)
@hypothesis.given(log_w=LOG_WEIGHTS, k=st.integers(0, K - 1), rise=st.integers(1, 800))
def test_a_greater_log_weight_never_lowers_a_mean(name, log_w, k, rise):
    raised = np.array(log_w)
    raised[k] += rise / 8
    low, high = evaluate(name, log_w)[0], evaluate(name, raised)[0]
    assert np.all(low <= high + rounding(raised))


# The order alpha, traced.


@functools.cache
def traced_renyi():
    def both(log_w, alpha):
        value = bounds.renyi(log_w, alpha)
        by_alpha = jax.jvp(lambda a: bounds.renyi(log_w, a), (alpha,), (jnp.ones_like(alpha),))[1]
        return value, jax.grad(lambda x: jnp.sum(bounds.renyi(x, alpha)))(log_w), by_alpha

    return jax.jit(both)


def renyi(log_w, alpha):
    """Value, v, and derivative by alpha, of a traced alpha in float32."""
    return tuple(map(np.asarray, traced_renyi()(jnp.float32(log_w), jnp.float32(alpha))))


ORDERS = st.one_of(
    st.floats(-4, 5, width=32),
    st.integers(-100, 100).map(lambda n: 1 + n * 2.0**-23),
    st.sampled_from([0.0, 1.0, 2.0, -1.0]),
)


@examples(max_examples=100)
@hypothesis.given(log_w=LOG_WEIGHTS, one=ORDERS, other=ORDERS)
def test_renyi_falls_as_a_traced_alpha_grows(log_w, one, other):
    low, high = sorted(map(np.float32, (one, other)))
    upper, lower = renyi(log_w, low), renyi(log_w, high)
    # Where weights are zero, log(n / K) / (1 - alpha) has digits of its own size.
    size = [np.max(np.abs(x), initial=1, where=np.isfinite(x)) for x in (upper[0], lower[0], log_w)]
    assert np.all(upper[0] >= lower[0] - 8 * EPS * max(size))
    for value, v, _ in (upper, lower):
        assert np.all(value <= np.max(log_w, axis=0) + rounding(log_w))
        assert np.all(v >= 0) and np.all(np.abs(np.sum(v, axis=0) - 1) <= 32 * EPS)


def test_a_traced_alpha_near_1_agrees_with_its_limit():
    log_w = random_log_w(shape=(K, 4))
    mean, spread = np.mean(log_w, axis=0), np.ptp(log_w, axis=0)
    for power in range(6, 24):
        for alpha in (1 - 2.0**-power, 1 + 2.0**-power):
            value, v, by_alpha = renyi(log_w, alpha)
            # A cumulant function's second derivative is at most a quarter of the squared range.
            bias = 2.0**-power * spread**2 / 8
            assert np.all(np.abs(value - mean) <= bias + 2 * np.spacing(np.float32(100)))
            assert np.all(np.abs(v - 1 / K) <= 2.0**-power * spread / K * 2 + 4 * EPS)
            assert np.all(np.isfinite(by_alpha))
    value, v, by_alpha = renyi(log_w, 1.0)
    np.testing.assert_allclose(value, mean, rtol=2e-7)
    np.testing.assert_allclose(v, 1 / K, rtol=1e-6)
    np.testing.assert_allclose(by_alpha, -np.var(log_w, axis=0) / 2, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1 - 1e-7, 1.0, 1 + 1e-7])
def test_a_given_alpha_near_1_agrees_with_its_limit_at_any_range(alpha):
    log_w = random_log_w(shape=(K, 4))
    log_w[:, 1] = [1e4, 0.0, -1e4, 1e4, -1e4, 1.0]
    value = jax.jit(lambda x: bounds.renyi(x, alpha))(jnp.float32(log_w))
    bias = 1e-7 * np.ptp(log_w, axis=0) ** 2 / 8
    error = np.abs(value - np.mean(log_w, axis=0))
    assert np.all(error <= bias + 4 * EPS * np.max(np.abs(log_w), axis=0))


# Limits.


@functools.cache
def limits():
    """Pairs of bounds that must be equal, and the log-weights."""
    log_w = random_log_w(shape=(K, 4))
    log_w[2, 1] = log_w[4, 1] = -np.inf
    pairs = {
        "renyi(0)": (lambda x: bounds.renyi(x, 0.0), bounds.iwae),
        "renyi(0), an integer": (lambda x: bounds.renyi(x, 0), bounds.iwae),
        "renyi(1)": (lambda x: bounds.renyi(x, 1), bounds.elbo),
        "renyi(-inf)": (lambda x: bounds.renyi(x, -float("inf")), lambda x: jnp.max(x, 0)),
        "renyi(inf)": (lambda x: bounds.renyi(x, float("inf")), lambda x: jnp.min(x, 0)),
        "ciwae(0)": (lambda x: bounds.ciwae(x, 0.0), bounds.iwae),
        "ciwae(1)": (lambda x: bounds.ciwae(x, 1.0), bounds.elbo),
        "cubo(1)": (lambda x: bounds.cubo(x, 1.0), bounds.iwae),
        "cubo(3)": (lambda x: bounds.cubo(x, 3.0), lambda x: bounds.renyi(x, -2.0)),
        "tvo(1)": (lambda x: bounds.tvo(x, 1), bounds.elbo),
        "tvo(2)": (lambda x: bounds.tvo(x, 2), lambda x: bounds.tvo(x, (0, 0.5, 1))),
        "jackknife(0)": (lambda x: bounds.jackknife(x, 0), bounds.iwae),
        "miwae(1)": (lambda x: bounds.miwae(x, 1), bounds.iwae),
        "miwae(K)": (lambda x: bounds.miwae(x, K), bounds.elbo),
        # L_1 + (L_2 - L_1) of two draws.
        "sumo(1)": (lambda x: bounds.sumo(x, 1), lambda x: bounds.iwae(x[:2])),
        "sumo(0)": (lambda x: bounds.sumo(x, 0), lambda x: x[0]),
    }
    run = jax.jit(lambda x: {name: (one(x), other(x)) for name, (one, other) in pairs.items()})
    return run(jnp.float32(log_w))


def test_limits():
    for name, (value, expected) in limits().items():
        assert value.shape == (4,), name
        np.testing.assert_allclose(value, expected, rtol=3e-7, err_msg=name)


def test_limits_that_are_approached():
    log_w = random_log_w(shape=(K, 4))
    orders = jnp.float32([-100.0, -1000.0])
    by_alpha = jax.jit(jax.vmap(bounds.renyi, (None, 0)))(jnp.float32(log_w), orders)
    for alpha, value in zip(orders, by_alpha, strict=True):
        gap = np.max(log_w, axis=0) - value  # log K / (1 - alpha) at most
        assert np.all(gap >= -1e-5) and np.all(gap <= np.log(K) / (1 - alpha) + 1e-5)
    steps = 16
    tvo = jax.jit(lambda x: bounds.tvo(x, steps))(jnp.float32(log_w))
    iwae = logsumexp(log_w, axis=0) - np.log(K)
    weights = np.exp(log_w - logsumexp(log_w, axis=0))
    # A left Riemann sum of a rising integrand misses at most its rise times a step.
    rise = np.sum(weights * log_w, axis=0) - np.mean(log_w, axis=0)
    assert np.all(tvo <= iwae + 1e-5) and np.all(tvo >= iwae - rise / steps - 1e-5)


# Expectations, for a linear-Gaussian model with one latent dimension.


@functools.cache
def model():
    """Parameters, x, log p(x) and the ELBO in closed form; q is visibly wrong."""
    params = linear_gaussian.make_params(data_dim=2, latent_dim=1, seed=1)
    params = params._replace(c=params.c + 0.3, log_scale=params.log_scale + 0.2)
    x = np.array([0.5, -1.0])
    reconstruction, kl = linear_gaussian.reconstruction_and_kl(params, x)
    return params, x, linear_gaussian.log_px(params, x), reconstruction - kl


@functools.cache
def log_weights():
    params, x, _, _ = model()
    noise = np.random.default_rng(0).normal(size=(2**18, 1))
    z = params.a @ x + params.c + np.exp(params.log_scale) * noise
    return linear_gaussian.log_weight(params, x, z)


def mean_and_error(bound, draws):
    """Mean of a bound of so many draws, and its standard error."""
    values = np.asarray(jax.jit(bound)(jnp.float32(log_weights().reshape(draws, -1))), np.float64)
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def test_cubo_lies_below_log_px_at_one_draw_and_above_it_at_many():
    params, x, log_px, elbo = model()
    population = log_px + np.log(linear_gaussian.relative_moment(params, x, 2)) / 2
    mean, error = mean_and_error(bounds.cubo, 1)
    assert abs(mean - elbo) < 4 * error and mean < log_px - 4 * error
    mean, error = mean_and_error(bounds.cubo, 4)
    assert mean < population - 4 * error
    mean, error = mean_and_error(bounds.cubo, 1024)
    # Relative Var(w^2) / (2 n K) below its population value, n = 2, but for terms of order K^-2.
    fourth, second = (linear_gaussian.relative_moment(params, x, n) for n in (4, 2))
    bias = (fourth / second**2 - 1) / (4 * 1024)
    assert abs(mean - (population - bias)) < 4 * error
    assert mean > log_px + 4 * error


@pytest.mark.parametrize("draws", [1, 8, 1024])
def test_renyi_of_positive_order_lies_below_log_px_at_every_k(draws):
    params, x, log_px, elbo = model()
    population = log_px + 2 * np.log(linear_gaussian.relative_moment(params, x, 0.5))
    assert elbo < population < log_px
    mean, error = mean_and_error(BOUNDS["renyi(.5)"], draws)
    assert mean < log_px - 4 * error
    if draws == 1:
        assert abs(mean - elbo) < 4 * error
    elif draws == 8:
        assert elbo + 4 * error < mean < population - 4 * error
    else:
        # As for CUBO, with n = 1/2; E[w / p(x)] = 1.
        bias = (1 / linear_gaussian.relative_moment(params, x, 0.5) ** 2 - 1) / draws
        assert abs(mean - (population - bias)) < 4 * error


def test_renyi_of_negative_order_bounds_nothing_at_small_k():
    _, _, log_px, _ = model()
    below, error = mean_and_error(BOUNDS["renyi(-1)"], 1)
    assert below < log_px - 4 * error
    above, error = mean_and_error(BOUNDS["renyi(-1)"], 64)
    assert above > log_px + 4 * error


@pytest.mark.parametrize("draws", [4, 8])
def test_the_jackknife_is_less_biased_than_iwae(draws):
    _, _, log_px, _ = model()
    iwae, iwae_error = mean_and_error(bounds.iwae, draws)
    jackknife, error = mean_and_error(bounds.jackknife, draws)
    assert log_px - iwae > abs(log_px - jackknife) + 4 * (error + iwae_error)


@pytest.mark.parametrize("draws", [4, 64])
def test_tvo_lies_between_the_elbo_and_log_px(draws):
    _, _, log_px, elbo = model()
    mean, error = mean_and_error(functools.partial(bounds.tvo, partition=PARTITION), draws)
    assert elbo + 4 * error < mean < log_px - 4 * error
