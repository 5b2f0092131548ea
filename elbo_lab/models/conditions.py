"""Conditioning on a class y: p(x|y, z), q(z|x, y) and p(z) (textbook figure 13.2b).

y and z are independent before x is seen, so the prior is p(z) for every class: z holds what the
class does not say. Networks see y as a one-hot vector beside their input.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Spec
from elbo_lab.models.base import Given

NONE, LABEL = CONDITIONS = ("none", "label")


def is_conditional(options: Any) -> bool:
    """True if a model family's settings condition it on labels; families without the setting are
    conditioned on nothing.
    """
    return getattr(options, "condition", NONE) == LABEL


def num_classes(options: Any, spec: Spec) -> int | None:
    """C, the number of classes on which a model is conditioned; None if it is not.

    Args:
      options: a model family's settings.
      spec: of the data.

    Raises:
      ValueError: the data have no labels.
    """
    if not is_conditional(options):
        return None
    if spec.classes is None:
        raise ValueError("condition=label needs data with labels, and these have none.")
    return spec.classes


def one_hot(given: Given, classes: int) -> Array:
    """The one-hot vectors of the labels, [*batch, C], float32.

    Args:
      given: its label [*batch] lies in 0..C-1.
      classes: C.

    Raises:
      ValueError: no label is given.
    """
    if given is None or given.label is None:
        raise ValueError("a model with condition=label needs the label of each example; got none.")
    return jax.nn.one_hot(given.label, classes)


def beside(values: Array, given: Given, classes: int | None) -> Array:
    """Inputs of a network with the one-hot label of each row beside them.

    Args:
      values: [*any, D].
      given: its label [*batch] is broadcast against *any.
      classes: C; None: without a condition the values are returned as they are.

    Returns:
      [*any, D + C].

    Raises:
      ValueError: no label is given.
    """
    if classes is None:
        return values
    label = one_hot(given, classes)
    shape = jnp.broadcast_shapes(values.shape[:-1], label.shape[:-1])
    parts = [jnp.broadcast_to(part, (*shape, part.shape[-1])) for part in (values, label)]
    return jnp.concatenate(parts, axis=-1)
