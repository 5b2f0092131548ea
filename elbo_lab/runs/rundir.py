"""A run's directory: which process may write there, and which run it holds.

config.json      everything that decides the numbers; written first
checkpoints/     see checkpoint.py; their notes hold a copy of config.json
metrics.jsonl    training curves; tensorboard/ holds the same
evaluation.npz   values of every test example
figures/         PNG files
text.json        of a run of texts: the vocabulary, by which its tokens are read
samples.txt      of a run of texts: draws and reconstructions
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
TEXT, POEMS = "text.json", "samples.txt"
# Checkpoints that are being removed; the renaming takes no time.
_REMOVED = f"{CHECKPOINTS}.removed"
_DAMAGED = f"{CONFIG}.damaged"
# Everything that a run writes, which is what overwriting removes. The order lets a run start anew
# wherever a kill interrupts the removal: config.json, by which a run is known, goes last.
_CONTENTS = (
    *(SUMMARY, _REMOVED, EVALUATION, METRICS, FIGURES, TENSORBOARD, TEXT, POEMS, _DAMAGED),
    *(f"{name}.tmp" for name in (SUMMARY, EVALUATION, METRICS, TEXT, POEMS)),
    CONFIG,
)
# Files that a process leaves if it is killed before config.json is in place.
_LOCK, _UNFINISHED = ".lock", f"{CONFIG}.tmp"
# Error numbers of a file system that refuses to write.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def default_name(config: Config) -> str:
    """The directory of a configuration, e.g. runs/iwae-k5-mnist_small-1a2b3c4d; the one of an
    earlier version's name if it exists.
    """
    start = os.path.join("runs", f"{configs.label(config)}-{data.short_name(config.dataset)}")
    return first_existing(f"{start}-{configs.digest(config)}", start, old_digests.digest(config))


def first_existing(name: str, start: str, old_digest: str | None) -> str:
    """The directory of an earlier version's digest if it exists and `name` does not; else `name`.

    Args:
      name: this version's name.
      start: the part of the name before the digest.
      old_digest: the earlier version's; None if it could not have made the run.
    """
    if old_digest is None or os.path.isdir(name):
        return name
    old_name = f"{start}-{old_digest}"
    return old_name if os.path.isdir(old_name) else name


@contextlib.contextmanager
def claim(
    workdir: str,
    config: Config,
    data_digest: str,
    overwrite: bool,
    replicas: Sequence[Config] | None = None,
) -> Iterator[Path]:
    """Opens a run's directory for this process alone; creates it, or checks that it is this run's.

    A complete run in a read-only directory is opened for reading. A config.json that is damaged or
    lost is restored from a checkpoint, with a warning.

    Args:
      workdir: the directory; it may exist if it is empty or a run's.
      config: the run's.
      data_digest: of the data, since a file may change under the same name.
      overwrite: True to remove an earlier run's files first (and no others).
      replicas: a config for each replicate, if they are not the config's own seeds.

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
    """Notices that a claimed directory is moved or removed while its run writes there.

    Attributes:
      config: the content of its config.json.
    """

    def __init__(self, path: Path):
        self.path, self.config = path, run_files.read_config(path)
        # Kept open, so that no other file can get the same inode number.
        self._lock = open(path / _LOCK, "ab")

    def is_there(self) -> bool:
        """True if the directory was neither moved nor removed."""
        try:
            at_path = os.stat(self.path / _LOCK)
            return os.path.samestat(os.fstat(self._lock.fileno()), at_path)
        except OSError:
            return False

    def check(self) -> None:
        """Raises UserError once the directory was moved or removed."""
        if not self.is_there():
            raise UserError(
                f"{self.path} was moved or removed while its run was writing there; if it was "
                "moved, move it back to go on, or start anew."
            )

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if isinstance(error, UserError):
                self.check()  # A directory that was moved explains why a file was refused.
        finally:
            self._lock.close()


def remove(path: Path) -> None:
    """Removes a run's files, and its directory if nothing else is in it.

    Raises:
      UserError: the directory is in use, or cannot be removed.
    """
    with locked(str(path)):
        _remove(path)
        (path / _UNFINISHED).unlink(missing_ok=True)
        if os.listdir(path) == [_LOCK]:
            with contextlib.suppress(PermissionError):  # Windows keeps files that are open.
                (path / _LOCK).unlink()
                path.rmdir()


