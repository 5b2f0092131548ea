"""Interpolated n-grams against the formula by loops; copies and distinct n-grams of small texts."""

import itertools

import numpy as np
import pytest

from elbo_lab.evaluation import ngrams, texts

LEVELS = 3
X = np.random.default_rng(0).integers(0, LEVELS, (12, 4)).astype(np.int32)


def probability(weights, x, token: int, context: tuple) -> float:
    """p_n(token | context) by the formula, counting anew; context: the n - 1 tokens before."""
    if not weights:
        return 1 / LEVELS
    length = len(weights) - 1
    context = context[len(context) - length :]
    windows = [
        tuple(row[t : t + length + 1])
        for row in np.pad(x, ((0, 0), (length, 0)), constant_values=-1).tolist()
        for t in range(x.shape[1])
    ]
    count = sum(window == (*context, token) for window in windows)
    total = sum(window[:-1] == context for window in windows)
    lower = probability(weights[:-1], x, token, context)
    return (count + weights[-1] * lower) / (total + weights[-1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_log_probabilities_are_those_of_the_formula_and_sum_to_one(order):
    model = ngrams.fit(X, LEVELS, order)
    every = np.array(list(itertools.product(range(LEVELS), repeat=4)), np.int32)
    log_p = ngrams.log_conditionals(model, every)
    np.testing.assert_allclose(np.exp(log_p.sum(axis=1)).sum(), 1, rtol=1e-12)
    for row, values in zip(every[::17], log_p[::17], strict=True):
        padded = (*(order - 1) * (-1,), *row.tolist())
        expected = [
            probability(model.weights, X, row[t], padded[t : t + order - 1]) for t in range(4)
        ]
        np.testing.assert_allclose(np.exp(values), expected, rtol=1e-12)
    context = (-1, -1, 1)[3 - (order - 1) :]
    expected = [probability(model.weights, X, token, context) for token in range(LEVELS)]
    np.testing.assert_allclose(ngrams.next_token(model, context), expected, rtol=1e-12)


def test_weights_are_chosen_by_the_last_tenth_of_the_texts():
    """A law that never varies wants weights of zero; fair dice want large ones."""
    rng = np.random.default_rng(1)
    fixed = np.tile([0, 1, 2, 0], (40, 1)).astype(np.int32)
    dice = rng.integers(0, LEVELS, (400, 4)).astype(np.int32)
    assert ngrams.fit(fixed, LEVELS).weights[1] == min(ngrams._GRID)
    assert ngrams.fit(dice, LEVELS).weights[2] > 10


def test_draws_have_the_probabilities_of_the_model():
    model = ngrams.fit(X, LEVELS, 2)
    x = ngrams.sample(model, np.random.default_rng(2), 6_000, 2)
    assert x.dtype == np.int32
    every = np.array(list(itertools.product(range(LEVELS), repeat=2)), np.int32)
    expected = np.exp(ngrams.log_conditionals(model, every).sum(axis=1))
    share = np.bincount(x @ [LEVELS, 1], minlength=9) / len(x)
    np.testing.assert_array_less(abs(share - expected), 4.5 * np.sqrt(expected / len(x)))


def test_copied_lines_and_distinct_grams_by_hand():
    train = np.array([[0, 1, 2, 3], [2, 2, 0, 1]], np.int32)
    x = np.array([[0, 1, 0, 1], [1, 1, 2, 3], [1, 2, 3, 0]], np.int32)
    np.testing.assert_array_equal(texts.copied_share(x, train, 2), [1, 0.5, 0])
    # Lines 01 01 11 23 12 30: six 2-grams, five of them different; twelve 1-grams, four different.
    assert texts.distinct_share(x, 2, 2) == 5 / 6 and texts.distinct_share(x, 2, 1) == 4 / 12
