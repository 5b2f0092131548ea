"""Gradient statistics against NumPy on the same draws, and against closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from elbo_lab.evaluation.gradients import gradient_statistics
from elbo_lab.evaluation.gradients.gradient_statistics import Moments

SIZES = {"one": 4, "two": 3}
MEAN = {"one": np.array([0.5, -1.0, 0.0, 2.0]), "two": np.array([1.0, 0.0, -0.2])}


def unit_rows(size: int) -> np.ndarray:
    rows = np.random.default_rng(3).normal(size=(2, size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


DIRECTIONS = {name: unit_rows(size) for name, size in SIZES.items()}
# More than two chunks, and not a multiple of a chunk.
NUMBER = 2 * gradient_statistics.CHUNK + 57


def noise(key, name):
    group_key = jax.random.fold_in(key, list(SIZES).index(name))
    return MEAN[name] + jax.random.normal(group_key, (SIZES[name],))


def linear_loss(key, params, x):
    """A loss whose gradient is the noise, whatever the batch."""
    return sum(jnp.sum(noise(key, name) * params[name]) for name in SIZES) + 0 * x[:, 0]


@functools.cache
def drawn():
    """Moments by the library, and the gradients [N, P] in float64."""
    sampler = gradient_statistics.make_sampler(linear_loss, lambda tree: tree | {"empty": {}})
    params = {name: jnp.zeros(size) for name, size in SIZES.items()}
    seen = []
    moments = gradient_statistics.sample(
        sampler, jax.random.key(1), params, jnp.zeros((2, 1)), DIRECTIONS, NUMBER, seen.append
    )
    assert seen == [gradient_statistics.CHUNK, 2 * gradient_statistics.CHUNK, NUMBER]
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(NUMBER))
    values = {name: jax.vmap(functools.partial(noise, name=name))(keys) for name in SIZES}
    return moments, {name: np.asarray(value, np.float64) for name, value in values.items()}


def moments_of(values: np.ndarray, directions: np.ndarray) -> Moments:
    """The same moments by NumPy; values [N, P], directions [J, P]."""
    along = values @ directions.T
    part = along[:, :1] * directions[0]
    ratio = np.linalg.norm(part, axis=1) / np.linalg.norm(values - part, axis=1)

    def squares(v):
        return np.sum((v - v.mean(axis=0)) ** 2, axis=0)

    centred = along - along.mean(axis=0)
    return Moments(
        len(values),
        values.mean(axis=0),
        squares(values),
        along.mean(axis=0),
        centred.T @ centred,
        ratio.mean(),
        squares(ratio),
    )


@pytest.mark.parametrize("name", SIZES)
def test_streamed_moments_are_those_of_all_gradients(name):
    streamed, values = drawn()
    assert streamed.keys() == SIZES.keys()
    expected = moments_of(values[name], DIRECTIONS[name])
    for field, got, value in zip(Moments._fields, streamed[name], expected, strict=True):
        assert np.asarray(got).dtype == np.float64
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5, err_msg=field)


def test_moments_along_other_directions_are_not_merged():
    """By broadcasting, moments along one direction would count for each of four."""
    values = np.random.default_rng(0).normal(size=(20, 4))
    along_one, along_four = (moments_of(values, np.eye(4)[:j]) for j in (1, 4))
    with pytest.raises(AssertionError, match="shape"):
        gradient_statistics.merged(along_four, along_one)


def test_gradients_that_are_not_finite_are_not_averaged():
    def loss(key, params, x):
        return jnp.log(params["w"]) + 0 * x[:, 0] + 0 * jax.random.uniform(key)

    sampler = gradient_statistics.make_sampler(loss, lambda tree: tree)
    rows = {"w": np.ones((1, 1))}
    with pytest.raises(ArithmeticError, match="A gradient of w is not finite"):
        gradient_statistics.sample(
            sampler, jax.random.key(0), {"w": jnp.zeros(())}, jnp.zeros((2, 1)), rows, 5
        )


def test_snr_dsnr_variance_and_norm_by_their_definitions():
    values = np.random.default_rng(0).normal([3.0, -1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.0], (50, 4))
    statistics = gradient_statistics.describe(moments_of(values, np.eye(4)[:1]))
    moving = values[:, [0, 1, 3]]  # The third parameter's gradient is always zero.
    assert statistics.num_parameters == 3
    ratios = np.abs(moving.mean(axis=0)) / moving.std(axis=0, ddof=1)
    assert statistics.snr == pytest.approx(ratios.mean())
    across = np.linalg.norm(values[:, 1:], axis=1)
    ratios = np.abs(values[:, 0]) / across
    assert statistics.dsnr == pytest.approx(ratios.mean())
    assert statistics.dsnr_error == pytest.approx(ratios.std(ddof=1) / np.sqrt(50))
    assert statistics.variance == pytest.approx(np.trace(np.cov(moving.T)))
    assert statistics.norm == pytest.approx(np.linalg.norm(moving.mean(axis=0)))


def test_one_parameter_has_no_dsnr_and_gradients_of_zero_have_no_snr():
    single = np.random.default_rng(0).normal(1.0, 1.0, (20, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = gradient_statistics.describe(moments_of(single, np.ones((1, 1))))
        nothing = gradient_statistics.describe(moments_of(np.zeros((20, 3)), np.eye(3)[:1]))
    assert math.isnan(statistics.dsnr) and statistics.snr > 0
    assert nothing.num_parameters == 0 and math.isnan(nothing.snr) and nothing.variance == 0


def test_the_floor_is_the_snr_of_pure_noise():
    n, size = 100, 20_000
    values = np.random.default_rng(0).normal(size=(n, size))
    statistics = gradient_statistics.describe(moments_of(values, np.eye(1, size)))
    # |mean| / std is |t| / sqrt(n), t Student's of n - 1 degrees of freedom.
    error = np.sqrt(1 - 2 / np.pi) / np.sqrt(n * size)
    expected = stats.t(n - 1).expect(np.abs) / np.sqrt(n)
    assert statistics.snr == pytest.approx(expected, abs=4 * error)
    assert statistics.snr_floor == pytest.approx(expected, rel=0.01)


def test_dsnr_of_an_isotropic_gradient():
    size = 20
    values = np.random.default_rng(0).normal(size=(4000, size))
    statistics = gradient_statistics.describe(moments_of(values, np.eye(1, size)))
    # E|g_1| E[1 / chi_19], which are independent.
    log_gamma = math.lgamma((size - 2) / 2) - math.lgamma((size - 1) / 2)
    expected = math.sqrt(2 / math.pi) * math.exp(log_gamma) / math.sqrt(2)
    assert statistics.dsnr == pytest.approx(expected, abs=4 * statistics.dsnr_error)


def test_hotelling_by_its_formula():
    rng = np.random.default_rng(0)
    mixing, directions = rng.normal(size=(3, 3)), np.eye(3)
    values, oracle = rng.normal(size=(40, 3)) @ mixing, 0.2 + rng.normal(size=(90, 3)) @ mixing
    bias = gradient_statistics.bias_test(
        moments_of(values, directions), moments_of(oracle, directions), [0, 1, 2], 0.01
    )
    difference = values.mean(axis=0) - oracle.mean(axis=0)
    covariance = np.cov(values.T) / 40 + np.cov(oracle.T) / 90
    statistic = difference @ np.linalg.solve(covariance, difference)
    assert bias.p_value == pytest.approx(stats.f(3, 37).sf(statistic * 37 / (39 * 3)))
    length = np.linalg.norm(oracle.mean(axis=0))
    assert bias.along == pytest.approx(difference[0] / length)
    assert bias.along_error == pytest.approx(math.sqrt(covariance[0, 0]) / length)
    unbiased_square = difference @ difference - np.trace(covariance)
    assert bias.norm == pytest.approx(math.sqrt(max(0, unbiased_square)) / length)


def test_the_bias_test_of_one_parameter_is_a_t_test():
    rng = np.random.default_rng(0)
    values, oracle = rng.normal(size=(60, 1)), 0.4 + rng.normal(size=(60, 1))
    signs = np.array([[1.0], [-1.0], [0.0], [1.0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [moments_of(values, signs), moments_of(oracle, signs)]
    bias = gradient_statistics.bias_test(*parts, [0, 1, 2, 3], 0.01)
    error = math.sqrt(values.var(ddof=1) / 60 + oracle.var(ddof=1) / 60)
    t = (values.mean() - oracle.mean()) / error
    assert bias.p_value == pytest.approx(2 * stats.t(59).sf(abs(t)))


def test_gradients_without_noise_have_no_bias_to_find():
    nothing = moments_of(np.zeros((20, 2)) + [1.0, 2.0], np.eye(2))
    assert gradient_statistics.bias_test(nothing, nothing, [0, 1], 0.01).p_value == 1


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_bias_test_has_its_level_and_at_the_resolution_its_power(shift):
    """Rejects `level` of the tests without a bias, and 9 of 10 at the bias called resolution."""
    rng, level, repeats, n, rows = np.random.default_rng(0), 0.05, 2000, 5000, [0, 1, 2, 3]
    unit = Moments(n, np.ones(4), np.ones(4) * n, np.zeros(4), np.eye(4) * n, 0.0, 0.0)
    length = 2  # of the mean gradient, np.ones(4)
    resolution = gradient_statistics.bias_test(unit, unit, rows, level).resolution
    means = rng.normal(size=(2, repeats, 4)) / math.sqrt(n)
    means[0, :, 0] += shift * resolution * length
    rejected = [
        gradient_statistics.bias_test(
            unit._replace(along=a), unit._replace(along=b), rows, level
        ).p_value
        < level
        for a, b in zip(*means, strict=True)
    ]
    expected = gradient_statistics.POWER if shift else level
    error = math.sqrt(expected * (1 - expected) / repeats)
    assert np.mean(rejected) == pytest.approx(expected, abs=4 * error)


def test_directions_have_length_one_and_see_a_bias_where_noise_is_low():
    rng = np.random.default_rng(0)
    scales, bias = np.array([1.0, 1.0, 0.01, 0.0]), np.array([0.0, 0.0, 0.01, 0.0])
    plain = moments_of(rng.normal(0 * bias, scales, (500, 4)), np.eye(4)[:1])
    biased = moments_of(rng.normal(bias, scales, (500, 4)), np.eye(4)[:1])
    rows = gradient_statistics.bias_directions(plain, [(biased, plain), (plain, plain)], rng)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1)[[0, 1, 3, 4]], 1)
    np.testing.assert_array_equal(rows[2], 0)  # A pilot that found no difference at all.
    assert abs(rows[1, 2]) > 0.99
    assert gradient_statistics.rows_of(0, 2) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert gradient_statistics.rows_of(1, 2) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert len(rows) == gradient_statistics.num_directions(2) == 9


def test_times_are_taken_in_turn_and_are_medians(monkeypatch):
    clock, order = [0.0], []

    def call(name, seconds):
        def run(number):
            clock[0] += seconds[order.count(name)] * number
            order.append(name)

        return run

    monkeypatch.setattr(gradient_statistics.time, "perf_counter", lambda: clock[0])
    calls = {"a": call("a", [9.0, 1.0, 2.0]), "b": call("b", [3.0, 3.0, 3.0])}
    seconds_per_gradient = gradient_statistics.seconds_each(calls, {"a": 10, "b": 2}, 3)
    assert order == ["a", "b"] * 3
    assert seconds_per_gradient == {"a": pytest.approx(2.0), "b": pytest.approx(3.0)}


def test_slope_of_a_power_law():
    xs = [1, 4, 16]
    assert gradient_statistics.slope(xs, [3 * x**-0.5 for x in xs]) == pytest.approx(-0.5)
    assert math.isnan(gradient_statistics.slope([1], [2.0]))
