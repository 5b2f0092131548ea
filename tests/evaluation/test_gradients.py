"""Gradient statistics against NumPy on the very draws, and against closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from elbo_lab.evaluation.gradients import gradient_statistics, gradient_study
from elbo_lab.evaluation.gradients.gradient_statistics import Moments
from elbo_lab.models import toys

SIZES = {"one": 4, "two": 3}
MEAN = {"one": np.array([0.5, -1.0, 0.0, 2.0]), "two": np.array([1.0, 0.0, -0.2])}
DIRECTIONS = {name: np.random.default_rng(3).normal(size=(2, n)) for name, n in SIZES.items()}
DIRECTIONS = {n: d / np.linalg.norm(d, axis=1, keepdims=True) for n, d in DIRECTIONS.items()}
# More than two chunks, and not a multiple.
NUMBER = 2 * gradient_statistics.CHUNK + 57


def noise(key, name):
    which = list(SIZES).index(name)
    return MEAN[name] + jax.random.normal(jax.random.fold_in(key, which), (SIZES[name],))


def linear_loss(key, params, x):
    """Its gradient is the noise itself, whatever the batch."""
    return sum(jnp.sum(noise(key, name) * params[name]) for name in SIZES) + 0 * x[:, 0]


@functools.cache
def drawn():
    """Moments by the library, and the gradients [N, P] themselves in float64."""
    sampler = gradient_statistics.make_sampler(linear_loss, lambda tree: tree | {"empty": {}})
    params = {name: jnp.zeros(size) for name, size in SIZES.items()}
    seen = []
    found = gradient_statistics.sample(
        sampler, jax.random.key(1), params, jnp.zeros((2, 1)), DIRECTIONS, NUMBER, seen.append
    )
    assert seen == [gradient_statistics.CHUNK, 2 * gradient_statistics.CHUNK, NUMBER]
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(NUMBER))
    values = {name: jax.vmap(functools.partial(noise, name=name))(keys) for name in SIZES}
    return found, {name: np.asarray(value, np.float64) for name, value in values.items()}


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
    found, values = drawn()
    assert found.keys() == SIZES.keys()
    expected = moments_of(values[name], DIRECTIONS[name])
    for field, one, other in zip(Moments._fields, found[name], expected, strict=True):
        assert np.asarray(one).dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=field)


def test_moments_along_other_directions_are_not_merged():
    """Those along one direction would be taken for those along each of four."""
    values = np.random.default_rng(0).normal(size=(20, 4))
    one, four = (moments_of(values, np.eye(4)[:j]) for j in (1, 4))
    with pytest.raises(AssertionError, match="shape"):
        gradient_statistics.merged(four, one)


def test_gradients_that_are_not_finite_are_not_averaged():
    def loss(key, params, x):
        return jnp.log(params["w"]) + 0 * x[:, 0] + 0 * jax.random.uniform(key)

    sampler = gradient_statistics.make_sampler(loss, lambda tree: tree)
    rows = {"w": np.ones((1, 1))}
    with pytest.raises(ArithmeticError, match="A gradient of w is not finite"):
        gradient_statistics.sample(
            sampler, jax.random.key(0), {"w": jnp.zeros(())}, jnp.zeros((2, 1)), rows, 5
        )


def test_snr_and_its_relatives_by_their_definitions():
    values = np.random.default_rng(0).normal([3.0, -1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.0], (50, 4))
    found = gradient_statistics.describe(moments_of(values, np.eye(4)[:1]))
    moving = values[:, [0, 1, 3]]  # The third parameter's gradient is always zero.
    assert found.num_parameters == 3
    ratios = np.abs(moving.mean(axis=0)) / moving.std(axis=0, ddof=1)
    assert found.snr == pytest.approx(ratios.mean())
    across = np.linalg.norm(values[:, 1:], axis=1)
    ratios = np.abs(values[:, 0]) / across
    assert found.dsnr == pytest.approx(ratios.mean())
    assert found.dsnr_error == pytest.approx(ratios.std(ddof=1) / np.sqrt(50))
    assert found.variance == pytest.approx(np.trace(np.cov(moving.T)))
    assert found.norm == pytest.approx(np.linalg.norm(moving.mean(axis=0)))


def test_one_parameter_has_no_direction_and_no_gradient_no_snr():
    single = np.random.default_rng(0).normal(1.0, 1.0, (20, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = gradient_statistics.describe(moments_of(single, np.ones((1, 1))))
        nothing = gradient_statistics.describe(moments_of(np.zeros((20, 3)), np.eye(3)[:1]))
    assert math.isnan(found.dsnr) and found.snr > 0
    assert nothing.num_parameters == 0 and math.isnan(nothing.snr) and nothing.variance == 0


def test_the_floor_is_the_snr_of_pure_noise():
    n, size = 100, 20_000
    values = np.random.default_rng(0).normal(size=(n, size))
    found = gradient_statistics.describe(moments_of(values, np.eye(1, size)))
    # |mean| / std is |t| / sqrt(n), t Student's of n - 1 degrees of freedom.
    error = np.sqrt(1 - 2 / np.pi) / np.sqrt(n * size)
    expected = stats.t(n - 1).expect(np.abs) / np.sqrt(n)
    assert found.snr == pytest.approx(expected, abs=4 * error)
    assert found.snr_floor == pytest.approx(expected, rel=0.01)


def test_dsnr_of_an_isotropic_gradient():
    size = 20
    values = np.random.default_rng(0).normal(size=(4000, size))
    found = gradient_statistics.describe(moments_of(values, np.eye(1, size)))
    # E|g_1| E[1 / chi_19], which are independent.
    log_gamma = math.lgamma((size - 2) / 2) - math.lgamma((size - 1) / 2)
    expected = math.sqrt(2 / math.pi) * math.exp(log_gamma) / math.sqrt(2)
    assert found.dsnr == pytest.approx(expected, abs=4 * found.dsnr_error)


def test_hotelling_by_its_formula():
    rng = np.random.default_rng(0)
    mixing, directions = rng.normal(size=(3, 3)), np.eye(3)
    one, other = rng.normal(size=(40, 3)) @ mixing, 0.2 + rng.normal(size=(90, 3)) @ mixing
    found = gradient_statistics.bias_test(
        moments_of(one, directions), moments_of(other, directions), [0, 1, 2], 0.01
    )
    apart = one.mean(axis=0) - other.mean(axis=0)
    covariance = np.cov(one.T) / 40 + np.cov(other.T) / 90
    statistic = apart @ np.linalg.solve(covariance, apart)
    assert found.p_value == pytest.approx(stats.f(3, 37).sf(statistic * 37 / (39 * 3)))
    length = np.linalg.norm(other.mean(axis=0))
    assert found.along == pytest.approx(apart[0] / length)
    assert found.along_error == pytest.approx(math.sqrt(covariance[0, 0]) / length)
    unbiased_square = apart @ apart - np.trace(covariance)
    assert found.norm == pytest.approx(math.sqrt(max(0, unbiased_square)) / length)


def test_of_one_parameter_all_directions_are_one():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 1)), 0.4 + rng.normal(size=(60, 1))
    signs = np.array([[1.0], [-1.0], [0.0], [1.0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [moments_of(values, signs) for values in (one, other)]
    found = gradient_statistics.bias_test(*parts, [0, 1, 2, 3], 0.01)
    t = (one.mean() - other.mean()) / math.sqrt(one.var(ddof=1) / 60 + other.var(ddof=1) / 60)
    assert found.p_value == pytest.approx(2 * stats.t(59).sf(abs(t)))


def test_gradients_without_noise_have_no_bias_to_find():
    nothing = moments_of(np.zeros((20, 2)) + [1.0, 2.0], np.eye(2))
    assert gradient_statistics.bias_test(nothing, nothing, [0, 1], 0.01).p_value == 1


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_level_and_power_are_what_they_are_called(shift):
    """Rejects `level` of the tests without a bias, and 9 of 10 at the bias called resolution."""
    rng, level, repeats, n, rows = np.random.default_rng(0), 0.05, 2000, 5000, [0, 1, 2, 3]
    unit = Moments(n, np.ones(4), np.ones(4) * n, np.zeros(4), np.eye(4) * n, 0.0, 0.0)
    resolution = (
        gradient_statistics.bias_test(unit, unit, rows, level).resolution * 2
    )  # of length 2
    means = rng.normal(size=(2, repeats, 4)) / math.sqrt(n)
    means[0, :, 0] += shift * resolution
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
    plain, biased = (
        moments_of(rng.normal(shift, scales, (500, 4)), np.eye(4)[:1]) for shift in (0 * bias, bias)
    )
    rows = gradient_statistics.bias_directions(plain, [(biased, plain), (plain, plain)], rng)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1)[[0, 1, 3, 4]], 1)
    np.testing.assert_array_equal(rows[2], 0)  # A pilot that found no difference at all.
    assert abs(rows[1, 2]) > 0.99
    assert gradient_statistics.rows_of(0, 2) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert gradient_statistics.rows_of(1, 2) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert len(rows) == 9


def test_times_are_taken_in_turn_and_are_medians(monkeypatch):
    clock, order = [0.0], []

    def call(name, seconds):
        def run(number):
            order.append(name)
            clock[0] += seconds[sum(other == name for other in order) - 1] * number

        return run

    monkeypatch.setattr(gradient_statistics.time, "perf_counter", lambda: clock[0])
    calls = {"a": call("a", [9.0, 1.0, 2.0]), "b": call("b", [3.0, 3.0, 3.0])}
    found = gradient_statistics.seconds_each(calls, {"a": 10, "b": 2}, 3)
    assert order == ["a", "b"] * 3
    assert found == {"a": pytest.approx(2.0), "b": pytest.approx(3.0)}


def test_slope_of_a_power_law():
    xs = [1, 4, 16]
    assert gradient_statistics.slope(xs, [3 * x**-0.5 for x in xs]) == pytest.approx(-0.5)
    assert math.isnan(gradient_statistics.slope([1], [2.0]))


# The toy of Rainforth et al.


@functools.cache
def toy(examples: int = 16):
    made = toys.gaussian(0)
    x = jnp.asarray(made.x[:examples])
    return gradient_study.Subject(made.model, made.params, x, made.groups, made.inference)


@functools.cache
def study_rows(objective, estimators, cells, number):
    study = gradient_study.Study(objective, estimators, cells, number, 4 * number, 0, 1)
    gradient_study.check(study, toy())
    seen = []
    rows = [row for cell in gradient_study.measure(study, toy(), seen.append) for row in cell]
    assert sum(seen) == gradient_study.total_gradients(study)
    return {(row.group, row.estimator, row.m, row.k): row for row in rows}


def iwae_rows():
    return study_rows("iwae", ("reparam", "stl", "dreg"), ((1, 1), (1, 4)), 300)


def exact_elbo_gradients():
    """Means of the loss's gradients at K = 1, which is the ELBO, in float64."""
    subject = toy()
    a, b, mu, x = (
        np.asarray(leaf, np.float64)
        for leaf in (*subject.groups(subject.params).values(), subject.x)
    )
    mean = x @ a.T + b  # of q
    by_mean = x + mu - 2 * mean  # of log p(x|z) + log p(z) at z = mean; the entropy is constant
    ascent = {
        "a": by_mean.T @ x / len(x),
        "b": by_mean.mean(axis=0),
        "mu": (mean - mu).mean(axis=0),
    }
    return {name: -value.ravel() for name, value in ascent.items()}


