"""What a sweep's folder holds: runs, from which any grid's replicates are looked up.

sweep.json     the grid, and its results once it is done; its presence makes a folder a sweep's
runs/NAME/     a run's directory for each group of replicates
logs/NAME.txt  what its process printed
report.html    the results to read
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab import config as configs
from elbo_lab import grid, report, rundir
from elbo_lab.config import Config
from elbo_lab.errors import UserError
from experiments import completing

SWEEP, RUNS, LOGS, REPORT = "sweep.json", "runs", "logs", "report.html"


class Place(NamedTuple):
    """Where a replicate's numbers are."""

    path: Path  # of the run
    r: int  # which replicate of it


class Store(NamedTuple):
    """The runs of a folder."""

    done: dict[Config, Place]  # complete replicates, diverged ones included
    begun: list[grid.Group]  # of runs that are not complete


@contextlib.contextmanager
def claim(workdir: str, overwrite: bool) -> Iterator[Path]:
    """Opens a sweep's folder for this process alone; creates it, or checks that it is a sweep's.

    Args:
      workdir: the folder; it may exist if it is empty or a sweep's.
      overwrite: remove an earlier sweep first (and no other files).

    Raises:
      UserError: it cannot be written, is in use, or holds something else.
    """
    with rundir.locked(workdir) as path:
        try:
            others = sorted(n for n in os.listdir(path) if n not in (".lock", f"{SWEEP}.tmp"))
        except OSError as error:
            raise UserError(f"--workdir={path} cannot be read: {error.strerror}.") from error
        stored = report.read_json(path / SWEEP) if SWEEP in others else None
        if others and not (isinstance(stored, dict) and "grid" in stored):
            raise UserError(
                f"--workdir={path} is not empty and not a sweep's folder (it holds {others[0]}); "
                "choose a new or empty one."
            )
        if overwrite and others:
            _remove(path)
        yield path


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
        except TypeError:
            continue  # another version's
        for replica in replicas:
            if digests.get(replica.dataset, digest) != digest:
                raise UserError(
                    f"the images of {replica.dataset} have changed since {run} was made of them; "
                    "use --overwrite to replace the whole sweep, or another --workdir."
                )
        if replicas and completing.is_complete(run):
            for r, replica in enumerate(replicas):
                done.setdefault(replica, Place(run, r))
        elif replicas:
            begun.append(grid.group(replicas))
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


def summary(run: Path) -> dict[str, Any]:
    """A complete run's summary.json."""
    return report.read_json(run / rundir.SUMMARY)


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
        for name in (REPORT, SWEEP):
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--overwrite cannot clear {path}: {error.strerror}.") from error
