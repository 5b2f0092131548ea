"""What runs of earlier versions left unsaid, and how their states are read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.training.step import GRADIENT, PARAMETERS, STATS, Failure, TrainState

# All that was measured before a summary named its quantities: one number an example each.
_MEASURED = ("log_likelihood", "iwae", "elbo", "kl", "reconstruction", "effective_sample_size")
_TERMS = ("bound", "kl", "reconstruction")


def completed(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary with what only later versions write: terms, headline, figures, measured shapes."""
    latent_dims = summary["config"].get("latent_dims", ())
    figures = ["learning_curves", "samples", "reconstructions", "active_units"]
    if list(latent_dims) == [2]:
        figures += ["latent_space", "latent_grid"]
    number, au_images = summary["data"]["test_images"], summary["config"].get("au_images")
    measured = {name: [number] for name in _MEASURED}
    for i, size in enumerate(latent_dims, 1):
        measured[f"means_{i}"] = [number, size]
        if au_images:
            measured[f"train_means_{i}"] = [au_images, size]
    old = {"terms": list(_TERMS), "headline": "log_likelihood"}
    return old | {"figures": figures, "measured": measured} | summary


class OldFailure(NamedTuple):
    """`step.Failure` as it was saved: one bit for each thing that was not finite."""

    step: Array
    terms: Array  # int32; bits of the loss's terms in alphabetical order, gradient, parameters


def state_like(state: TrainState) -> TrainState:
    """The structure in which the version before saved a state like this one."""
    step = state.failure.step
    return state._replace(failure=OldFailure(step, step))  # of one type and shape


def migrated(state: TrainState, terms: Sequence[str]) -> TrainState:
    """A state of this version or the one before, as this version has it."""
    if isinstance(state.failure, Failure):
        return state
    step, bits = state.failure
    names = [*sorted(terms), GRADIENT, PARAMETERS]
    is_finite = {name: (bits >> i) & 1 == 0 for i, name in enumerate(names)}
    return state._replace(failure=Failure(step, is_finite | {STATS: jnp.ones_like(step, bool)}))
