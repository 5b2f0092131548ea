"""The trained state in a run's directory, of this version or the one before."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import Array

from elbo_lab.runs import run_files
from elbo_lab.training import TrainState, checkpoint, old_states


def restore(
    path: Path,
    like: TrainState,
    base_keys: Array,
    terms: Sequence[str],
    refusal: Callable[[int, Any], str] = lambda step, restored: "",
) -> tuple[int, TrainState, Array] | None:
    """The step, the state and the base keys of a run's newest checkpoint; None if there is none.

    Args:
      path: the run's directory.
      like: arrays or ShapeDtypeStructs of the state's structure.
      base_keys: the run's.
      terms: the names of the loss's terms.
      refusal: see `checkpoint.restore`.

    Raises:
      UserError: see `checkpoint.restore`.
    """
    folder = path / run_files.CHECKPOINTS
    old = jax.eval_shape(old_states.state_like, like), base_keys
    restored = checkpoint.restore(folder, (like, base_keys), others=[old], refusal=refusal)
    if restored is None:
        return None
    step, (state, base_keys) = restored
    return step, old_states.migrated(state, terms), base_keys


def digest(path: Path) -> str:
    """The digest of the newest checkpoint's arrays; "" if there is none."""
    return checkpoint.newest_digest(path / run_files.CHECKPOINTS)
