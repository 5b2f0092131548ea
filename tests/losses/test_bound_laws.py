"""Laws of every bound: values, derivatives, order, symmetries and degenerate log-weights.

References are NumPy float64 and mpmath. Log-weights are like those of images, or any that
hypothesis draws.
"""

import functools
import itertools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from elbo_lab.losses import bounds
from tests.losses import numpy_bounds
from tests.losses.conformance_vectors import check, read
from tests.losses.every_bound import (
    AMPLIFICATION,
    BOUNDS,
    COLUMNS,
    MEANS,
    PARAMETERS,
    VALUES,
    K,
    M,
    close,
    evaluate,
    random_log_w,
)

pytestmark = pytest.mark.usefixtures("fast_compilation")

EPS = float(np.finfo(np.float32).eps)
every_bound = pytest.mark.parametrize("name", BOUNDS)


@every_bound
@pytest.mark.parametrize("shift", [0.0, 64.0, -512.0])
def test_equals_float64_formula(name, shift):
    """Adding a constant to all log-weights adds it to the bound."""
    log_w = random_log_w()
    value, v, path = evaluate(name, log_w + shift)
    close(value, VALUES[name](log_w) + shift, atol=4e-5 * (1 + abs(shift) / 90))
    assert np.all(np.isfinite(v)) and np.all(np.isfinite(path))


@every_bound
def test_derivatives_equal_float64_formula(name):
    log_w = random_log_w(seed=3, shape=(K,)) + 90
    _, v, path = evaluate(name, log_w)
    exact = numpy_bounds.gradient(VALUES[name], log_w)
    np.testing.assert_allclose(v, exact, rtol=5e-6, atol=2e-5)
    hessian = numpy_bounds.diagonal_hessian(VALUES[name], log_w)
    np.testing.assert_allclose(path, exact - hessian, rtol=5e-6, atol=2e-5)


@every_bound
def test_conformance_vectors_in_float32(name):
    function, parameters = PARAMETERS[name]
    if name == "vr_max":
        function, parameters = "renyi", {"alpha": -np.inf}
    vectors = [
        vector
        for vector in read(function)
        if vector["parameters"] == parameters and len(vector["log_weights"]) == K
    ]
    assert 15 < len(vectors) <= COLUMNS
    log_w = np.stack([vector["log_weights"] for vector in vectors], axis=1)
    value, v, path = evaluate(name, log_w)
    for i, vector in enumerate(vectors):
        check(function, vector, (value[i], v[:, i], path[:, i]), np.float32)


@every_bound
def test_constant_log_weights_give_the_constant(name):
    constants = np.array([0.0, -87.5, 1e4, -1e4])
    value, v, _ = evaluate(name, np.tile(constants, (K, 1)))
    # Two roundings to float32, half a unit in the last place each; the jackknife's of its terms.
    np.testing.assert_allclose(value, constants, rtol=2.4e-7, atol=4e-6)
    np.testing.assert_allclose(np.sum(v, axis=0), 1, rtol=1e-5)
    if name != "sumo":  # SUMO depends on the order of the draws.
        np.testing.assert_allclose(v, 1 / K, rtol=2e-5)


@every_bound
def test_permutation_invariance(name):
    log_w = random_log_w()
    rng = np.random.default_rng(1)
    if name == "miwae":  # Permute within each group, and the groups.
        groups = np.split(log_w, M)[::-1]
        permuted = np.concatenate([rng.permutation(group, axis=0) for group in groups])
    elif name == "sumo":  # Permute draws of the first term, and draws of no term.
        permuted = log_w[[1, 0, 2, 5, 3, 4]]
        assert np.all(np.abs(evaluate(name, log_w[::-1])[0] - evaluate(name, log_w)[0]) > 1e-3)
    else:
        permuted = rng.permutation(log_w, axis=0)
    assert np.any(permuted != log_w)
    close(evaluate(name, permuted)[0], evaluate(name, log_w)[0])


# Defects that implementations in wide use have.


