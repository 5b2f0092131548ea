"""What a sweep's folder holds: runs, from which any grid's replicates are looked up.

sweep.json     the grid, and its results once it is done; its presence makes a folder a sweep's
runs/NAME/     a run's directory for each group of replicates
logs/NAME.txt  what its process printed
report.html    the results to read
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
from elbo_lab.runs import completing, old_digests, run_files, rundir
from elbo_lab.sweeps import grid

SWEEP, RUNS, LOGS, REPORT = "sweep.json", "runs", "logs", "report.html"
FIGURE = "answer.svg"
_KIND = {"grid": dict, "jobs?": int | None}
_DAMAGED = f"{SWEEP}.damaged"
# What a sweep writes.
_OWN = (SWEEP, RUNS, LOGS, REPORT, FIGURE, _DAMAGED, f"{REPORT}.tmp", f"{FIGURE}.tmp")


class Place(NamedTuple):
    """Where a replicate's numbers are."""

    path: Path  # of the run
    r: int  # which replicate of it


class Store(NamedTuple):
    """The runs of a folder."""

    done: dict[Config, Place]  # complete replicates, diverged ones included
    begun: list[grid.Group]  # of runs that are not complete


def default_name(script: str, wanted: Sequence[Config]) -> str:
    """A folder of its own for each grid, e.g. runs/sweep-mnist_small-1a2b3c4d: the one that an
    earlier version gave it, if that is there.
    """
    start = os.path.join("runs", f"{script}-{Path(wanted[0].dataset).stem}")
    name = f"{start}-{grid.digest(wanted)}"
    return rundir.first_existing(name, start, old_digests.digest_of_all(wanted))


@contextlib.contextmanager
def claim(workdir: str, overwrite: bool) -> Iterator[Path]:
    """Opens a sweep's folder for this process alone; creates it, or checks that it is a sweep's.

    A sweep.json that is damaged or lost beside runs is made anew, with a warning. A folder in which
    nothing can be written is opened for reading.

    Args:
      workdir: the folder; it may exist if it is empty or a sweep's.
      overwrite: remove an earlier sweep first (and no other files).

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
            others = sorted(n for n in os.listdir(path) if n not in (".lock", f"{SWEEP}.tmp"))
        except OSError as error:
            raise UserError(f"--workdir={path} cannot be read: {error.strerror}.") from error
        if others:
            _check(path, others, overwrite)
        if overwrite and others:
            _remove(path)
        yield path


def _check(path: Path, others: list[str], overwrite: bool) -> None:
    """Raises UserError if a folder is no sweep's. A damaged sweep.json is set aside."""
    try:
        json_files.read(path / SWEEP, _KIND)
        return
    except UserError as error:
        reason = str(error)
    # Runs that experiments.run made may lie in a folder of this name too.
    has_runs = any(map(_is_of_a_sweep, _runs(path)))
    foreign = [name for name in others if name not in _OWN]
    if not has_runs or (foreign and SWEEP not in others):
        raise UserError(
            f"--workdir={path} is not empty and not a sweep's folder (it holds "
            f"{(foreign or others)[0]}; {reason}); choose a new or empty one."
        )
    if not overwrite:
        rundir.set_aside(path / SWEEP, path / _DAMAGED)
        warnings.warn(f"{reason}; it is made anew from the runs", DamageWarning, stacklevel=1)


def _is_of_a_sweep(run: Path) -> bool:
    try:
        return "replicas" in run_files.read_config(run)
    except UserError:
        return False


def make_folders(path: Path) -> None:
    """Makes the folders of runs and of logs.

    Raises:
      UserError: one cannot be made.
    """
    for folder in (path / RUNS, path / LOGS):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder} has to be a folder ({error.strerror}); move what is there away."
            ) from error


def jobs(path: Path) -> int | None:
    """How many processes trained at a time, where sweep.json says it."""
    return json_files.read(path / SWEEP, _KIND).get("jobs")


def read(path: Path, digests: dict[str, str]) -> Store:
    """Looks through the folder's runs.

    Args:
      path: the sweep's folder.
      digests: data set -> the digest of its images.

    Raises:
      UserError: a data set's images have changed since a run was made of them.
    """
    done: dict[Config, Place] = {}
    begun = []
    for run in _runs(path):
        fields, digest = rundir.stored_replicas(run)
        try:
            replicas = [configs.from_dict(own) for own in fields]
        except UserError:
            continue  # another version's
        for replica in replicas:
            new_digest = digests.get(replica.dataset, digest)
            if new_digest != digest:
                changed = data.changed(replica.dataset, digest, new_digest)
                raise UserError(
                    f"{changed} {run} was made of them; use --overwrite to replace the whole "
                    "sweep, or another --workdir."
                )
        if replicas and completing.is_complete(run):
            for r, replica in enumerate(replicas):
                done.setdefault(replica, Place(run, r))
        elif replicas:
            group = grid.group(replicas)
            if run.name != group.name:  # an earlier version's name
                group = group._replace(directory=run.name)
            begun.append(group)
    return Store(done, begun)


def missing(store: Store, wanted: Iterable[Config]) -> tuple[list[grid.Group], list[Config]]:
    """What is left to do: runs to go on with, and replicates that no run has.

    A run that was stopped is gone on with if all of its replicates are wanted.
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
    """Moves run directories that were made outside of a sweep into its folder, as runs of its own.

    Args:
      path: the sweep's folder, claimed.
      runs: directories; those that hold no run, or replicates that are not wanted, stay.
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
            continue  # another version's
        target = path / RUNS / grid.group(replicas).name if replicas else run
        if not replicas or not wanted.issuperset(replicas) or target.exists():
            continue
        make_folders(path)
        with rundir.locked(str(run)):
            # A worker is told which replicates its run has, and compares them with what is stored.
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
    for run in _runs(path):
        rundir.remove(run)
    try:
        if (path / LOGS).is_dir():
            shutil.rmtree(path / LOGS)
        with contextlib.suppress(OSError):  # left where it holds something else
            (path / RUNS).rmdir()
        for name in (REPORT, FIGURE, _DAMAGED, SWEEP):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--overwrite cannot clear {path}: {error.strerror}.") from error
