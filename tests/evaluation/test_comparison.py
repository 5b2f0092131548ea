"""Differences of configurations, against scipy.stats."""

import math

import numpy as np
import pytest
from scipy import stats

from elbo_lab.evaluation import comparison


def replicates(rng, seeds, shift=0.0, images=40) -> dict[int, np.ndarray]:
    centres = rng.normal(size=len(seeds))
    return {s: shift + centres[i] + rng.normal(size=images) for i, s in enumerate(seeds)}


def means(values, seeds=None):
    return [np.mean(values[s]) for s in (sorted(values) if seeds is None else seeds)]


def assert_interval(difference, interval):
    np.testing.assert_allclose((difference.low, difference.high), interval, rtol=1e-10)


def test_common_seeds_are_paired():
    rng = np.random.default_rng(0)
    a, b = replicates(rng, range(5), 1.0), replicates(rng, range(5))
    difference = comparison.difference(a, b)
    expected = stats.ttest_rel(means(a), means(b)).confidence_interval(0.95)
    assert_interval(difference, expected)
    assert (difference.kind, difference.count, difference.degrees) == (comparison.PAIRED, 5, 4)
    assert math.isclose(difference.mean, np.mean(means(a)) - np.mean(means(b)))


def test_only_common_seeds_are_paired_where_a_replicate_failed():
    rng = np.random.default_rng(1)
    a, b = replicates(rng, [0, 2, 3, 4]), replicates(rng, [0, 1, 2, 3])
    common = [0, 2, 3]
    expected = stats.ttest_rel(means(a, common), means(b, common)).confidence_interval(0.9)
    difference = comparison.difference(a, b, level=0.9)
    assert_interval(difference, expected)
    assert difference.count == 3


def test_other_seeds_are_compared_by_welch():
    rng = np.random.default_rng(2)
    a, b = replicates(rng, [0, 1, 2]), replicates(rng, [7, 8, 9, 10, 11], 2.0)
    t = stats.ttest_ind(means(a), means(b), equal_var=False)
    difference = comparison.difference(a, b)
    assert_interval(difference, t.confidence_interval(0.95))
    assert math.isclose(difference.degrees, t.df, rel_tol=1e-10)
    assert difference.kind == comparison.WELCH


@pytest.mark.parametrize("seeds", [([3], [3]), ([3], [4]), ([3], [3, 5])])
def test_one_replicate_is_compared_image_by_image(seeds):
    rng = np.random.default_rng(3)
    a, b = (replicates(rng, s) for s in seeds)
    difference = comparison.difference(a, b)
    baseline = b[seeds[1][0]]
    expected = stats.ttest_rel(a[3], baseline).confidence_interval(0.95)
    assert_interval(difference, expected)
    assert (difference.kind, difference.count) == (comparison.IMAGES, 40)


def test_the_interval_holds_as_often_as_it_says():
    """95% of 400 repeats with three replicates, within four standard errors of a proportion."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(400):
        a, b = replicates(rng, range(3), 0.5, 10), replicates(rng, range(3), 0.0, 10)
        difference = comparison.difference(a, b)
        held += difference.low <= 0.5 <= difference.high
    assert abs(held / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


def test_a_cell_does_not_differ_from_itself():
    a = replicates(np.random.default_rng(5), range(3))
    assert comparison.difference(a, a)[:4] == (0.0, 0.0, 0.0, 0.0)
    constant = {0: np.ones(4), 1: np.ones(4)}
    difference = comparison.difference(constant, {2: np.zeros(4), 3: np.zeros(4)})
    assert (difference.mean, difference.low, difference.high) == (1.0, 1.0, 1.0)


def test_mean_and_error():
    rng = np.random.default_rng(6)
    a = replicates(rng, range(4))
    mean, error, over = comparison.mean_and_error(a)
    assert math.isclose(mean, np.mean(means(a)))
    assert math.isclose(error, stats.sem(means(a)))
    assert over == "replicates"
    mean, error, over = comparison.mean_and_error({9: a[0]})
    assert math.isclose(error, stats.sem(a[0]))
    assert over == "images"
    assert comparison.mean_and_error({0: np.ones(1)}) == (1.0, None, None)


def test_sides_that_cannot_be_compared_are_refused():
    for values, baseline in [({}, {0: np.ones(2)}), ({0: np.ones(3)}, {0: np.ones(2)})]:
        with pytest.raises(ValueError, match="equally many"):
            comparison.difference(values, baseline)
    with pytest.raises(ValueError, match="no spread"):
        comparison.difference({0: np.ones(1)}, {0: np.zeros(1)})


def test_every_kind_says_what_it_does_not_cover():
    assert set(comparison.COVERS) == {comparison.PAIRED, comparison.WELCH, comparison.IMAGES}
    assert all("does not cover" in text for text in comparison.COVERS.values())
