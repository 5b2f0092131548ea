"""Reads states that the previous version saved."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.training.step import GRADIENT, PARAMETERS, STATS, Failure, TrainState


class OldFailure(NamedTuple):
    """`step.Failure` of the previous version: a set bit for each name that was not finite."""

    step: Array
    terms: Array  # int32; bits from the lowest: loss terms in alphabetical order, gradient, params


def state_like(state: TrainState) -> TrainState:
    """The structure in which the previous version saved a state like this one."""
    step = state.failure.step
    return state._replace(failure=OldFailure(step, terms=step))  # both int32 of the same shape


def migrated(state: TrainState, terms: Sequence[str]) -> TrainState:
    """Returns a state of this version from one of this or of the previous version.

    Args:
      state: with or without a leading axis of replicates.
      terms: names of the loss's terms.
    """
    if isinstance(state.failure, Failure):
        return state
    step, bits = state.failure
    names = [*sorted(terms), GRADIENT, PARAMETERS]
    is_finite = {name: (bits >> i) & 1 == 0 for i, name in enumerate(names)}
    is_finite[STATS] = jnp.ones_like(step, bool)  # the previous version had none to check
    return state._replace(failure=Failure(step, is_finite))