def test_means_and_snr_of_the_toy_are_the_exact_ones():
    subject, number = toy(), 2000
    loss = gradient_study.make_loss(subject.model, "iwae", "stl", 1, 1)
    sampler = gradient_statistics.make_sampler(loss, subject.groups)
    exact = exact_elbo_gradients()
    nowhere = {name: np.zeros((1, len(mean))) for name, mean in exact.items()}
    key = jax.random.key(5)
    found = gradient_statistics.sample(sampler, key, subject.params, subject.x, nowhere, number)
    for name, mean in exact.items():
        error = np.sqrt(found[name].gradient_squares / (number - 1) / number)
        # The greatest of 400 normal errors is above 4 in one case of forty.
        assert np.max(np.abs(found[name].gradient - mean) / error) < 4.5, name
    # The measured mean is normal about the exact one, which folds where |.| is taken.
    ratios = exact["b"] / math.sqrt(STL_VARIANCE / len(subject.x))
    folded = stats.foldnorm(np.abs(ratios) * math.sqrt(number), scale=1 / math.sqrt(number)).mean()
    tolerance = 4 * np.linalg.norm(np.sqrt((1 + ratios**2 / 2) / number)) / len(ratios)
    assert gradient_statistics.describe(found["b"]).snr == pytest.approx(
        folded.mean(), abs=tolerance
    )