def test_defect_1_iwae_is_not_the_weighted_mean_of_log_weights():
    log_w = random_log_w()
    value = evaluate("iwae", log_w)[0]
    wrong = np.sum(softmax(log_w, axis=0) * log_w, axis=0)
    # log-mean-exp = weighted mean + entropy of the weights - log K: lower by up to log K.
    entropy = -np.sum(softmax(log_w, axis=0) * np.log(softmax(log_w, axis=0)), axis=0)
    close(value, wrong + entropy - np.log(K))
    assert np.all(wrong - value > 0.1)


def test_defect_2_miwae_takes_the_logarithm_over_k_and_the_mean_over_m():
    # Groups (0, 0, log 4) and (log 9, log 9, 0), by hand: means of weights 2 and 19/3.
    weights = np.array([1, 1, 4, 9, 9, 1])
    expected = (np.log(6 / 3) + np.log(19 / 3)) / 2
    swapped = np.mean(np.log([(1 + 9) / 2, (1 + 9) / 2, (4 + 1) / 2]))
    assert abs(expected - swapped) > 0.05
    value = evaluate("miwae", np.log(weights))[0]
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["iwae", "renyi(.5)", "renyi(-1)", "cubo(2)", "vr_max"])
def test_defect_4_the_best_draw_weighs_most(name):
    _, v, _ = evaluate(name, [-95.0, -90.0, -100.0, -94.0, -96.0, -98.0])
    assert np.argmax(v) == 1 and v[2] == np.min(v)


# Degenerate log-weights; test_conformance.py has more of them.


