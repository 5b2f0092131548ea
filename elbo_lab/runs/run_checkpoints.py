"""Checkpoints of a run: saved while it trains, restored when it resumes.

A run is a `stages.Run`. With several processes, the first one reads and writes the files.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import json_files
from elbo_lab.devices import distributed, sharding
from elbo_lab.errors import UserError
from elbo_lab.runs import rundir, states
from elbo_lab.training import TrainState, checkpoint
from elbo_lab.training.metrics import MetricLog


def restore(run: Any, total: int) -> int:
    """Puts the newest sound checkpoint into `run`; returns its step, 0 if there is none.

    Damaged checkpoints are deleted, and those beyond `total`, the run's last step, are set aside.
    """
    restored = distributed.on_first(lambda: _read(run, total))
    if restored is None:
        return 0
    step, run.state, run.seconds = restored
    run.failed_at = np.atleast_1d(run.state.failure.step)
    return step


def save(run: Any, log: MetricLog | None, step: int) -> None:
    """Saves the whole state in the first process, whichever devices its parts lie on."""
    state = run.state if jax.process_count() == 1 else sharding.fetch(run.state)
    distributed.on_first(lambda: _write(run, log, step, state))


def _read(run: Any, total: int) -> tuple[int, TrainState, float] | None:
    """Step, state and seconds of training of the newest checkpoint that fits the run."""
    folder = run.path / rundir.CHECKPOINTS
    if not folder.exists():
        return None

    def refusal(step: int, restored: tuple[TrainState, jax.Array]) -> str:
        if step > total:
            return f"the run ends at step {total}"
        own = int(restored[0].step)
        return "" if own == step else f"it is of step {own}"

    restored = states.restore(run.path, run.state, run.keys, run.method.terms, refusal)
    if restored is None:
        return None
    step, state, base_keys = restored
    if not bool(jnp.all(jax.random.key_data(base_keys) == jax.random.key_data(run.keys))):
        raise UserError(f"{folder} was made with another seed; use --overwrite to start anew.")
    note = checkpoint.read_note(folder) or {}
    # Checkpoints of older versions have no note of the time.
    seconds = 0.0 if json_files.fault(note, {"seconds": float}) else note["seconds"]
    # Other processes get the arrays from the host.
    return step, state if jax.process_count() == 1 else jax.device_get(state), seconds


def _write(run: Any, log: MetricLog, step: int, state: TrainState) -> None:
    log.sync()  # Before the checkpoint: after a power cut it must not be ahead of the metrics.
    run.check_directory()
    note = {**(run.watch.config if run.watch else {}), "seconds": run.seconds}
    folder = run.path / rundir.CHECKPOINTS
    try:
        checkpoint.save(folder, step, (state, run.keys), note=note)
    finally:
        if run.watch and not run.watch.is_there():
            _remove_orphan(folder, step)


def _remove_orphan(folder: Path, step: int) -> None:
    """Removes the folders that a save has made in place of a directory that was moved meanwhile."""
    shutil.rmtree(folder / f"step_{step:08d}", ignore_errors=True)
    for path in (folder, folder.parent):
        with contextlib.suppress(OSError):  # It holds something else, or is gone.
            path.rmdir()
