"""A run's directory: who may write there, and whether it is this run's.

config.json      what decides the numbers; written first
checkpoints/     see checkpoint.py
metrics.jsonl    training curves; tensorboard/ holds the same
evaluation.npz   every test image's values
figures/         PNG
summary.json     written last: its presence means that the run is complete
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import config as configs
from elbo_lab import report
from elbo_lab.config import Config
from elbo_lab.errors import UserError

CONFIG, SUMMARY, EVALUATION = "config.json", "summary.json", "evaluation.npz"
CHECKPOINTS, FIGURES = "checkpoints", "figures"
METRICS = "metrics.jsonl"
_DOOMED = f"{CHECKPOINTS}.removed"
# Everything that a run writes, and so all that overwriting removes, in an order that leaves a run
# that can start anew wherever a kill cuts it off: what resumes first, what names the run last.
_CONTENTS = (
    *(SUMMARY, _DOOMED, EVALUATION, METRICS, FIGURES, "tensorboard"),
    *(f"{name}.tmp" for name in (SUMMARY, EVALUATION, METRICS)),
    CONFIG,
)
# What a process killed in its first moment leaves: the lock, and a config.json not yet in place.
_LOCK, _UNFINISHED = ".lock", f"{CONFIG}.tmp"


def default_name(config: Config) -> str:
    """A directory of its own for each configuration, e.g. runs/iwae-k5-mnist_small-1a2b3c4d."""
    data = Path(config.dataset).stem
    return os.path.join("runs", f"{config.objective}-k{config.k}-{data}-{configs.digest(config)}")


@contextlib.contextmanager
def claim(
    workdir: str,
    config: Config,
    data_digest: str,
    overwrite: bool,
    replicas: Sequence[Config] | None = None,
) -> Iterator[Path]:
    """Opens a run's directory for this process alone; creates it, or checks that it is this run's.

    Args:
      workdir: the directory; it may exist if it is empty or a run's.
      config: the run's.
      data_digest: of the images, since a file may change under the same name.
      overwrite: remove an earlier run's files first (and no others).
      replicas: the configs of one seed each, where they are others than the config's own seeds.

    Raises:
      UserError: the directory cannot be written, is in use, holds something else, or is the run of
        another configuration (the differing fields are listed).
    """
    with locked(workdir) as path:
        _prepare(path, config, data_digest, overwrite, replicas)
        yield path


def remove(path: Path) -> None:
    """Removes a run, and its directory if nothing else is in it.

    Raises:
      UserError: it is in use, or cannot be removed.
    """
    with locked(str(path)):
        _remove(path)
        (path / _UNFINISHED).unlink(missing_ok=True)
        if os.listdir(path) == [_LOCK]:
            (path / _LOCK).unlink()
            path.rmdir()


def stored_replicas(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The configs of one seed each that a directory's run is of, as JSON-ready values, and the
    digest of its images; ([], "") if it holds no run.
    """
    try:
        stored = report.read_json(path / CONFIG)
        config, own = stored["config"], stored.get("replicas")
        if own is None:
            own = [{"seed": config["seed"] + r} for r in range(config["replicates"])]
        return [{**config, "replicates": 1, **fields} for fields in own], stored["data_sha256"]
    except (UserError, KeyError, TypeError):
        return [], ""


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[Path]:
    """Makes a directory if there is none, and keeps other processes out of it.

    Raises:
      UserError: it cannot be written, or is in use.
    """
    path = Path(workdir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Without truncation, and left behind: deleting a lock file that another process is just
        # opening would let two processes in.
        lock = open(path / _LOCK, "a")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--workdir={workdir} is in use by another process.") from error
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be locked: {error.strerror}.") from error
        yield path


def is_complete(path: Path) -> bool:
    """Whether the run has its summary."""
    return (path / SUMMARY).exists()


def _prepare(
    path: Path,
    config: Config,
    data_digest: str,
    overwrite: bool,
    replicas: Sequence[Config] | None,
) -> None:
    try:
        others = sorted(name for name in os.listdir(path) if name not in (_LOCK, _UNFINISHED))
    except OSError as error:
        raise UserError(f"--workdir={path} cannot be read: {error.strerror}.") from error
    if others and CONFIG not in others:
        raise UserError(
            f"--workdir={path} is not empty and not a run's directory (it holds {others[0]} and no "
            f"{CONFIG}); choose a new or empty one."
        )
    stored = report.read_json(path / CONFIG) if others else None
    is_run = isinstance(stored, dict) and "data_sha256" in stored
    if others and not (is_run and isinstance(stored.get("config"), dict)):
        # Many programs keep a config.json: only a run's may be overwritten.
        raise UserError(
            f"--workdir={path} is not a run's directory ({CONFIG} there is not a run's); choose a "
            "new or empty one."
        )
    if others and overwrite:
        _remove(path)
    if not others or overwrite:
        stored = {"config": configs.to_dict(config), "data_sha256": data_digest}
        if replicas is not None:
            stored["replicas"] = _own_fields(config, replicas)
        report.write_summary(path / CONFIG, stored)
        return
    differing = _differences(config, data_digest, stored)
    wanted = None if replicas is None else _own_fields(config, replicas)
    if stored.get("replicas") != wanted:
        differing.append("the replicates")
    if differing:
        raise UserError(
            f"--workdir={path} holds the run of another configuration; use --overwrite to replace "
            f"it, or another directory. Differing fields: {'; '.join(differing)}."
        )


def _differences(config: Config, data_digest: str, stored: dict[str, Any]) -> list[str]:
    differing = configs.differences(config, stored["config"])
    if stored.get("data_sha256") != data_digest:
        differing.append(f"the images of {config.dataset} have changed")
    return differing


def _own_fields(config: Config, replicas: Sequence[Config]) -> list[dict[str, Any]]:
    """What each replica has of its own, beside the config."""
    shared = configs.to_dict(config) | {"replicates": 1, "seed": None}
    return [
        {n: v for n, v in configs.to_dict(replica).items() if v != shared[n]}
        for replica in replicas
    ]


def _remove(path: Path) -> None:
    target = path / CHECKPOINTS
    try:
        if target.exists():
            shutil.rmtree(path / _DOOMED, ignore_errors=True)
            target.rename(path / _DOOMED)
        for name in _CONTENTS:
            target = path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--overwrite cannot remove {target}: {error.strerror}.") from error
