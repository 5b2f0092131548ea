"""A sweep's folder: its runs, among which the replicates of any grid are looked up.

sweep.json     the grid, and its results once they are there; marks the folder as a sweep's
runs/NAME/     the run directory of each group of replicates
logs/NAME.txt  the output of the group's process
report.html    the page of results
answer.svg     the figure of a study
"""

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab import configs, data, json_files
from elbo_lab.configs import Config
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.files import write_summary
from elbo_lab.models.conditions import is_conditional
from elbo_lab.runs import completing, old_digests, run_files, rundir
from elbo_lab.sweeps import grid

SWEEP, RUNS, LOGS, REPORT = "sweep.json", "runs", "logs", "report.html"
FIGURE = "answer.svg"
_KIND = {"grid": dict, "jobs?": int | None}
_DAMAGED = f"{SWEEP}.damaged"
# Names of the files and folders that a sweep writes.
_OWN = (SWEEP, RUNS, LOGS, REPORT, FIGURE, _DAMAGED, f"{REPORT}.tmp", f"{FIGURE}.tmp")


class Place(NamedTuple):
    """A replicate of a run."""

    path: Path  # the run's directory
    r: int  # index of the replicate in the run


class Store(NamedTuple):
    """The runs of a folder."""

    done: dict[Config, Place]  # complete replicates, diverged ones included
    begun: list[grid.Group]  # of runs that are not complete


def default_name(script: str, wanted: Sequence[Config]) -> str:
    """The default folder of a grid, e.g. runs/sweep-mnist_small-1a2b3c4d.

    If the folder that an earlier version gave to this grid exists, it is that one.
    """
    start = os.path.join("runs", f"{script}-{data.short_name(wanted[0].dataset)}")
    name = f"{start}-{grid.digest(wanted)}"
    return rundir.first_existing(name, start, old_digests.digest_of_all(wanted))


@contextlib.contextmanager
def claim(workdir: str, overwrite: bool) -> Iterator[Path]:
    """Locks a sweep's folder for this process; creates it, or checks that it is a sweep's.

    If sweep.json is damaged or missing beside runs, it is made again, with a warning. A read-only
    folder is opened for reading, without a lock.

    Args:
      workdir: the folder; it may exist if it is empty or a sweep's.
      overwrite: True to delete an earlier sweep first, but no other files.

    Raises:
      UserError: it cannot be written, is in use, or holds something else.
    """
    path = Path(workdir).expanduser()
    if not overwrite and (path / SWEEP).exists() and rundir.is_read_only(path):
        json_files.read(path / SWEEP, _KIND)
        yield path
        return
    with rundir.locked(workdir) as path:
        try:
            names = sorted(n for n in os.listdir(path) if n not in (".lock", f"{SWEEP}.tmp"))
        except OSError as error:
            raise UserError(f"--workdir={path} cannot be read: {error.strerror}.") from error
        if names:
            _check(path, names, overwrite)
        if overwrite and names:
            _remove(path)
        yield path


def _check(path: Path, names: list[str], overwrite: bool) -> None:
    """Raises a UserError if the folder is not a sweep's. Renames a damaged sweep.json."""
    try:
        json_files.read(path / SWEEP, _KIND)
        return
    except UserError as error:
        reason = str(error)
    # A folder "runs" may also hold runs that experiments.run made.
    has_runs = any(_is_of_a_sweep(run) for run in _runs(path))
    foreign = [name for name in names if name not in _OWN]
    if not has_runs or (foreign and SWEEP not in names):
        raise UserError(
            f"--workdir={path} is not empty and not a sweep's folder (it holds "
            f"{(foreign or names)[0]}; {reason}); choose a new or empty one."
        )
    if not overwrite:
        rundir.set_aside(path / SWEEP, path / _DAMAGED)
        warnings.warn(f"{reason}; it is made anew from the runs", DamageWarning, stacklevel=1)


def _is_of_a_sweep(run: Path) -> bool:
    """Returns True if the run's configuration lists replicas, as a sweep's does."""
    try:
        return "replicas" in run_files.read_config(run)
    except UserError:
        return False


