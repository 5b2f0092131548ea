"""log p(x|y) of every class: exact by PixelCNN and PixelRNN, and by importance sampling against
quadrature.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, logsumexp
from scipy.stats import norm

from elbo_lab import configs, methods
from elbo_lab.data import Batch, Spec
from elbo_lab.evaluation import classification
from elbo_lab.models import Given

pytestmark = pytest.mark.usefixtures("fast_compilation")

SPEC = Spec("image", (2, 2), 2, classes=3)
X = np.array(list(itertools.product((0, 1), repeat=4)), np.float32)  # all images
LABEL = np.arange(16) % 3
BATCH = Batch(jnp.asarray(X), jnp.asarray(LABEL))
PRIOR = np.array([0.5, 0.2, 0.3])


def made(**settings) -> tuple[methods.Method, dict]:
    """A method and its params, all drawn at random."""
    config = configs.make(**settings, condition="label")
    method, rng = methods.make(config, SPEC, 16), np.random.default_rng(0)
    shapes, _ = jax.eval_shape(method.init, jax.random.key(0), BATCH)
    return method, jax.tree.map(lambda p: rng.normal(0, 0.7, p.shape).astype(np.float32), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"model": "pixelcnn"}, {"model": "pixelrnn"}], ids=str)
def test_masses_of_a_conditional_density_sum_to_one_for_each_class_and_over_all(settings):
    method, params = made(**settings, width=4, layers=2, output_width=4, first_kernel_size=3)
    key = jax.random.key(1)
    measured = jax.jit(method.measure_classes)(key, params, (), BATCH)
    (name,) = measured
    assert name == "log_px_y"
    log_px_y = np.float64(measured[name])
    np.testing.assert_allclose(np.exp(log_px_y).sum(axis=0), 1, atol=1e-5)
    log_px, _ = classification.posterior(log_px_y, PRIOR)
    assert np.exp(log_px).sum() == pytest.approx(1, abs=1e-5)
    # The quantity of the run is that of each example's own class.
    own = jax.jit(method.measure)(key, params, (), BATCH)["log_px"]
    np.testing.assert_allclose(own, log_px_y[np.arange(16), LABEL], rtol=1e-5)
    # Draws of a class have its masses; those of another class have not.
    draws = method.sample(jax.random.key(2), params, (), 4000, Given(label=jnp.array(1)))
    index = np.asarray(draws).astype(int) @ [8, 4, 2, 1]
    frequency = np.bincount(index, minlength=16) / 4000
    mass = np.exp(log_px_y)
    error = 4.5 * np.sqrt(mass[:, 1] * (1 - mass[:, 1]) / 4000) + 2 / 4000
    assert np.all(np.abs(frequency - mass[:, 1]) < error)
    assert np.any(np.abs(frequency - mass[:, 0]) > error)
    # Labels one by one: each draw is of its own class.
    label = jnp.arange(30) % 3
    assert method.sample(jax.random.key(3), params, (), 30, Given(label=label)).shape == (30, 4)


def dense(layer: dict, values: np.ndarray) -> np.ndarray:
    return values @ np.float64(layer["kernel"]) + np.float64(layer["bias"])


def by_quadrature(params: dict, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x|y), [16, C], and the relative variance of a weight p(x, z|y) / q(z|x, y), by sums
    over a grid of z in float64.
    """
    z, step = np.linspace(-9, 9, 3601, retstep=True)
    log_px_y, variance = np.zeros((16, classes)), np.zeros((16, classes))
    network, decoder = params["encoder"]["layer_1"], params["decoder"]
    for y in range(classes):
        one_hot = np.eye(classes)[y]
        inputs = np.column_stack([X, np.tile(one_hot, (16, 1))])
        h = np.tanh(dense(network["trunk"]["hidden_0"], inputs))
        mean, scale = dense(network["mean"], h), np.exp(dense(network["scale"], h))
        inputs = np.column_stack([z, np.tile(one_hot, (len(z), 1))])
        h = np.tanh(dense(decoder["trunk"]["hidden_0"], inputs))
        logits = dense(decoder["logits"], h)  # [Z, 4]
        for n, x in enumerate(X):
            log_joint = norm.logpdf(z) + np.sum(log_expit((2 * x - 1) * logits), axis=1)
            log_px_y[n, y] = logsumexp(log_joint) + np.log(step)
            log_q = norm.logpdf(z, mean[n], scale[n])
            second = logsumexp(2 * log_joint - log_q) + np.log(step)
            variance[n, y] = np.exp(second - 2 * log_px_y[n, y]) - 1
    return log_px_y, variance


@pytest.mark.slow
def test_bounds_of_every_class_are_near_the_integral_over_z():
    draws = 4000
    method, params = made(latent_dims=(1,), hidden_dims=(5,), k=1, eval_k=draws)
    # A wide q(z|x, y), so that weights are bounded.
    head = params["encoder"]["layer_1"]["scale"]
    head["kernel"], head["bias"] = 0.1 * head["kernel"], np.full(1, 0.5, np.float32)
    expected, variance = by_quadrature(params, 3)
    assert variance.max() < 20
    measured = jax.jit(method.measure_classes)(jax.random.key(1), params, (), BATCH)
    (name,) = measured
    assert name == "log_likelihood_y"
    log_px_y = np.float64(measured[name])
    error = np.sqrt(variance / draws)
    assert np.all(np.abs(log_px_y - expected) < 5 * error + 1e-4)
    # p(x|y) sums to one over x, and so do p(x) and, in float64, both by quadrature.
    np.testing.assert_allclose(np.exp(expected).sum(axis=0), 1, rtol=1e-6)
    exact, _ = classification.posterior(expected, PRIOR)
    log_px, _ = classification.posterior(log_px_y, PRIOR)
    assert np.all(np.abs(log_px - exact) < 5 * error.max(axis=1) + 1e-4)
    assert np.exp(exact).sum() == pytest.approx(1, rel=1e-6)


@pytest.mark.slow
def test_few_draws_bound_log_px_from_below_in_expectation():
    """E log sum_y p(y) p_K(x|y) <= log p(x): Jensen's inequality for the sum over classes."""
    method, params = made(latent_dims=(1,), hidden_dims=(5,), k=1, eval_k=2)
    exact, _ = classification.posterior(by_quadrature(params, 3)[0], PRIOR)
    measure = jax.jit(method.measure_classes)
    estimates = []
    for key in jax.random.split(jax.random.key(2), 200):
        (log_px_y,) = measure(key, params, (), BATCH).values()
        estimates.append(classification.posterior(np.asarray(log_px_y), PRIOR)[0])
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / np.sqrt(200)
    assert np.all(mean < exact + 4 * error)
    assert np.mean(mean - exact) < -0.01
