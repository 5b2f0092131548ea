"""Rates of codes: against tables counted by hand, and as priors that sum to one."""

import itertools
import math

import numpy as np
import pytest

from elbo_lab.evaluation.code_rates import Rates, rates


def test_the_rates_are_those_of_tables_counted_by_hand():
    train = np.array([[0, 1], [0, 0], [0, 2]])
    own = rates(train, np.array([[0, 2], [1, 0]]), 3)
    np.testing.assert_allclose(own.fixed, [2 * math.log(3)] * 2)
    # At position 0 code 0 occurs three times; at position 1 each code once. Each counts once more.
    np.testing.assert_allclose(own.by_position, -np.log([4 / 6 * 2 / 6, 1 / 6 * 2 / 6]))
    # Together: four times code 0, once 1, once 2.
    np.testing.assert_allclose(own.usage, -np.log([5 / 9 * 2 / 9, 2 / 9 * 5 / 9]))


@pytest.mark.parametrize("name", Rates._fields)
def test_each_rate_is_that_of_a_prior(name):
    train = np.random.default_rng(0).integers(0, 3, (20, 4)) * [1, 1, 0, 1]
    every = np.array(list(itertools.product(range(4), repeat=4)))  # code 3 never occurs
    assert np.sum(np.exp(-getattr(rates(train, every, 4), name))) == pytest.approx(1)
