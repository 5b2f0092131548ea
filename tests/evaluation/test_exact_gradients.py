"""Estimators whose noise and bias are known, compared with an exact gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.evaluation.gradients import exact_gradients
from elbo_lab.evaluation.gradients.exact_gradients import Estimator

pytestmark = pytest.mark.usefixtures("fast_compilation")

EXACT = np.array([3.0, -1.0, 2.0, 0.5])
SHIFT = np.array([0.2, 0.6, 0.0, 0.0])  # across EXACT
DEVIATION, NUMBER = 2.0, 2000
X = jnp.ones((5, 2))


def groups(tree):
    return {"inference": tree["encoder"]}


def estimator(shift, deviation):
    """The gradient by the encoder is EXACT + shift + deviation * noise."""

    def loss_fn(key, params, x):
        noise = deviation * jax.random.normal(key, EXACT.shape)
        direction = jnp.asarray(EXACT + shift, jnp.float32) + noise
        return jnp.ones(len(x)) * (params["encoder"]["w"] @ direction + jnp.sum(params["other"]))

    return Estimator(loss_fn, {"encoder": {"w": jnp.zeros(4)}, "other": jnp.zeros(3)})


def test_variance_and_bias_are_relative_to_the_exact_gradient():
    exact = exact_gradients.exact_gradient(estimator(0.0, 0.0), X, groups)
    np.testing.assert_allclose(exact, EXACT, rtol=1e-6)
    estimators = {"unbiased": estimator(0.0, DEVIATION), "biased": estimator(SHIFT, DEVIATION / 4)}
    qualities = exact_gradients.compare(estimators, exact, X, groups, NUMBER)
    squares = EXACT @ EXACT
    # The standard error of a variance of n numbers is sqrt(2 / n) of it; over four coordinates half
    # of that.
    tolerance = 4 * np.sqrt(2 / NUMBER) / 2
    unbiased, biased = qualities["unbiased"], qualities["biased"]
    assert unbiased.variance == pytest.approx(4 * DEVIATION**2 / squares, rel=tolerance)
    assert biased.variance == pytest.approx(DEVIATION**2 / 4 / squares, rel=tolerance)
    assert not unbiased.is_biased and biased.is_biased
    mean = EXACT + SHIFT
    error = DEVIATION / 4 / np.sqrt(NUMBER * squares)  # of each coordinate, relative
    assert biased.bias == pytest.approx(np.linalg.norm(SHIFT) / np.sqrt(squares), abs=4 * error)
    cosine = mean @ EXACT / np.linalg.norm(mean) / np.sqrt(squares)
    assert biased.cosine == pytest.approx(cosine, abs=4 * error)
    assert 0 < biased.resolution < unbiased.resolution


def test_an_estimator_without_noise_has_no_variance_and_no_bias():
    exact = exact_gradients.exact_gradient(estimator(0.0, 0.0), X, groups)
    (quality,) = exact_gradients.compare({"e": estimator(0.0, 0.0)}, exact, X, groups, 20).values()
    assert quality.variance == quality.bias == 0 and not quality.is_biased
    assert quality.cosine == pytest.approx(1)


def test_a_rare_event_that_no_draw_contains_is_no_bias():
    """A coordinate of gradient 1e-6 on average, by 0.1 with probability 1e-5, beside noise of 1e-9.

    Without the event its mean is thousands of standard errors away from 1e-6.
    """

    def loss_fn(key, params, x):
        noise_key, event_key = jax.random.split(key)
        noise = DEVIATION * jax.random.normal(noise_key, EXACT.shape)
        event = 0.1 * (jax.random.uniform(event_key) < 1e-5)
        rare = (event + 1e-9 * noise[0]).astype(jnp.float32)
        gradient = jnp.append(jnp.asarray(EXACT, jnp.float32) + noise, rare)
        return jnp.ones(len(x)) * (params["encoder"]["w"] @ gradient)

    rare = Estimator(loss_fn, {"encoder": {"w": jnp.zeros(5)}})
    exact = np.append(EXACT, 1e-6)
    (quality,) = exact_gradients.compare({"rare": rare}, exact, X, groups, NUMBER).values()
    assert not quality.is_biased
