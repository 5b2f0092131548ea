"""Gradient studies of a toy whose gradients are known, and the verdicts on all estimators."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from elbo_lab.evaluation.gradients import gradient_statistics, gradient_study
from elbo_lab.models import toys

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
    """Exact mean gradients of the loss at K = 1, the negative ELBO, in float64."""
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
    zeros = {name: np.zeros((1, len(mean))) for name, mean in exact.items()}
    key = jax.random.key(5)
    moments = gradient_statistics.sample(sampler, key, subject.params, subject.x, zeros, number)
    for name, mean in exact.items():
        error = np.sqrt(moments[name].gradient_squares / (number - 1) / number)
        # The largest of 400 normal errors is above 4 in one case of forty.
        assert np.max(np.abs(moments[name].gradient - mean) / error) < 4.5, name
    # The measured mean is normal about the exact one, so its absolute value is folded normal.
    ratios = exact["b"] / math.sqrt(STL_VARIANCE / len(subject.x))
    folded = stats.foldnorm(np.abs(ratios) * math.sqrt(number), scale=1 / math.sqrt(number)).mean()
    tolerance = 4 * np.linalg.norm(np.sqrt((1 + ratios**2 / 2) / number)) / len(ratios)
    assert gradient_statistics.describe(moments["b"]).snr == pytest.approx(
        folded.mean(), abs=tolerance
    )


# Draws are z = mean + s e, s^2 = 2/3. The derivative of log w by the mean is x + mu - 2 z for
# reparam, and x + mu - 2 z + (z - mean) / s^2 for stl, which holds q's parameters fixed. Their
# variances are 4 s^2 and (1/s^2 - 2)^2 s^2.
REPARAM_VARIANCE, STL_VARIANCE = 8 / 3, 1 / 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator, of_one_example",
    [("reparam", REPARAM_VARIANCE), ("stl", STL_VARIANCE), ("dreg", STL_VARIANCE)],
)
def test_variances_of_the_toy_are_the_exact_ones(estimator, of_one_example):
    statistics = iwae_rows()["b", estimator, 1, 1].statistics
    assert statistics.num_parameters == 20
    error = 4 * math.sqrt(2 / (20 * 299))
    assert statistics.variance == pytest.approx(20 * of_one_example / len(toy().x), rel=error)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["a", "b", "mu"])
def test_stl_is_found_biased_above_one_draw_and_unbiased_estimators_are_not(group):
    rows = {(name, k): row for (g, name, _, k), row in iwae_rows().items() if g == group}
    for name in ("reparam", "stl", "dreg"):
        assert rows[name, 1].verdict == "none found"
    assert rows["reparam", 4].verdict == rows["dreg", 4].verdict == "none found"
    # For the generation network stl is unbiased.
    is_inference = group != "mu"
    assert rows["stl", 4].verdict == ("biased" if is_inference else "none found")
    assert (rows["stl", 4].bias.p_value < 1e-20) == is_inference
    assert (rows["stl", 4].oracle, rows["dreg", 4].oracle) == ("dreg", "reparam")
    for row in rows.values():
        assert row.seconds > 0
        assert row.efficiency == row.statistics.snr**2 / row.seconds


@pytest.mark.slow
def test_slopes_are_of_points_above_the_noise():
    rows = list(iwae_rows().values())
    snr = {(r.group, r.estimator, r.k): r.statistics.snr for r in rows}
    slopes = gradient_study.slopes(rows, "k")
    assert len(slopes) == 9
    for (group, name), slope in slopes.items():
        one, four = snr[group, name, 1], snr[group, name, 4]
        if min(one, four) < 3 * math.sqrt(2 / (math.pi * 300)):
            assert math.isnan(slope)
        else:
            assert slope == pytest.approx(math.log(four / one) / math.log(4))


@pytest.mark.slow
def test_the_verdict_on_wake_estimators_is_no_bound():
    rows = study_rows("iwae", ("wake", "wake_dreg"), ((1, 4),), 1000)
    for name in ("wake", "wake_dreg"):
        verdicts = {group: rows[group, name, 1, 4].verdict for group in ("a", "b", "mu")}
        assert verdicts == {"a": "no bound", "b": "no bound", "mu": "none found"}
    # Both estimate the same gradient, which differs significantly from the bound's.
    wake, wake_dreg = (rows["b", name, 1, 4].bias for name in ("wake", "wake_dreg"))
    error = math.hypot(wake.along_error, wake_dreg.along_error)
    assert wake.along == pytest.approx(wake_dreg.along, abs=4 * error)
    assert wake_dreg.along > 10 * wake_dreg.along_error


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
    """MIWAE's M repeats are independent: the variance is 1/M of that at M = 1."""
    rows = study_rows("miwae", ("dreg",), ((1, 2), (8, 2)), 300)
    for group, size in (("b", 20), ("mu", 20)):
        one, eight = (rows[group, "dreg", m, 2].statistics.variance for m in (1, 8))
        # The error for normal gradients of equal variance; those of b have slightly heavier tails.
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