# Draws are z = mean + s e, s^2 = 2/3. By the mean, log w's slope through z is x + mu - 2 z, and
# x + mu - 2 z + (z - mean) / s^2 where q is held: variances 4 s^2 and (1/s^2 - 2)^2 s^2.
REPARAM_VARIANCE, STL_VARIANCE = 8 / 3, 1 / 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator, of_one_example",
    [("reparam", REPARAM_VARIANCE), ("stl", STL_VARIANCE), ("dreg", STL_VARIANCE)],
)
def test_variances_of_the_toy_are_the_exact_ones(estimator, of_one_example):
    found = iwae_rows()["b", estimator, 1, 1].statistics
    assert found.num_parameters == 20
    error = 4 * math.sqrt(2 / (20 * 299))
    assert found.variance == pytest.approx(20 * of_one_example / len(toy().x), rel=error)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["a", "b", "mu"])
def test_stl_is_found_biased_above_one_draw_and_unbiased_estimators_are_not(group):
    rows = {(name, k): row for (g, name, _, k), row in iwae_rows().items() if g == group}
    for name in ("reparam", "stl", "dreg"):
        assert rows[name, 1].verdict == "none found"
    assert rows["reparam", 4].verdict == rows["dreg", 4].verdict == "none found"
    # The generation network's gradient is that of the bound, whatever the estimator.
    of_q = group != "mu"
    assert rows["stl", 4].verdict == ("biased" if of_q else "none found")
    assert (rows["stl", 4].bias.p_value < 1e-20) == of_q
    assert (rows["stl", 4].oracle, rows["dreg", 4].oracle) == ("dreg", "reparam")
    for row in rows.values():
        assert row.seconds > 0
        assert row.efficiency == row.statistics.snr**2 / row.seconds


