"""The measurements of `experiments.evaluate --measures`, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.distributions.means import closed_form_mean
from elbo_lab.methods.base import Method
from elbo_lab.models.base import given_of

# (key, params, stats, batch) -> {quantity: [B, ...]}, as `Method.measure`
Measure = Callable[..., dict[str, Array]]


def quantities(method: Method) -> Measure:
    """The quantities that a run reports of its test split."""
    return method.measure


def squared_error(method: Method) -> Measure:
    """|x - E[x|z]|^2 / D for z the method's encoding of x (the mean of q(z|x), or the codes).

    Raises:
      ValueError: the method has no encoder or no decoder, or p(x|z) has no mean in closed form.
    """
    if method.encode is None or method.decode is None:
        raise ValueError("measures=squared_error needs a method that encodes and decodes.")

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        del key
        code = method.encode(params, stats, batch)
        likelihood = method.decode(params, stats, code, given_of(batch))
        mean = closed_form_mean(likelihood)
        if mean is None:
            raise ValueError("measures=squared_error needs a p(x|z) with a closed-form mean.")
        return {"squared_error": jnp.mean(jnp.square(batch.x - mean), axis=-1)}

    return measure


def classification(method: Method) -> Measure:
    """log p(x|y) of every class y, [B, C], from which `classification` takes Bayes' rule.

    Raises:
      ValueError: the method is not conditioned on labels, or does not measure log p(x|y).
    """
    if method.classes is None:
        raise ValueError(
            "measures=classification needs p(x|y): a model that was trained with --condition=label."
        )
    if method.measure_classes is None:
        raise ValueError(
            "measures=classification needs a method that measures log p(x|y) or its bounds."
        )
    return method.measure_classes


class Entry(NamedTuple):
    """A measurement that `--measures` may name."""

    about: str  # for --help
    # None: of a whole split at once, by one of `runs.evaluating.INSTRUMENTS`
    make: Callable[[Method], Measure] | None


MEASURES: dict[str, Entry] = {
    "quantities": Entry("what a run reports of its test split", quantities),
    "squared_error": Entry("of the decoded encoding, over the dimensions of x", squared_error),
    "classification": Entry(
        "p(y|x) by Bayes' rule from log p(x|y) of every class, for --condition=label",
        classification,
    ),
    "information": Entry("bounds of the mutual information of x and z, and KL(q(z) || p(z))", None),
    "text": Entry(
        "nats per character, copied lines and distinct n-grams of a run of texts, beside an n-gram "
        "model's",
        quantities,
    ),
    "disentanglement": Entry(
        "if single dimensions of the codes stand for the known factors of the data", None
    ),
}


def combined(names: list[str], method: Method) -> Measure:
    """One measurement that gives the quantities of several; all use the same key."""
    # Two names may stand for one measurement.
    measures = list(dict.fromkeys(MEASURES[name].make(method) for name in names))

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for measure_part in measures:
            values |= measure_part(jax.random.clone(key), params, stats, batch)
        return values

    return measure
