"""Training of a classifier over an encoder, against Adam in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbo_lab.evaluation import classifiers

pytestmark = pytest.mark.usefixtures("fast_compilation")

RATE, STEPS, CLASSES = 0.1, 4, 3


def encode(encoder, x):
    return x @ encoder["kernel"]


def adam(gradients, parameters: list[np.ndarray]) -> list[np.ndarray]:
    """STEPS steps of Adam (Kingma and Ba 2015, algorithm 1), in float64."""
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    for t in range(1, STEPS + 1):
        for i, gradient in enumerate(gradients(*parameters)):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            direction = first[i] / (1 - 0.9**t) / (np.sqrt(second[i] / (1 - 0.999**t)) + 1e-8)
            parameters[i] = parameters[i] - RATE * direction
    return parameters


def test_training_is_adam_on_the_labelled_examples_alone():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(5, 4)), rng.normal(size=(4, 2))
    y, order = np.array([0, 1, 2, 0, 1]), np.array([2, 0, 1, 3, 4])

    def gradients(kernel, weights, biases):
        # By -log softmax(x K W + b)[y] of the first example in the order, which fills each batch.
        features = x[2] @ kernel
        scores = features @ weights + biases
        residual = np.exp(scores) / np.sum(np.exp(scores)) - np.eye(CLASSES)[y[2]]
        return (
            np.outer(x[2], weights @ residual),
            np.outer(features, residual),
            residual,
        )

    expected = adam(gradients, [kernel, np.zeros((2, CLASSES)), np.zeros(CLASSES)])
    hidden = np.where(np.arange(5)[:, None] == 2, x, np.nan)  # the others are never looked at
    train = classifiers.make_trainer(encode, CLASSES, classifiers.Training(STEPS, 6, RATE))
    arrays = (jnp.float32(hidden), jnp.asarray(y), jnp.asarray(order))
    encoder = {"kernel": jnp.float32(kernel)}
    classifier = train(jax.random.key(0), encoder, *arrays, jnp.int32(1))
    own = (classifier.encoder["kernel"], classifier.weights, classifier.biases)
    for array, value in zip(own, expected, strict=True):
        np.testing.assert_allclose(array, value, rtol=2e-4, atol=2e-5)
    scores = classifiers.scores(encode, classifier, jnp.float32(x))
    np.testing.assert_allclose(
        scores, x @ expected[0] @ expected[1] + expected[2], rtol=2e-3, atol=2e-4
    )
