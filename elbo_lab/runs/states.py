"""The trained state in a run's directory, of this version or the one before."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import Array

from elbo_lab.runs import run_files
from elbo_lab.training import TrainState, checkpoint, old_states


class Stored(NamedTuple):
    """A checkpoint as `read` returns it."""

    step: int
    state: TrainState
    digest: str  # of the checkpoint's arrays


def restore(
    path: Path,
    like: TrainState,
    base_keys: Array,
    terms: Sequence[str],
    refusal: Callable[[int, Any], str],
) -> tuple[int, TrainState, Array] | None:
    """The step, the state and the base keys of a run's newest checkpoint; None if there is none.

    For a run that resumes: damaged checkpoints are deleted, and refused ones are set aside.

    Args:
      path: the run's directory.
      like: arrays or ShapeDtypeStructs of the state's structure.
      base_keys: the run's.
      terms: the names of the loss's terms.
      refusal: see `checkpoint.restore`.

    Raises:
      UserError: see `checkpoint.restore`.
    """
    folder, old = path / run_files.CHECKPOINTS, _old_like(like, base_keys)
    restored = checkpoint.restore(folder, (like, base_keys), others=[old], refusal=refusal)
    if restored is None:
        return None
    step, (state, stored_keys) = restored
    return step, old_states.migrated(state, terms), stored_keys


def read(path: Path, like: TrainState, base_keys: Array, terms: Sequence[str]) -> Stored | None:
    """A run's newest checkpoint that is whole; None if there is none. No file is changed.

    Args:
      path: see `restore`.
      like: see `restore`.
      base_keys: see `restore`.
      terms: see `restore`.

    Raises:
      UserError: see `checkpoint.read`.
    """
    folder, old = path / run_files.CHECKPOINTS, _old_like(like, base_keys)
    stored = checkpoint.read(folder, (like, base_keys), others=[old])
    if stored is None:
        return None
    step, (state, _), digest = stored
    return Stored(step, old_states.migrated(state, terms), digest)


def _old_like(like: TrainState, base_keys: Array) -> tuple[Any, Array]:
    """The structure of a checkpoint of the version before."""
    return jax.eval_shape(old_states.state_like, like), base_keys
