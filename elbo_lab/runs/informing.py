"""The measure `information` of a stored run: bounds of the mutual information of x and z."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from elbo_lab import keys
from elbo_lab.data import Batch, Dataset
from elbo_lab.errors import UserError
from elbo_lab.evaluation import Evaluation, aggregate_posterior, information
from elbo_lab.reports import information_figures
from elbo_lab.reports.tables import Result
from elbo_lab.reports.words import for_kind
from elbo_lab.runs import examples
from elbo_lab.runs.instruments import Instrument, Outcome, Settings
from elbo_lab.runs.loading import Trained

NAME = "information"
# The estimates of the curve, as they are in the last axis of "information_by_size".
ESTIMATES = information.Estimates._fields


def check(trained: Trained, settings: Settings, dataset: Dataset) -> None:
    """Refuses what has no answer, before anything is computed.

    Raises:
      ValueError: the run is of no latent-variable model, or is conditioned on labels.
      UserError: N is out of range, or there is nothing to pair.
    """
    aggregate_posterior.check(trained.method)
    number, size = len(dataset.x_test), settings.information_examples
    if number < 2:
        raise UserError(
            f"--measures={NAME} pairs test examples, at least 2; got {number} of {dataset.name}."
        )
    if size is not None and not 2 <= size <= number:
        raise UserError(
            f"--information_examples must lie in 2..{number}, the test examples; got {size}."
        )


def measure(
    trained: Trained, settings: Settings, dataset: Dataset, values: Evaluation, seed: int
) -> Outcome:
    """Bounds for each test example, their curve against N, and the limit that N sets."""
    del values
    test = examples.test_examples(trained.config, dataset, trained.spec)
    size = settings.information_examples or len(dataset.x_test)
    bounds = aggregate_posterior.make_measure(trained.method, size)
    own = measured(bounds, keys.base_key(seed), trained, test)
    return Outcome(own, rows(size, trained.spec.kind), summary(own, size))


def measured(
    bounds: Callable[..., dict[str, Array]], base_key: Array, trained: Trained, test: Batch
) -> Evaluation:
    """Values of `aggregate_posterior.make_measure` per test example.

    Args:
      bounds: the measure of the run's method, or of one with the same model.
      base_key: of the seed of the draws.
      trained: its parameters are measured.
      test: the test split.
    """
    # The index 1: measures of batches have the keys of index 0.
    key = keys.stream_key(base_key, keys.EVALUATION, 1)
    # Reduced precision, the default of GPUs, would move log q(z|x) by whole nats.
    with jax.default_matmul_precision("highest"):
        return jax.device_get(jax.jit(bounds)(key, trained.params, trained.stats, test))


def rows(size: int, kind: str) -> list[Result]:
    """The number of examples of an aggregate posterior, and the limit that it sets.

    Args:
      size: N.
      kind: of the data, for the nouns.
    """
    return [
        Result("examples of an aggregate posterior", "N", size, unit="examples", split="test"),
        Result(
            "greatest possible I_NCE",
            "log N",
            math.log(size),
            unit=for_kind("nats per image", kind),
        ),
    ]


def summary(values: Evaluation, size: int) -> dict[str, Any]:
    """The estimates against N, JSON-ready.

    Args:
      values: of `aggregate_posterior.make_measure`.
      size: N.

    Returns:
      "examples", the numbers N of the curve, [S]; "lower", "corrected" and "upper", means [S], and
      each with "_error", standard errors over draws; "rate" and "model", means.
    """
    by_size = np.float64(values["information_by_size"])  # [n, S, 3]
    means = by_size.mean(axis=0)
    errors = by_size.std(axis=0, ddof=1) / math.sqrt(len(by_size))
    curve: dict[str, Any] = {"examples": list(information.sizes(size))}
    for index, name in enumerate(ESTIMATES):
        curve |= {name: means[:, index].tolist(), f"{name}_error": errors[:, index].tolist()}
    for name, array in (("rate", "information_rate"), ("model", "model_information")):
        curve[name] = float(np.mean(values[array], dtype=np.float64))
    return curve


INSTRUMENT = Instrument(check, measure, ("information.svg", information_figures.by_size))