def make_folders(path: Path) -> None:
    """Creates the folders of runs and of logs.

    Raises:
      UserError: one cannot be created.
    """
    for folder in (path / RUNS, path / LOGS):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder} must be a folder ({error.strerror}); move the file away."
            ) from error


def jobs(path: Path) -> int | None:
    """Number of processes that trained at a time; None if sweep.json does not store it."""
    return json_files.read(path / SWEEP, _KIND).get("jobs")


def digest_key(config: Config) -> str:
    """The key of a config's data among digests: labels count where the model is conditioned on
    them.
    """
    conditional = is_conditional(config.model_options)
    return f"{config.dataset} with labels" if conditional else config.dataset


def read(path: Path, digests: dict[str, str]) -> Store:
    """Reads which replicates the folder's runs have.

    Args:
      path: the sweep's folder.
      digests: `digest_key` -> the digest of the data.

    Raises:
      UserError: the images of a data set have changed since a run was trained on them.
    """
    done: dict[Config, Place] = {}
    begun = []
    for run in _runs(path):
        fields, digest = rundir.stored_replicas(run)
        try:
            replicas = [configs.from_dict(own) for own in fields]
        except UserError:
            continue  # written by another version
        for replica in replicas:
            new_digest = digests.get(digest_key(replica), digest)
            if new_digest != digest:
                changed = data.changed(replica.dataset, digest, new_digest)
                raise UserError(
                    f"{changed} {run} was trained on them; use --overwrite to replace the whole "
                    "sweep, or another --workdir."
                )
        if replicas and completing.is_complete(run):
            for r, replica in enumerate(replicas):
                done.setdefault(replica, Place(run, r))
        elif replicas:
            group = grid.group(replicas)
            if run.name != group.name:  # named by an earlier version
                group = group._replace(directory=run.name)
            begun.append(group)
    return Store(done, begun)


def missing(store: Store, wanted: Iterable[Config]) -> tuple[list[grid.Group], list[Config]]:
    """The groups to resume, and the wanted replicates that no run has.

    A run that was stopped is resumed if all of its replicates are wanted.
    """
    left = dict.fromkeys(replica for replica in wanted if replica not in store.done)
    begun = []
    for group in store.begun:
        if all(replica in left for replica in group.replicas):
            begun.append(group)
            for replica in group.replicas:
                del left[replica]
    return begun, list(left)


def adopt(path: Path, runs: Iterable[Path], wanted: Iterable[Config]) -> None:
    """Moves run directories from outside into a sweep's folder, as runs of the sweep.

    Args:
      path: the sweep's folder, claimed.
      runs: directories. One that is not a run's, or has replicates that are not wanted, stays.
      wanted: replicates of the sweep.

    Raises:
      UserError: one is in use, or cannot be moved.
    """
    wanted = set(wanted)
    for run in runs:
        fields, _ = rundir.stored_replicas(run)
        try:
            replicas = [configs.from_dict(own) for own in fields]
        except UserError:
            continue  # written by another version
        if not replicas or not wanted.issuperset(replicas):
            continue
        target = path / RUNS / grid.group(replicas).name
        if target.exists():
            continue
        make_folders(path)
        with rundir.locked(str(run)):
            # A worker compares the replicates of its task with those that its run stores.
            own = {"replicas": [{"seed": replica.seed} for replica in replicas]}
            write_summary(run / run_files.CONFIG, own | run_files.read_config(run))
        try:
            run.rename(target)
        except OSError as error:
            raise UserError(f"cannot move {run} to {target}: {error.strerror}.") from error


def summary(run: Path) -> dict[str, Any]:
    """A complete run's summary.json."""
    return run_files.read_summary(run)


def _runs(path: Path) -> list[Path]:
    folder = path / RUNS
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    """Deletes everything that a sweep writes from its folder."""
    for run in _runs(path):
        rundir.remove(run)
    try:
        if (path / LOGS).is_dir():
            shutil.rmtree(path / LOGS)
        with contextlib.suppress(OSError):  # it stays if it holds something else
            (path / RUNS).rmdir()
        for name in (REPORT, FIGURE, _DAMAGED, SWEEP):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--overwrite cannot clear {path}: {error.strerror}.") from error
