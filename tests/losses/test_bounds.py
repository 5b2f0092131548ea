"""Every bound as a function of log-weights: values and derivatives against NumPy float64 and
mpmath, and what transformations, precisions and degenerate log-weights leave of them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_bounds
import pytest
from conformance_vectors import check, read
from every_bound import (
    BOUNDS,
    COLUMNS,
    DISTINCT,
    PARAMETERS,
    VALUES,
    K,
    M,
    all_of,
    evaluate,
    random_log_w,
)
from scipy.special import logsumexp, softmax

from elbo_lab.losses import bounds, estimators

pytestmark = pytest.mark.usefixtures("fast_compilation")

MIWAE = jax.jit(bounds.miwae, static_argnames="num_outer")

# Of hundreds of operations.
LONG = ["jackknife(1)", "sumo"]

every_bound = pytest.mark.parametrize("name", BOUNDS)


@pytest.fixture(autouse=True)
def ranks_are_never_promoted():
    with jax.numpy_rank_promotion("raise"):
        yield


def float32(values) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


# Values near 90 nats carry rounding errors of a few units in the last place, 7.6e-6 each.
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=4e-5)


@every_bound
def test_equals_float64_formula(name):
    log_w = random_log_w()
    close(evaluate(name, log_w)[0], VALUES[name](log_w))


@every_bound
def test_derivatives_equal_float64_formula(name):
    log_w = random_log_w(seed=3, shape=(K,)) + 90
    _, v, path = evaluate(name, log_w)
    exact = numpy_bounds.gradient(VALUES[name], log_w)
    np.testing.assert_allclose(v, exact, rtol=5e-6, atol=2e-5)
    hessian = numpy_bounds.diagonal_hessian(VALUES[name], log_w)
    np.testing.assert_allclose(path, exact - hessian, rtol=5e-6, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in BOUNDS if name != "sumo"])
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


@pytest.mark.parametrize("name", DISTINCT)
def test_transformations_change_nothing(name):
    """No batch, two batch dimensions, a batch by vmap; forward mode."""
    bound, log_w = BOUNDS[name], random_log_w(shape=(K, 4))

    def twice(log_w):
        value = bound(log_w)
        return value, value

    @jax.jit
    def transformed(log_w):
        forward, alone = jax.jacfwd(twice, has_aux=True)(log_w[:, 0])
        return alone, bound(log_w.reshape(K, 2, 2)), jax.vmap(bound, in_axes=1)(log_w), forward

    value, v, _ = evaluate(name, log_w)
    alone, folded, mapped, forward = transformed(float32(log_w))
    assert folded.shape == (2, 2)
    for other, same in ((alone, value[0]), (folded.ravel(), value), (mapped, value)):
        close(other, same)
    np.testing.assert_allclose(forward, v[:, 0], rtol=1e-5, atol=1e-5)


def test_jit_changes_nothing():
    """Without it, each operation is compiled on its own."""
    log_w = random_log_w(shape=(K, 4))
    for name in DISTINCT:
        if name not in LONG:
            close(BOUNDS[name](float32(log_w)), evaluate(name, log_w)[0], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_jit_changes_nothing_of_long_programs(name):
    log_w = random_log_w(shape=(K, 4))
    close(BOUNDS[name](float32(log_w)), evaluate(name, log_w)[0])


@every_bound
def test_constant_log_weights_give_the_constant(name):
    constants = np.array([0.0, -87.5, 1e4, -1e4])
    value, v, _ = evaluate(name, np.tile(constants, (K, 1)))
    # Two roundings to float32, half a unit in the last place each; the jackknife's of its terms.
    np.testing.assert_allclose(value, constants, rtol=2.4e-7, atol=4e-6)
    np.testing.assert_allclose(np.sum(v, axis=0), 1, rtol=1e-5)
    if name != "sumo":  # It takes the draws in turn.
        np.testing.assert_allclose(v, 1 / K, rtol=2e-5)


@every_bound
def test_permutation_invariance(name):
    log_w = random_log_w()
    rng = np.random.default_rng(1)
    if name == "miwae":  # Within each group, and of whole groups.
        groups = np.split(log_w, M)[::-1]
        permuted = np.concatenate([rng.permutation(group, axis=0) for group in groups])
    elif name == "sumo":  # Of the draws that one term adds, and of those that none does.
        permuted = log_w[[1, 0, 2, 5, 3, 4]]
        assert np.all(np.abs(evaluate(name, log_w[::-1])[0] - evaluate(name, log_w)[0]) > 1e-3)
    else:
        permuted = rng.permutation(log_w, axis=0)
    assert np.any(permuted != log_w)
    close(evaluate(name, permuted)[0], evaluate(name, log_w)[0])


@every_bound
@pytest.mark.parametrize("shift", [64.0, -512.0])
def test_shift_equivariance(name, shift):
    log_w = random_log_w()
    value, v, path = evaluate(name, log_w + shift)
    close(value, VALUES[name](log_w) + shift, atol=4e-5 * (1 + abs(shift) / 90))
    assert np.all(np.isfinite(v)) and np.all(np.isfinite(path))


def test_one_draw_makes_all_bounds_equal():
    able = {name: bound for name, bound in BOUNDS.items() if "jackknife" not in name}
    able["miwae"] = functools.partial(bounds.miwae, num_outer=1)
    able["jackknife(0)"] = functools.partial(bounds.jackknife, order=0)
    log_w = float32([[0.0, -90.25, 1e4, -1e4, -np.inf]])
    results = jax.jit(lambda log_w: {n: all_of(bound, log_w) for n, bound in able.items()})(log_w)
    for name, (value, v, path) in results.items():
        np.testing.assert_array_equal(value, log_w[0], err_msg=name)
        np.testing.assert_array_equal(v, np.ones((1, 5)), err_msg=name)
        np.testing.assert_array_equal(path, np.ones((1, 5)), err_msg=name)


@pytest.mark.parametrize("num_outer", [1, 2, 3, 4, 12])
def test_miwae_equals_float64_formula_for_each_division(num_outer):
    log_w = random_log_w(shape=(12, 5))
    grouped = log_w.reshape(num_outer, 12 // num_outer, 5)
    inner = logsumexp(grouped, axis=1) - np.log(12 // num_outer)
    close(MIWAE(float32(log_w), num_outer=num_outer), inner.mean(axis=0))


# Defects found in implementations in wide use.


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
def test_an_example_of_zero_weights_leaves_the_others_alone(name):
    log_w = random_log_w()
    log_w[:, 1] = -np.inf
    value, v, path = evaluate(name, log_w)
    assert value[1] == -np.inf
    others = np.delete(np.arange(COLUMNS), 1)
    for one, other in zip((value, v, path), evaluate(name, random_log_w()), strict=True):
        np.testing.assert_array_equal(one[..., others], other[..., others])


@every_bound
def test_nan_is_not_hidden(name):
    log_w = np.zeros((K, 3))
    log_w[1] = np.nan
    log_w[3:, 1] = -np.inf
    log_w[0, 2] = -np.inf
    assert np.all(np.isnan(evaluate(name, log_w)[0]))


# SUMO, of which conformance has no vectors: draws of zero weight before the first of positive.


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


# Precisions.


@pytest.mark.parametrize(
    "name, dtype", [(name, jnp.bfloat16) for name in DISTINCT] + [("iwae", jnp.float16)]
)
def test_half_precision_accumulates_in_float32(name, dtype):
    log_w = jnp.asarray(random_log_w(shape=(K, 5)), dtype)
    value = jax.jit(BOUNDS[name])(log_w)
    assert value.dtype == jnp.float32
    # Exact sums of the rounded inputs, not sums rounded to half precision (whose steps near 90
    # are 0.06 and 0.5 nats).
    close(value, VALUES[name](np.asarray(log_w, np.float64)))
    gradient = jax.eval_shape(functools.partial(estimators.derivative, BOUNDS[name]), log_w)
    assert gradient.dtype == dtype


def test_float64_stays():
    with jax.enable_x64(True):
        log_w = random_log_w()
        value = jax.jit(BOUNDS["sumo"])(jnp.asarray(log_w))  # The others: test_conformance.py.
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, VALUES["sumo"](log_w), rtol=1e-14)


# Errors.


@pytest.mark.parametrize("num_outer", [0, -1, -2, 4, 7])
def test_num_outer_must_divide_the_number_of_log_weights(num_outer):
    with pytest.raises(ValueError, match=rf"num_outer.* 6; got {num_outer}\."):
        bounds.miwae(jnp.zeros((6, 5)), num_outer=num_outer)


@pytest.mark.parametrize("order", [-1, 1.0, True, "1", None])
def test_the_jackknifes_order_is_an_integer(order):
    with pytest.raises(ValueError, match=f"order must be an integer of at least 0; got {order!r}"):
        bounds.jackknife(jnp.zeros((6, 5)), order=order)


@pytest.mark.parametrize("number", [1, 2])
def test_the_jackknife_needs_more_draws_than_its_order(number):
    with pytest.raises(ValueError, match=rf"below the number of log-weights, {number},.*got 2\."):
        bounds.jackknife(jnp.zeros((number, 5)), order=2)


@pytest.mark.parametrize(
    "partition", [0, -1, [], [0.0], [0.0, 0.5], [0.5, 1.0], [0, 0.5, 0.5, 1], [0, 0.7, 0.2, 1]]
)
def test_a_partition_rises_from_0_to_1(partition):
    with pytest.raises(ValueError, match="partition must be a number of steps .* rise from 0 to 1"):
        bounds.tvo(jnp.zeros((6, 5)), partition=partition)
