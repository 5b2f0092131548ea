"""Runs a study with rungs: a sweep for each rung, one after another, and the report of the whole.

The study's folder holds
  rung1/, rung2/, ...  the sweep of each rung
  study.json           every candidate's course through the rungs
  report.html          the page of the study, beside those of its rungs
  answer.svg           value against compute
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import training
from elbo_lab.errors import UserError
from elbo_lab.files import jsonable
from elbo_lab.runs import rundir
from elbo_lab.runs.progress import Interrupt
from elbo_lab.studies import halving, halving_reporting
from elbo_lab.studies.halving import Candidate
from elbo_lab.studies.study import Study
from elbo_lab.sweeps import grid, sweep_folder, sweep_reporting, sweep_running

_RUNG = re.compile(r"rung\d+")
_OWN = (halving_reporting.STUDY, sweep_folder.REPORT, sweep_folder.FIGURE)


def conduct(
    study: Study,
    candidates: Sequence[Candidate],
    options: sweep_running.Options,
    results_dir: Path | None = None,
) -> int:
    """Trains what the rungs lack, and reports. Returns the exit status.

    Args:
      study: with rungs.
      candidates: all of them, including those that cannot be trained.
      options: of every rung; its workdir is the study's folder.
      results_dir: a folder for the results of a complete study; None: no such file.

    Raises:
      UserError: no candidate can be trained, or the folder or the data cannot be used.
    """
    first = [candidate.cells[0] for candidate in candidates]
    if all(cell.config is None for cell in first):
        raise UserError(first[0].reason)
    workdir = options.workdir
    if workdir is None:
        wanted = [r for cell in first if cell.config for r in training.replicas(cell.config)]
        workdir = sweep_folder.default_name(options.name, wanted)
    with claim(workdir, options.overwrite) as path:
        interrupt = sweep_running.new_interrupt()
        sweeps: list[dict[str, Any]] = []
        rungs_of: list[list[int]] = []  # for each rung, the indices of its candidates
        left = list(range(len(candidates)))
        for number, rung in enumerate(study.halving.rungs):
            folder = _rung_folder(path, number)
            print(_heading(study, number, len(left)), flush=True)
            cells = [candidates[index].cells[number] for index in left]
            own_options = options._replace(workdir=str(folder))
            sweeps.append(_trained(cells, own_options, interrupt))
            rungs_of.append(left)
            if interrupt.signal or not halving.is_complete(sweeps[-1]):
                break
            left = [left[place] for place in halving.survivors(sweeps[-1], rung.keep)]
            if not left:
                break
        content = halving.content(study, candidates, sweeps, rungs_of, options.command)
        print("\n" + halving_reporting.report(path, content, results_dir))
        if interrupt.signal:
            return interrupt.status()
        return 0 if content["complete"] and left else 1


def _trained(
    cells: list[grid.Cell], options: sweep_running.Options, interrupt: Interrupt
) -> dict[str, Any]:
    """Trains the cells of a rung, and prints its table. Returns the content of sweep.json."""
    kept: list[dict[str, Any]] = []

    def finish(path: Path, sweep: dict[str, Any]) -> str:
        kept.append(jsonable(sweep))
        return sweep_reporting.report(path, sweep)

    checked, _, _ = sweep_running.with_data(cells, options)
    baseline = next(index for index, cell in enumerate(checked) if cell.config is not None)
    sweep_running.conduct(cells, baseline, options, finish, interrupt=interrupt)
    return kept[0]


def _heading(study: Study, number: int, count: int) -> str:
    rungs = study.halving.rungs
    budget = f"{rungs[number].budget:,.10g} reference steps"
    noun = "candidate" if count == 1 else "candidates"
    return f"\nRung {number + 1} of {len(rungs)}: {count} {noun}, {budget} each"


def _rung_folder(path: Path, number: int) -> Path:
    return path / f"rung{number + 1}"


@contextlib.contextmanager
def claim(workdir: str, overwrite: bool) -> Iterator[Path]:
    """Locks a study's folder for this process, and creates it or checks that it is a study's.

    With `overwrite`, the reports of an earlier study are deleted and its rungs cleared. A read-only
    folder is opened for reading.

    Raises:
      UserError: it cannot be written, is in use, or holds something else.
    """
    path = Path(workdir).expanduser()
    if not overwrite and (path / halving_reporting.STUDY).exists() and rundir.is_read_only(path):
        yield path
        return
    with rundir.locked(workdir) as path:
        names = sorted(os.listdir(path))
        foreign = [n for n in names if not (n in _OWN or _RUNG.fullmatch(n) or _is_temporary(n))]
        if foreign:
            raise UserError(
                f"--workdir={workdir} is not empty and not the folder of a study with rungs (it "
                f"holds {foreign[0]}); choose a new or empty one."
            )
        for name in names if overwrite else []:
            if name in _OWN:
                (path / name).unlink()
            elif _RUNG.fullmatch(name):
                with sweep_folder.claim(str(path / name), overwrite=True):
                    pass
        yield path


def _is_temporary(name: str) -> bool:
    """True for the lock, and for files that a killed process had begun to write."""
    return name == ".lock" or name.removesuffix(".tmp") in _OWN
