"""Logistic regression against scikit-learn, and the order and scale of a probe's examples."""

import numpy as np
import pytest
from scipy.special import log_softmax

from elbo_lab.evaluation import probes

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = RNG.normal(size=(60, 4)) + 0.8 * np.eye(3, 4)[Y]


@pytest.mark.parametrize("l2", [0.05, 3.0])
def test_a_fit_is_that_of_scikit_learn(l2):
    from sklearn.linear_model import LogisticRegression

    peer = LogisticRegression(C=1 / l2, tol=1e-9, max_iter=10_000).fit(X, Y)
    probe = probes.fit(X, Y, 3, l2, tolerance=1e-9)
    np.testing.assert_allclose(probe.weights, peer.coef_.T, atol=2e-5)
    # Both start at zero, and no step moves the biases' sum, on which the loss does not depend.
    np.testing.assert_allclose(probe.biases, peer.intercept_, atol=2e-5)
    assert probe.accuracy(X, Y) == pytest.approx(peer.score(X, Y))


def test_a_fit_is_a_minimum_also_without_examples_of_a_class():
    y = np.where(Y == 2, 3, Y)  # no example of class 2 of 4
    probe = probes.fit(X, y, 4, 0.5, tolerance=1e-7)

    def loss(weights: np.ndarray, biases: np.ndarray) -> float:
        log_p = log_softmax(X @ weights + biases, axis=1)
        return 0.25 * np.sum(weights**2) - np.sum(log_p[np.arange(60), y])

    least = loss(*probe)
    for _ in range(20):
        step = 1e-2 * RNG.normal(size=(5, 4))
        assert loss(probe.weights + step[:4], probe.biases + step[4]) > least - 1e-4
    assert not np.any(np.argmax(X @ probe.weights + probe.biases, axis=1) == 2)


def test_impossible_fits_are_refused():
    with pytest.raises(ValueError, match=r"l2 must be positive; got 0\."):
        probes.fit(X, Y, 3, 0)
    with pytest.raises(ValueError, match="the same length; got 60 and 59"):
        probes.fit(X, Y[1:], 3, 1.0)


def test_scaled_features_have_mean_zero_and_mean_square_one():
    train, test = probes.scaled(5 * X + 2, 5 * X[:7] + 2)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-12)
    assert np.mean(np.sum(train**2, axis=1)) == pytest.approx(1)
    np.testing.assert_allclose(test, train[:7])
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(train, centred / np.sqrt(np.sum(centred**2) / 60))
    np.testing.assert_array_equal(probes.scaled(np.ones((3, 2)))[0], np.zeros((3, 2)))


def test_every_start_of_the_order_is_balanced():
    y = np.repeat([0, 1, 2], [5, 20, 35])
    order = probes.balanced_order(y, np.random.default_rng(1))
    assert sorted(order) == list(range(60))
    for number in range(1, 16):  # then the first class is used up
        counts = np.bincount(y[order[:number]], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(y[order[:35]]).tolist() == [5, 15, 15]
    again = probes.balanced_order(y, np.random.default_rng(1))
    other = probes.balanced_order(y, np.random.default_rng(2))
    assert np.array_equal(order, again) and not np.array_equal(order, other)