def test_miwae_with_one_group_of_zero_weights():
    log_w = np.array([-np.inf] * (K // M) + [0.0, 1.0, 2.0])
    value, v, _ = evaluate("miwae", log_w)
    assert value == -np.inf
    expected = np.concatenate([np.full(K // M, M / K), softmax([0.0, 1.0, 2.0])]) / M
    np.testing.assert_allclose(v, expected, rtol=1e-5)


@every_bound
def test_an_example_of_zero_weights_does_not_change_the_others(name):
    log_w = random_log_w()
    log_w[:, 1] = -np.inf
    value, v, path = evaluate(name, log_w)
    assert value[1] == -np.inf
    unchanged = np.delete(np.arange(COLUMNS), 1)
    for result, expected in zip((value, v, path), evaluate(name, random_log_w()), strict=True):
        np.testing.assert_array_equal(result[..., unchanged], expected[..., unchanged])


@every_bound
def test_nan_is_not_hidden(name):
    log_w = np.zeros((K, 3))
    log_w[1] = np.nan
    log_w[3:, 1] = -np.inf
    log_w[0, 2] = -np.inf
    assert np.all(np.isnan(evaluate(name, log_w)[0]))


def test_means_of_both_infinities_are_nan():
    log_w = [np.inf, 0.0, 1.0, -np.inf, 2.0, 3.0]
    for name in ("elbo", "ciwae", "tvo"):
        assert np.isnan(evaluate(name, log_w)[0]), name
    for name in ("iwae", "jackknife(1)", "jackknife(2)", "sumo", "vr_max", "cubo(2)"):
        assert evaluate(name, log_w)[0] == np.inf, name
    for name in BOUNDS:
        assert np.all(np.isfinite(evaluate(name, log_w)[1:])), name


# SUMO: draws of zero weight before the first positive weight.


@pytest.mark.parametrize(
    "zeros, terms, expected",
    [
        # One zero: L_1's coefficient, 1 - 1 / P(terms >= 1), is zero.
        (1, 1, lambda two, three, four: two),
        (1, 2, lambda two, three, four: two + 2 * (three - two)),
        (1, 3, lambda two, three, four: two + 2 * (three - two) + 3 * (four - three)),
        (2, 1, lambda *_: -np.inf),
        (2, 2, lambda *_: np.inf),
        (3, 2, lambda *_: -np.inf),
        (3, 3, lambda *_: np.inf),
        (6, 2, lambda *_: -np.inf),
        (6, 100, lambda *_: -np.inf),
    ],
)
def test_sumo_with_leading_zero_weights(zeros, terms, expected):
    log_w = np.array([-90.0, -91.0, -89.0, -90.5, -93.0, -88.0])
    log_w[:zeros] = -np.inf
    value, v, path = evaluate("sumo", log_w, terms)
    two, three, four = (logsumexp(log_w[:k]) - np.log(k) for k in (2, 3, 4))
    np.testing.assert_allclose(value, expected(two, three, four), rtol=1e-6)
    np.testing.assert_allclose(np.sum(v), 1, rtol=1e-5)
    assert np.all(np.isfinite(path))


# Any log-weights.

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
    # All examples of a test may share the fixture of fast compilation.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def rounding(log_w, amplification=1):
    """A few units in the last place of the largest log-weight."""
    return 8 * EPS * amplification * np.max(np.abs(log_w), initial=1, where=np.isfinite(log_w))


@every_bound
@examples(max_examples=40)
@hypothesis.given(log_w=LOG_WEIGHTS)
def test_derivatives_are_finite_and_sum_to_one(name, log_w):
    value, v, path = evaluate(name, log_w)
    assert not np.any(np.isnan(value))
    assert np.all(np.isfinite(v)) and np.all(np.isfinite(path))
    # sum_k v_k = 1: f(log_w + c) = f(log_w) + c, differentiated by c.
    size = AMPLIFICATION.get(name, 1) + np.sum(np.abs(v), axis=0)
    tolerance = 32 * EPS * size
    assert np.all(np.abs(np.sum(v, axis=0) - 1) <= tolerance)
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
    # The derivatives depend on differences of log-weights, which are exact.
    np.testing.assert_array_equal(moved_v, v)
    np.testing.assert_array_equal(moved_path, path)


@examples(max_examples=60)
@hypothesis.given(log_w=LOG_WEIGHTS)
def test_order_on_the_same_log_weights(log_w):
    value = {name: evaluate(name, log_w)[0] for name in BOUNDS}
    value["least"] = np.min(log_w, axis=0)
    chains = [
        # Power means rise with the power 1 - alpha.
        ["least", "renyi(2)", "elbo", "renyi(.5)", "iwae", "renyi(-1)", "vr_max"],
        ["elbo", "miwae", "iwae"],
        ["elbo", "ciwae", "iwae"],
        # The thermodynamic integrand rises from E_q to E_p, and its integral is the IWAE bound.
        ["elbo", "tvo", "iwae"],
    ]
    for chain in chains:
        for low, high in itertools.pairwise(chain):
            assert np.all(value[low] <= value[high] + rounding(log_w)), (low, high)
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
    def value_and_derivatives(log_w, alpha):
        value = bounds.renyi(log_w, alpha)
        by_alpha = jax.jvp(lambda a: bounds.renyi(log_w, a), (alpha,), (jnp.ones_like(alpha),))[1]
        return value, jax.grad(lambda x: jnp.sum(bounds.renyi(x, alpha)))(log_w), by_alpha

    return jax.jit(value_and_derivatives)


def renyi(log_w, alpha):
    """Value, v, and derivative by alpha, for a traced alpha in float32."""
    return tuple(map(np.asarray, traced_renyi()(jnp.float32(log_w), jnp.float32(alpha))))


ORDERS = st.one_of(
    st.floats(-4, 5, width=32),
    st.integers(-100, 100).map(lambda n: 1 + n * 2.0**-23),
    st.sampled_from([0.0, 1.0, 2.0, -1.0]),
)


@examples(max_examples=100)
@hypothesis.given(log_w=LOG_WEIGHTS, alphas=st.tuples(ORDERS, ORDERS))
def test_renyi_falls_as_a_traced_alpha_grows(log_w, alphas):
    low, high = sorted(map(np.float32, alphas))
    upper, lower = renyi(log_w, low), renyi(log_w, high)
    # Where weights are zero, log(n / K) / (1 - alpha) may exceed the log-weights, and so may its
    # rounding.
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
