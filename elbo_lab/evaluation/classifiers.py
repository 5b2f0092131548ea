"""A classifier made of an inference network and a linear layer, trained from any start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

Encode = Callable[[Any, Array], Array]  # (params of the encoder, x [B, D]) -> features [B, L]


class Classifier(NamedTuple):
    """Parameters of scores(x) = encode(encoder, x) W + b."""

    encoder: Any
    weights: Array  # W, [L, C]
    biases: Array  # b, [C]


class Training(NamedTuple):
    """How a classifier is trained: steps of Adam on the mean cross-entropy of a batch."""

    steps: int
    batch_size: int
    learning_rate: float


def scores(encode: Encode, classifier: Classifier, x: Array) -> Array:
    """The scores of examples x [B, D], [B, C]."""
    return encode(classifier.encoder, x) @ classifier.weights + classifier.biases


def make_trainer(encode: Encode, classes: int, training: Training) -> Callable[..., Classifier]:
    """The compiled training of classifiers over one inference network.

    All parameters are trained, those of the encoder too. The linear layer starts at zero.

    Args:
      encode: the inference network.
      classes: C.
      training: its length, batch and learning rate.

    Returns:
      (key, encoder, x [N, D], y [N], order [N], number) -> Classifier. It is trained from these
      parameters of the encoder on the first `number` examples in the order; each example of a batch
      is drawn from these with replacement. `number` is traced: one program serves all.
    """
    optimizer = optax.adam(training.learning_rate)

    def loss(classifier: Classifier, x: Array, y: Array) -> Array:
        values = scores(encode, classifier, x)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(values, y))

    @jax.jit
    def train(
        key: Array, encoder: Any, x: Array, y: Array, order: Array, number: Array
    ) -> Classifier:
        size = jax.eval_shape(encode, encoder, x[:1]).shape[-1]
        start = Classifier(encoder, jnp.zeros((size, classes)), jnp.zeros(classes))

        def step(
            state: tuple[Classifier, Any], index: Array
        ) -> tuple[tuple[Classifier, Any], None]:
            classifier, moments = state
            draws = jax.random.randint(
                jax.random.fold_in(key, index), (training.batch_size,), 0, number
            )
            rows = order[draws]
            gradient = jax.grad(loss)(classifier, x[rows], y[rows])
            updates, moments = optimizer.update(gradient, moments, classifier)
            return (optax.apply_updates(classifier, updates), moments), None

        state = start, optimizer.init(start)
        (classifier, _), _ = jax.lax.scan(step, state, jnp.arange(training.steps))
        return classifier

    return train
