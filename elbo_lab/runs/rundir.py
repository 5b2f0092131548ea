"""A run's directory: who may write there, and whether it is this run's.

config.json      what decides the numbers; written first
checkpoints/     see checkpoint.py; their notes hold a copy of config.json
metrics.jsonl    training curves; tensorboard/ holds the same
evaluation.npz   every test image's values
figures/         PNG
summary.json     written last: its presence means that the run is complete
"""

import contextlib
import errno
import os
import shutil
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import configs, data, files, json_files
from elbo_lab.configs import Config
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.runs import old_digests, run_files
from elbo_lab.runs.run_files import CHECKPOINTS, CONFIG, SUMMARY

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

EVALUATION, METRICS = "evaluation.npz", "metrics.jsonl"
FIGURES, TENSORBOARD = "figures", "tensorboard"
_DOOMED = f"{CHECKPOINTS}.removed"
# Everything that a run writes, and so all that overwriting removes, in an order that leaves a run
# that can start anew wherever a kill cuts it off: what resumes first, what names the run last.
_DAMAGED = f"{CONFIG}.damaged"
_CONTENTS = (
    *(SUMMARY, _DOOMED, EVALUATION, METRICS, FIGURES, TENSORBOARD, _DAMAGED),
    *(f"{name}.tmp" for name in (SUMMARY, EVALUATION, METRICS)),
    CONFIG,
)
# What a process killed in its first moment leaves: the lock, and a config.json not yet in place.
_LOCK, _UNFINISHED = ".lock", f"{CONFIG}.tmp"
# What a file system says where nothing may be written.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def default_name(config: Config) -> str:
    """A directory of its own for each configuration, e.g. runs/iwae-k5-mnist_small-1a2b3c4d: the
    one that an earlier version gave it, if that is there.
    """
    start = os.path.join("runs", f"{configs.label(config)}-{Path(config.dataset).stem}")
    return first_existing(f"{start}-{configs.digest(config)}", start, old_digests.digest(config))


def first_existing(name: str, start: str, old_digest: str | None) -> str:
    """The directory of an earlier version's digest if it is there and has not been made anew, else
    the directory of this version's name.
    """
    old = None if old_digest is None else f"{start}-{old_digest}"
    return old if old and os.path.isdir(old) and not os.path.isdir(name) else name


@contextlib.contextmanager
def claim(
    workdir: str,
    config: Config,
    data_digest: str,
    overwrite: bool,
    replicas: Sequence[Config] | None = None,
) -> Iterator[Path]:
    """Opens a run's directory for this process alone; creates it, or checks that it is this run's.

    A complete run where nothing can be written is opened for reading. A config.json that is damaged
    or lost is restored from a checkpoint, with a warning.

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
    path = Path(workdir).expanduser()
    if not overwrite and is_complete(path) and is_read_only(path):
        _check_same(path, config, data_digest, replicas, run_files.read_config(path))
        yield path
        return
    with locked(workdir):
        _prepare(path, config, data_digest, overwrite, replicas)
        yield path


class Watch:
    """A claimed directory while its run writes there.

    Attributes:
      config: what its config.json holds.
    """

    def __init__(self, path: Path):
        self.path, self.config = path, run_files.read_config(path)
        self._lock = open(path / _LOCK, "ab")  # Held open: no other file gets its number.

    def is_there(self) -> bool:
        """Whether the directory was neither moved nor removed."""
        try:
            there = os.stat(self.path / _LOCK)
            return os.path.samestat(os.fstat(self._lock.fileno()), there)
        except OSError:
            return False

    def check(self) -> None:
        """Raises UserError once the directory was moved or removed."""
        if not self.is_there():
            raise UserError(
                f"{self.path} was moved or removed while its run was writing there; what the run "
                "had saved is where the directory went: move it back to go on, or start anew."
            )

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if isinstance(error, UserError):
                self.check()  # A directory that went away explains what the disk refused.
        finally:
            self._lock.close()


def remove(path: Path) -> None:
    """Removes a run, and its directory if nothing else is in it.

    Raises:
      UserError: it is in use, or cannot be removed.
    """
    with locked(str(path)):
        _remove(path)
        (path / _UNFINISHED).unlink(missing_ok=True)
        if os.listdir(path) == [_LOCK]:
            with contextlib.suppress(PermissionError):  # Windows keeps files that are open.
                (path / _LOCK).unlink()
                path.rmdir()


def stored_replicas(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The configs of one seed each that a directory's run is of, as JSON-ready values, and the
    digest of its images; ([], "") if it holds no run.
    """
    try:
        stored_config = run_files.read_config(path)
        config, own = stored_config["config"], stored_config.get("replicas")
        if own is None:
            own = [{"seed": config["seed"] + r} for r in range(config["replicates"])]
        replicas = [{**config, "replicates": 1, **fields} for fields in own]
        return replicas, stored_config["data_sha256"]
    except (UserError, KeyError):
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
        lock = open(path / _LOCK, "ab")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}.") from error
    with lock:
        try:
            _lock(lock)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(f"--workdir={workdir} is in use by another process.") from error
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be locked: {error.strerror}.") from error
        yield path


