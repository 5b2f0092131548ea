"""Trains what a grid lacks in a sweep's folder, and reports: from cells to report.html."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab import data, training
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary
from elbo_lab.runs.progress import GRACE, GridProgress, Interrupt
from elbo_lab.sweeps import grid, sweep_folder, sweep_jobs


class Options(NamedTuple):
    """How a sweep is run, whatever its grid."""

    name: str  # in the folder's name where no folder is given
    workdir: str | None
    overwrite: bool  # remove an earlier sweep in the folder first
    jobs: int | None  # processes at a time; None: see `sweep_jobs.default_jobs`
    settings: sweep_jobs.Settings
    command: str  # that makes the sweep
    load: Callable[[str], Dataset]  # a data set by its name
    check_data: Callable[[Config, Dataset], None]  # raises UserError where they do not go together


def conduct(
    cells: list[grid.Cell],
    baseline: int,
    options: Options,
    finish: Callable[[Path, dict[str, Any]], str] | None = None,
    earlier: Sequence[Path] = (),
) -> int:
    """Cells -> groups -> processes -> results -> report. Returns the exit status.

    Args:
      cells: the grid, those that cannot be trained included.
      baseline: index of the cell that the others are compared with.
      options: where and how.
      finish: writes a report into the folder, of what sweep.json is to hold, and returns what is
        printed; called after a signal too. A sweep's own report, if not given, is made of a sweep
        that was not stopped.
      earlier: directories of runs outside of the folder that are its own, where their replicates
        are wanted (see `sweep_folder.adopt`).

    Raises:
      UserError: no cell can be trained, or the folder or a data set cannot be used.
    """
    cells, sizes, digests = with_data(cells, options)
    if cells[baseline].config is None:
        raise UserError(cells[baseline].reason)
    wanted = [r for c in cells if c.config for r in training.replicas(c.config)]
    workdir = options.workdir or sweep_folder.default_name(options.name, wanted)
    with sweep_folder.claim(workdir, options.overwrite) as path:
        from elbo_lab.sweeps import sweep_reporting, sweep_results

        for cell in cells:
            if cell.config is None:
                print(f"Skipped: {cell.name}: {cell.reason}", file=sys.stderr)
        sweep_folder.adopt(path, earlier, wanted)
        store = sweep_folder.read(path, digests)
        if not (path / sweep_folder.SWEEP).exists():
            plan = sweep_results.plan(cells, baseline, options.command)
            write_summary(path / sweep_folder.SWEEP, plan)
        interrupt, failed = Interrupt(sweep_jobs.PATIENCE + GRACE), {}
        jobs = sweep_folder.jobs(path)
        if any(replica not in store.done for replica in wanted):
            failed, jobs = train_missing(path, store, wanted, sizes, options, interrupt)
            store = sweep_folder.read(path, digests)
        if interrupt.signal:
            print(stopped(store, wanted, path, options.overwrite), file=sys.stderr)
            if finish is None:
                return interrupt.status()
        results = sweep_results.collect(cells, baseline, store, failed, options.command, jobs)
        print("\n" + (finish or sweep_reporting.report)(path, results))
        if interrupt.signal:
            return interrupt.status()
        return 0 if results["complete"] else 1


def stopped(store: sweep_folder.Store, wanted: list[Config], path: Path, overwrite: bool) -> str:
    """What a person is told after a signal."""
    left = sum(replica not in store.done for replica in wanted)
    but = " without --overwrite" if overwrite else ""
    return (
        f"Stopped; {left} of {len(set(wanted))} replicates are not complete. The same command{but} "
        f"goes on ({path})."
    )


def with_data(
    cells: list[grid.Cell], options: Options
) -> tuple[list[grid.Cell], dict[str, tuple[int, int]], dict[str, str]]:
    """Loads each data set once.

    Returns:
      The cells, those that do not go with their data as skipped ones; the numbers of training and
      test images of each data set; and its digest.

    Raises:
      UserError: a data set cannot be had, or no cell goes with its data.
    """
    sizes, digests, checked = {}, {}, list(cells)
    names = dict.fromkeys(cell.config.dataset for cell in cells if cell.config)
    for name in names:
        dataset = options.load(name)
        sizes[name] = len(dataset.x_train), len(dataset.x_test)
        digests[name] = data.digest(dataset)
        for i, cell in enumerate(checked):
            if cell.config and cell.config.dataset == name:
                try:
                    options.check_data(cell.config, dataset)
                except UserError as error:
                    checked[i] = cell._replace(config=None, reason=str(error))
    if all(cell.config is None for cell in checked):
        raise UserError(next(c.reason for c, was in zip(checked, cells, strict=True) if was.config))
    return checked, sizes, digests


def train_missing(
    path: Path,
    store: sweep_folder.Store,
    wanted: list[Config],
    sizes: dict[str, tuple[int, int]],
    options: Options,
    interrupt: Interrupt,
) -> tuple[dict[grid.Group, str], int]:
    """Trains what the folder does not have yet.

    Returns:
      Why groups failed, and how many were trained at a time.
    """

    def work(replica: Config) -> sweep_jobs.Work:
        num_train, num_test = sizes[replica.dataset]
        return sweep_jobs.Work(
            grid.training_work(replica, num_train),
            grid.evaluation_work(replica, num_test or replica.held_out),
        )

    def total(replica: Config) -> float:
        return work(replica).total

    on_cpu = sweep_jobs.platform(options.settings) == "cpu"
    begun, left = sweep_folder.missing(store, wanted)
    count = len(left) + sum(len(group.replicas) for group in begun)
    jobs = options.jobs or sweep_jobs.default_jobs(on_cpu, count)
    groups = begun + grid.groups(left, total, jobs)
    whole = dict.fromkeys(wanted)
    earlier = sum(total(replica) for replica in whole if replica in store.done)
    works = [
        sweep_jobs.Work(*(len(g.replicas) * part for part in work(g.replicas[0]))) for g in groups
    ]
    progress = GridProgress("sweep", earlier + sum(part.total for part in works), earlier)

    def show(done: float, left: float | None, text: str, ended: int) -> None:
        progress.to(earlier + done, left, text, ended)

    try:
        failed = sweep_jobs.run(
            groups, works, path, options.settings, jobs, on_cpu, interrupt, show
        )
        return failed, jobs
    finally:
        progress.close()