def test_slopes_are_of_points_above_the_noise():
    rows = list(iwae_rows().values())
    snr = {(r.group, r.estimator, r.k): r.statistics.snr for r in rows}
    found = gradient_study.slopes(rows, "k")
    assert len(found) == 9
    for (group, name), slope in found.items():
        one, four = snr[group, name, 1], snr[group, name, 4]
        if min(one, four) < 3 * math.sqrt(2 / (math.pi * 300)):
            assert math.isnan(slope)
        else:
            assert slope == pytest.approx(math.log(four / one) / math.log(4))


@pytest.mark.slow
def test_wake_estimators_are_said_to_follow_no_bound():
    rows = study_rows("iwae", ("wake", "wake_dreg"), ((1, 4),), 1000)
    for name in ("wake", "wake_dreg"):
        verdicts = {group: rows[group, name, 1, 4].verdict for group in ("a", "b", "mu")}
        assert verdicts == {"a": "no bound", "b": "no bound", "mu": "none found"}
    # Both estimate the same, at a distance from the bound's gradient that is no accident.
    one, other = (rows["b", name, 1, 4].bias for name in ("wake", "wake_dreg"))
    error = math.hypot(one.along_error, other.along_error)
    assert one.along == pytest.approx(other.along, abs=4 * error)
    assert other.along > 10 * other.along_error


def test_estimators_that_compare_draws_are_left_out_where_there_is_one():
    study = gradient_study.Study("iwae", ("vimco",), ((1, 1),), 20, 20)
    assert list(gradient_study.measure(study, toy())) == []
    assert gradient_study.total_gradients(study) == 0


def test_objectives_are_the_functions_of_log_weights():
    assert {"elbo", "iwae", "miwae", "piwae", "renyi", "cubo"} <= set(gradient_study.OBJECTIVES)
    assert not {"free_bits", "beta_tcvae", "wake_sleep", "rws"} & set(gradient_study.OBJECTIVES)


@pytest.mark.parametrize("objective", gradient_study.OBJECTIVES)
def test_every_objective_can_be_studied(objective):
    study = gradient_study.Study(objective, ("reparam",), ((1, 4),), 20, 20)
    gradient_study.check(study, toy())


@pytest.mark.slow
def test_repeats_divide_the_variance():
    """MIWAE's M repeats are independent: the variance is 1/M of one's, by any estimator."""
    rows = study_rows("miwae", ("dreg",), ((1, 2), (8, 2)), 300)
    for group, size in (("b", 20), ("mu", 20)):
        one, eight = (rows[group, "dreg", m, 2].statistics.variance for m in (1, 8))
        # By normal gradients of equal variance; those of b have slightly heavier tails.
        error = math.sqrt(2 * 2 / (size * 299))
        assert math.log(one / eight) == pytest.approx(math.log(8), abs=4 * error)


@pytest.mark.slow
def test_snr_rises_and_falls_with_k_as_rainforth_et_al_found():
    """Generation network: about K^(1/2). Inference network: about K^(-1/2) by reparam, no fall by
    dreg.
    """
    rows = study_rows("iwae", ("reparam", "dreg"), ((1, 4), (1, 16)), 1500)
    snr = {which: row.statistics.snr for which, row in rows.items()}
    for name in ("reparam", "dreg"):
        assert 1.7 < snr["mu", name, 1, 16] / snr["mu", name, 1, 4] < 2.3
    assert snr["b", "reparam", 1, 16] < 0.7 * snr["b", "reparam", 1, 4]
    assert snr["b", "dreg", 1, 16] > snr["b", "dreg", 1, 4] > 5 * snr["b", "reparam", 1, 4]
