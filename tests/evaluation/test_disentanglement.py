"""Scores of disentanglement on codes whose scores are known."""

import itertools

import numpy as np
import pytest

from elbo_lab.evaluation import disentanglement

SIZES = (3, 4, 5)
# Every combination of the factors eight times: factors are exactly independent.
FACTORS = np.array(list(itertools.product(*map(range, SIZES)))).repeat(8, axis=0)
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(len(FACTORS), 1))


def codes_of(*columns):
    return np.stack(columns, axis=1).astype(float)


ONE_TO_ONE = codes_of(FACTORS[:, 2], -2.0 * FACTORS[:, 0], 3.0 + FACTORS[:, 1], 0 * FACTORS[:, 0])


def test_entropy_and_information_are_those_of_a_table():
    # Joint counts [[3, 1], [1, 3]] of eight examples.
    c = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    v = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    expected = 2 * (3 / 8) * np.log(3 / 8 / 0.25) + 2 * (1 / 8) * np.log(1 / 8 / 0.25)
    information = disentanglement.mutual_information(c[:, None], v[:, None])
    assert information == pytest.approx(np.array([[expected]]))
    assert disentanglement.entropy(c) == pytest.approx(np.log(2))


def test_bins_have_equal_width():
    codes = np.array([[-1.0, 7.0], [0.0, 7.0], [0.99, 7.0], [1.0, 7.0]])
    assert disentanglement.binned(codes, 4).T.tolist() == [[0, 2, 3, 3], [0, 0, 0, 0]]


def test_one_dimension_for_each_factor_scores_one():
    assert disentanglement.mig(ONE_TO_ONE, FACTORS) == pytest.approx(1.0)
    assert disentanglement.factor_vae(ONE_TO_ONE, FACTORS) == 1.0
    assert disentanglement.beta_vae(ONE_TO_ONE, FACTORS) == 1.0
    dci = disentanglement.dci(ONE_TO_ONE, FACTORS, ONE_TO_ONE, FACTORS)
    assert dci == pytest.approx((1.0, 1.0, 1.0))
    # The second best dimension is right as often as any constant answer, 1 / n_f.
    sap = disentanglement.sap(ONE_TO_ONE, FACTORS, ONE_TO_ONE, FACTORS)
    assert sap == pytest.approx(np.mean([1 - 1 / n for n in SIZES]))


def test_a_factor_in_two_dimensions_has_no_gap():
    codes = codes_of(*FACTORS.T, FACTORS[:, 2])
    assert disentanglement.mig(codes, FACTORS) == pytest.approx(2 / 3)
    sap = disentanglement.sap(codes, FACTORS, codes, FACTORS)
    assert sap == pytest.approx((1 - 1 / 3 + 1 - 1 / 4) / 3)


def test_rotated_codes_tell_everything_and_disentangle_nothing():
    factors = np.array(list(itertools.product(range(8), repeat=2)))
    a, b = factors.T - 3.5
    codes = codes_of(a + b, a - b)
    # Both dimensions have the same law with either factor.
    assert disentanglement.mig(codes, factors) == pytest.approx(0.0, abs=1e-12)
    d, c, informative = disentanglement.dci(codes, factors, codes, factors)
    assert d < 0.1 and c < 0.1
    assert disentanglement.factor_vae(np.repeat(codes, 8, 0), np.repeat(factors, 8, 0)) < 0.65


def test_codes_without_the_factors_have_hardly_a_gap():
    codes = RNG.normal(size=(len(FACTORS), 4))
    half = len(FACTORS) // 2
    order = RNG.permutation(len(FACTORS))
    train, test = order[:half], order[half:]
    sap = disentanglement.sap(codes[train], FACTORS[train], codes[test], FACTORS[test])
    assert sap < 0.1
    assert disentanglement.mig(codes, FACTORS) < 0.05


def test_codes_that_are_constant_score_nothing():
    codes = np.zeros((len(FACTORS), 2))
    assert disentanglement.mig(codes, FACTORS) == 0.0
    assert disentanglement.factor_vae(codes, FACTORS) == pytest.approx(1 / 3)
    d, c, _ = disentanglement.dci(codes, FACTORS, codes, FACTORS)
    assert (d, c) == (0.0, 0.0)


VOTES = 4000


def within_error_of(score, expected):
    """Whether a score is a probability within 4 standard errors: half of the votes are judged."""
    return abs(score - expected) < 4 * np.sqrt(expected * (1 - expected) / (VOTES / 2))


def test_codes_that_are_crossed_with_the_factors_are_at_chance():
    # The number of the repetition: its law is the same for every value of every factor.
    codes = codes_of(np.arange(len(FACTORS)) % 8)
    assert within_error_of(disentanglement.beta_vae(codes, FACTORS, votes=VOTES), 1 / 3)
    assert within_error_of(disentanglement.factor_vae(codes, FACTORS, votes=VOTES), 1 / 3)


def test_pairs_of_a_code_of_one_factor_tell_that_factor_and_guess_between_the_others():
    # The differences are 0 if the pairs share the factor, and of one law for the other two.
    score = disentanglement.beta_vae(codes_of(FACTORS[:, 1]), FACTORS, votes=VOTES)
    assert within_error_of(score, 1 / 3 + 2 / 3 * 1 / 2)


def test_votes_on_a_factor_without_a_dimension_are_lost():
    # Groups that share the last factor name either dimension; each is given its own factor.
    codes = codes_of(FACTORS[:, 0], 10.0 * FACTORS[:, 1])
    score = disentanglement.factor_vae(codes, FACTORS, votes=VOTES)
    assert within_error_of(score, 2 / 3)


def test_pairs_share_a_factor_and_each_has_its_own_value():
    # The scale of the noise is the first factor's value, 0, 1 or 2; E|n - n'| = 2 / sqrt(pi).
    codes = np.hstack([FACTORS, FACTORS[:, :1] * NOISE])
    means, shared = disentanglement.mean_differences(codes, FACTORS, seed=0, votes=300)
    assert set(shared) == {0, 1, 2}
    for f, size in enumerate(SIZES):
        assert np.all((means[:, f] == 0) == (shared == f))
        # |v - v'| of independent uniform values has the mean (n^2 - 1) / 3n.
        others = means[shared != f, f]
        error = others.std(ddof=1) / np.sqrt(len(others))
        assert others.mean() == pytest.approx((size**2 - 1) / (3 * size), abs=4 * error)
    # With one value for the whole group a third of these would be 0, and a third twice the mean.
    same = means[shared == 0, 3]
    full = np.mean(np.abs(NOISE - NOISE.T))
    assert np.all((same > 0.3 * full) & (same < 1.8 * full))


def test_dci_of_importances():
    importance = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    d, c = disentanglement.dci_of_importance(importance)
    # Dimension 1 serves one factor, with weight 3/5; dimension 2 both alike.
    assert d == pytest.approx(3 / 5)
    first = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(3)
    assert c == pytest.approx(4 / 5 * (1 - first) + 1 / 5)