def stored_replicas(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The stored config of each replicate of a directory's run, as JSON values, and the digest of
    its data; ([], "") if the directory holds no run.
    """
    try:
        stored = run_files.read_config(path)
        config, own_fields = stored["config"], stored.get("replicas")
        if own_fields is None:
            own_fields = [{"seed": config["seed"] + r} for r in range(config["replicates"])]
        replicas = [{**config, "replicates": 1, **fields} for fields in own_fields]
        return replicas, stored["data_sha256"]
    except (UserError, KeyError):
        return [], ""


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[Path]:
    """Creates a directory if it does not exist, and locks it against other processes.

    Raises:
      UserError: it cannot be written, or is in use.
    """
    path = Path(workdir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # The file is never deleted: another process that has just opened it would lock a file
        # that a third one cannot see.
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
    """True if the directory exists and the system refuses to write there."""
    try:
        with open(path / _LOCK, "ab"):
            return False
    except OSError as error:
        return error.errno in _READ_ONLY


def is_complete(path: Path) -> bool:
    """True if the run has its summary."""
    return (path / SUMMARY).exists()


def _lock(file: typing.BinaryIO) -> None:
    """Locks a file until it is closed.

    Raises:
      BlockingIOError, PermissionError: another process has locked it.
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
    """Checks that a locked directory is this run's, or writes config.json into an empty one."""
    try:
        names = sorted(name for name in os.listdir(path) if name not in (_LOCK, _UNFINISHED))
    except OSError as error:
        raise UserError(f"--workdir={path} cannot be read: {error.strerror}.") from error
    if names and not is_run(path):
        reason = f"it holds {names[0]} and no {CONFIG}"
        if CONFIG in names:
            # Many programs keep a config.json: only a run's may be overwritten.
            reason = f"{CONFIG} there is not a run's"
        raise UserError(
            f"--workdir={path} is not empty and not a run's directory ({reason}); choose a new or "
            "empty one."
        )
    if names and not overwrite:
        _check_kinds(path)
        _check_same(path, config, data_digest, replicas, _restored_config(path))
        return
    if names:
        _remove(path)
    new = {"config": configs.to_dict(config), "data_sha256": data_digest}
    if replicas is not None:
        new["replicas"] = _own_fields(config, replicas)
    files.write_summary(path / CONFIG, new)


def _check_kinds(path: Path) -> None:
    """Raises UserError for a folder in place of a run's file, or a file in place of a folder.

    Otherwise the mistake would be noticed only when the results are written.
    """
    for name in (SUMMARY, EVALUATION, METRICS):
        if (path / name).is_dir():
            raise UserError(f"{path / name} is a folder where the run has a file; move it away.")
    for name in (FIGURES, TENSORBOARD, CHECKPOINTS):
        if (path / name).is_file():
            raise UserError(f"{path / name} is a file where the run has a folder; move it away.")


def is_run(path: Path) -> bool:
    """True if a directory holds any of the files that only runs have."""
    from elbo_lab.training import metrics  # here, since importing JAX takes a second

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
    from elbo_lab.training import checkpoint  # here, since importing JAX takes a second

    return checkpoint.read_note(path / CHECKPOINTS) is not None


def _restored_config(path: Path) -> dict[str, Any]:
    """The content of config.json; the file is written again if it was damaged or lost."""
    try:
        stored = run_files.read_config(path)
    except UserError as error:
        raise UserError(
            f"--workdir={path}: {error}, and no checkpoint has a copy of it; --overwrite starts "
            "the run anew."
        ) from error
    try:
        json_files.read(path / CONFIG, run_files.CONFIG_KIND)
    except UserError as error:
        set_aside(path / CONFIG, path / _DAMAGED)
        files.write_summary(path / CONFIG, stored)
        warnings.warn(f"{error}; restored from a checkpoint", DamageWarning, stacklevel=1)
    return stored


def set_aside(file: Path, name: Path) -> None:
    """Renames a damaged file, if it exists.

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
    stored: dict[str, Any],
) -> None:
    """Raises UserError if the stored config.json is another run's."""
    differing = configs.differences(config, stored["config"])
    is_same_name = stored["config"].get("dataset", Config.dataset) == config.dataset
    if is_same_name and stored["data_sha256"] != data_digest:
        differing.append(data.changed(config.dataset, stored["data_sha256"], data_digest))
    own_fields = None if replicas is None else _own_fields(config, replicas)
    if stored.get("replicas") != own_fields:
        differing.append("the replicates")
    if differing:
        raise UserError(
            f"--workdir={path} holds the run of another configuration; use --overwrite to replace "
            f"it, or another directory. Differing fields: {'; '.join(differing)}."
        )


def _own_fields(config: Config, replicas: Sequence[Config]) -> list[dict[str, Any]]:
    """The fields in which each replica differs from the config, and its seed."""
    shared = configs.to_dict(config) | {"replicates": 1, "seed": None}
    return [
        {n: v for n, v in configs.to_dict(replica).items() if v != shared[n]}
        for replica in replicas
    ]


def _remove(path: Path) -> None:
    """Removes the files of a run, and no others."""
    target = path / CHECKPOINTS
    try:
        if target.exists():
            shutil.rmtree(path / _REMOVED, ignore_errors=True)
            target.rename(path / _REMOVED)
        for name in _CONTENTS:
            target = path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--overwrite cannot remove {target}: {error.strerror}.") from error
