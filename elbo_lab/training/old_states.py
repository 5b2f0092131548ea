"""How states that the version before saved are read."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.training.step import GRADIENT, PARAMETERS, STATS, Failure, TrainState


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
