"""Bayes' rule, calibration and confusion against closed forms and loops; classifiers of pixels."""

import numpy as np
import pytest
from scipy.special import expit, log_expit
from scipy.stats import multivariate_normal

from elbo_lab.errors import UserError
from elbo_lab.evaluation import classification, pixel_classifiers, scikit_learn


def test_bayes_rule_of_two_gaussians_is_a_logistic_function():
    """p(x|y) = N(m_y, S), p(y) = (0.3, 0.7):  p(1|x) = sigmoid(w x + b), w = S^-1 (m_1 - m_0)."""
    rng = np.random.default_rng(0)
    means, root = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    covariance, prior = root @ root.T + np.eye(3), np.array([0.3, 0.7])
    x = rng.normal(size=(50, 3))
    laws = [multivariate_normal(mean, covariance) for mean in means]
    log_px, log_posterior = classification.posterior(
        np.stack([law.logpdf(x) for law in laws], axis=1), prior
    )
    w = np.linalg.solve(covariance, means[1] - means[0])
    b = np.log(0.7 / 0.3) - w @ (means[0] + means[1]) / 2
    np.testing.assert_allclose(np.exp(log_posterior[:, 1]), expit(x @ w + b), rtol=1e-10)
    np.testing.assert_allclose(log_posterior[:, 0], log_expit(-(x @ w + b)), rtol=1e-10)
    density = prior[0] * laws[0].pdf(x) + prior[1] * laws[1].pdf(x)
    np.testing.assert_allclose(log_px, np.log(density), rtol=1e-10)
    # Likelihoods whose exponentials are 0 in float64.
    log_px, log_posterior = classification.posterior(np.array([[-2000.0, -2001.0]]), prior)
    np.testing.assert_allclose(log_posterior[0, 1], log_expit(np.log(7 / 3) - 1), rtol=1e-10)
    np.testing.assert_allclose(log_px, -2000 + np.log(0.3 + 0.7 * np.exp(-1)), rtol=1e-12)


def test_calibration_and_confusion_are_those_of_loops():
    rng = np.random.default_rng(1)
    probability = rng.dirichlet(np.full(4, 0.4), size=200)
    probability[0] = [1, 0, 0, 0]  # the end of the last bin
    label = np.array([rng.choice(4, p=row) for row in probability])
    curve = classification.calibration(probability, label, bins=5)
    bins: list[list[tuple]] = [[] for _ in range(5)]
    counts = np.zeros((4, 4), int)
    for row, y in zip(probability, label, strict=True):
        predicted = int(np.argmax(row))
        counts[y, predicted] += 1
        b = next(b for b in range(5) if max(row) < (b + 1) / 5 or b == 4)
        bins[b].append((max(row), predicted == y))
    full = [rows for rows in bins if rows]
    expected = [(*np.mean(rows, axis=0), len(rows)) for rows in full]
    np.testing.assert_allclose(np.transpose(curve[:3]), expected, rtol=1e-12)
    error = sum(n / 200 * abs(accuracy - confidence) for confidence, accuracy, n in expected)
    assert curve.error == pytest.approx(error, rel=1e-12)
    predicted = probability.argmax(axis=1)
    np.testing.assert_array_equal(classification.confusion(predicted, label, 4), counts)
    measured = classification.per_example(np.log(probability[1:]), label[1:])
    assert measured["accuracy"].mean() == pytest.approx(np.mean(predicted[1:] == label[1:]))
    chosen = [np.log(probability[n, label[n]]) for n in range(1, 200)]
    np.testing.assert_allclose(measured["log_py"], chosen)


def test_a_classifier_that_is_always_right_and_sure_has_no_calibration_error():
    label = np.arange(6) % 3
    curve = classification.calibration(np.eye(3)[label], label)
    assert (curve.error, curve.count.tolist()) == (0.0, [6])
    np.testing.assert_array_equal(classification.frequencies(label[:5], 4), [0.4, 0.4, 0.2, 0])


def test_naive_bayes_of_pixels_is_its_closed_form():
    rng = np.random.default_rng(2)
    label = np.arange(30) % 3
    x = (rng.random((30, 4)) < 0.2 + 0.2 * label[:, None]).astype(np.float32)
    x_test = rng.integers(0, 2, (7, 4)).astype(np.float32)
    found = pixel_classifiers.log_posteriors(x, label, x_test, 3)
    log_px_y = np.zeros((7, 3))
    for y in range(3):
        p = (x[label == y].sum(axis=0, dtype=float) + 1) / (10 + 2)  # Laplace's correction
        log_px_y[:, y] = np.log(np.where(x_test == 1, p, 1 - p)).sum(axis=1)
    _, expected = classification.posterior(log_px_y, np.full(3, 1 / 3))
    np.testing.assert_allclose(found[pixel_classifiers.NAIVE_BAYES], expected, rtol=1e-5)
    logistic = found[pixel_classifiers.LOGISTIC]
    np.testing.assert_allclose(np.exp(logistic).sum(axis=1), 1, rtol=1e-6)


def test_a_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setattr(scikit_learn.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "elbo_lab\[classification\]"'):
        scikit_learn.check_installed("--measures=classification")
