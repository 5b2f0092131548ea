"""What `experiments.evaluate --measures` can measure on a trained method, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.distributions.means import closed_form_mean
from elbo_lab.methods.base import Method
from elbo_lab.models.base import given_of


class Measure(NamedTuple):
    """One measurement of a batch."""

    # method -> (key, params, stats, batch) -> {quantity: [B, ...]}, as `Method.measure`
    of: Callable[[Method], Callable[..., dict[str, Array]]]
    about: str


def squared_error(method: Method) -> Callable[..., dict[str, Array]]:
    """|x - E[x|z]|^2 / D for z the method's encoding of x (the mean of q(z|x), or the codes).

    Raises:
      ValueError: the method encodes or decodes nothing, or p(x|z) has no mean in closed form.
    """
    if method.encode is None or method.decode is None:
        raise ValueError("squared_error needs a method that encodes and decodes.")

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        del key
        code = method.encode(params, stats, batch)
        law = method.decode(params, stats, code, given_of(batch))
        mean = closed_form_mean(law)
        if mean is None:
            raise ValueError("squared_error needs a p(x|z) with a closed-form mean.")
        return {"squared_error": jnp.mean(jnp.square(batch.x - mean), axis=-1)}

    return measure


MEASURES: dict[str, Measure] = {
    "quantities": Measure(lambda method: method.measure, "what a run reports of its test split"),
    "squared_error": Measure(squared_error, "squared error of the decoded encoding"),
}


def combined(names: list[str], method: Method) -> Callable[..., dict[str, Array]]:
    """One measurement that gives the quantities of several, by the same key."""
    measures = [MEASURES[name].of(method) for name in names]

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for one in measures:
            found |= one(key, params, stats, batch)
        return found

    return measure
