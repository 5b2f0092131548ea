"""Rows that a study computes from its trained runs, kept in a file of the study's folder.

A study that is killed goes on where it was, and a run that was trained again is computed again.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab.data import Dataset
from elbo_lab.runs import rundir
from elbo_lab.runs.loading import Trained
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import stored_results
from elbo_lab.studies.study import Load
from elbo_lab.sweeps import sweep_results

Place = tuple[str, int]  # a run's folder in the study's, and a replicate


class Run(NamedTuple):
    """One trained replicate of a cell."""

    cell: dict[str, Any]  # of sweep.json
    place: Place
    trained: Trained


class Part(NamedTuple):
    """Rows that are computed together."""

    # What all its rows have, and no other part's: "source", which says what they are computed from
    # (the digest of a checkpoint), and the names that rows of one source differ in
    fields: dict[str, Any]
    rows: Callable[[], Iterable[dict[str, Any]]]  # computes the other fields of each row


def is_ready(path: Path, sweep: dict[str, Any]) -> bool:
    """True once no cell waits, if the folder can be written.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
    """
    return not sweep_results.is_waiting(sweep) and not rundir.is_read_only(path)


def places(cell: dict[str, Any]) -> list[Place]:
    """The places of a cell's runs; [] if it has none."""
    return [(run["run"], run["replicate"]) for run in cell.get("runs", [])]


def trained_runs(path: Path, sweep: dict[str, Any], load: Load) -> list[Run]:
    """The trained replicates of all cells; [] unless `is_ready`.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
      load: reads a trained run.

    Raises:
      UserError: a run cannot be loaded.
    """
    if not is_ready(path, sweep):
        return []
    runs: list[Run] = []
    datasets: dict[tuple[str, int], Dataset] = {}  # equal data are held once
    for cell in sweep["cells"]:
        for folder, replicate in places(cell):
            trained = load(path / folder, replicate)
            name = trained.config.dataset, trained.config.held_out
            dataset = datasets.setdefault(name, trained.dataset)
            runs.append(Run(cell, (folder, replicate), trained._replace(dataset=dataset)))
    return runs


def compute_missing(
    file: Path,
    content: dict[str, Any],
    parts: Sequence[Part],
    task: str,
    unit: str,
    *,
    field: str = "rows",
    each: int = 1,
) -> None:
    """Computes the rows that a file lacks, and writes it after each part, without rows of no part,
    such as those of a run that was trained again since.

    Args:
      file: a JSON file.
      content: of the file, or what it begins with.
      parts: of all rows that it shall have.
      task: shown with the progress, "scores".
      unit: of the progress, what a row is computed for: "runs".
      field: the list of rows in the content.
      each: number of rows of a part.

    Raises:
      UserError: the file cannot be written.
    """
    rows = [row for row in content[field] if any(_is_of(row, part) for part in parts)]
    missing = [part for part in parts if not any(_is_of(row, part) for row in rows)]
    if not missing:
        return
    done = each * (len(parts) - len(missing))
    with contextlib.closing(Progress(task, each * len(parts), done, unit)) as progress:
        for part in missing:
            for row in part.rows():
                rows.append(part.fields | row)
                progress.to(progress.done + 1)
            stored_results.write(file, content | {field: rows})


def _is_of(row: dict[str, Any], part: Part) -> bool:
    return all(row.get(name) == value for name, value in part.fields.items())