def is_read_only(path: Path) -> bool:
    """Whether the directory exists and the system refuses to write there."""
    try:
        with open(path / _LOCK, "ab"):
            return False
    except OSError as error:
        return error.errno in _READ_ONLY


def is_complete(path: Path) -> bool:
    """Whether the run has its summary."""
    return (path / SUMMARY).exists()


def _lock(file: typing.BinaryIO) -> None:
    """Locks the file until it is closed; raises BlockingIOError or PermissionError if another
    process has.
    """
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


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
    if others and not is_run(path):
        reason = f"it holds {others[0]} and no {CONFIG}"
        if CONFIG in others:
            # Many programs keep a config.json: only a run's may be overwritten.
            reason = f"{CONFIG} there is not a run's"
        raise UserError(
            f"--workdir={path} is not empty and not a run's directory ({reason}); choose a new or "
            "empty one."
        )
    if others and overwrite:
        _remove(path)
    if others and not overwrite:
        _check_kinds(path)
        _check_same(path, config, data_digest, replicas, _restored_config(path))
        return
    new = {"config": configs.to_dict(config), "data_sha256": data_digest}
    if replicas is not None:
        new["replicas"] = _own_fields(config, replicas)
    files.write_summary(path / CONFIG, new)


def _check_kinds(path: Path) -> None:
    """Raises UserError for a folder in the place of a file of the run, or the reverse, which would
    be found out when the results are written.
    """
    for name in (SUMMARY, EVALUATION, METRICS, FIGURES, TENSORBOARD, CHECKPOINTS):
        is_file = name in (SUMMARY, EVALUATION, METRICS)
        if (path / name).is_dir() if is_file else (path / name).is_file():
            kinds = ("folder", "file") if is_file else ("file", "folder")
            raise UserError(
                f"{path / name} is a {kinds[0]} where the run has a {kinds[1]}; move it away."
            )


def is_run(path: Path) -> bool:
    """Whether a directory is a run's, by any of the files that only runs have."""

    from elbo_lab.training import metrics  # JAX comes with it, which takes a second

    def holds(read: Callable[[], Any]) -> bool:
        with contextlib.suppress(UserError), warnings.catch_warnings(action="ignore"):
            return bool(read())
        return False

    return (
        holds(lambda: run_files.read_config(path))
        or holds(lambda: run_files.read_summary(path))
        or holds(lambda: metrics.read_metrics(path, run_files.METRIC_NAMES))
        or holds(lambda: _has_checkpoints(path))
    )


def _has_checkpoints(path: Path) -> bool:
    from elbo_lab.training import checkpoint

    return checkpoint.read_note(path / CHECKPOINTS) is not None


def _restored_config(path: Path) -> dict[str, Any]:
    """What config.json holds; the file is written again where it was damaged or lost."""
    try:
        found = run_files.read_config(path)
    except UserError as error:
        raise UserError(
            f"--workdir={path}: {error}, and no checkpoint has a copy of it; --overwrite starts "
            "the run anew."
        ) from error
    try:
        json_files.read(path / CONFIG, run_files.CONFIG_KIND)
    except UserError as error:
        set_aside(path / CONFIG, path / _DAMAGED)
        files.write_summary(path / CONFIG, found)
        warnings.warn(f"{error}; restored from a checkpoint", DamageWarning, stacklevel=1)
    return found


def set_aside(file: Path, name: Path) -> None:
    """Renames a damaged file, if it is there.

    Raises:
      UserError: the system refuses, with its reason.
    """
    try:
        os.replace(file, name)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"{file} is damaged; move it away ({error.strerror}).") from error


def _check_same(
    path: Path,
    config: Config,
    data_digest: str,
    replicas: Sequence[Config] | None,
    found: dict[str, Any],
) -> None:
    """Raises UserError if what is stored is of another run."""
    differing = _differences(config, data_digest, found)
    wanted = None if replicas is None else _own_fields(config, replicas)
    if found.get("replicas") != wanted:
        differing.append("the replicates")
    if differing:
        raise UserError(
            f"--workdir={path} holds the run of another configuration; use --overwrite to replace "
            f"it, or another directory. Differing fields: {'; '.join(differing)}."
        )


def _differences(config: Config, data_digest: str, found: dict[str, Any]) -> list[str]:
    differing = configs.differences(config, found["config"])
    if found["data_sha256"] != data_digest:
        differing.append(data.changed(config.dataset, found["data_sha256"], data_digest))
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
