"""Runs a sweep, from cells to report.html: trains what its folder lacks, and reports."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab import data, training
from elbo_lab.configs import Config
from elbo_lab.data import Dataset
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary
from elbo_lab.models.conditions import is_conditional
from elbo_lab.runs.progress import GRACE, GridProgress, Interrupt
from elbo_lab.sweeps import grid, sweep_folder, sweep_jobs


class Options(NamedTuple):
    """The options of a sweep besides its grid."""

    name: str  # start of the default folder's name
    workdir: str | None  # the sweep's folder; None: the default folder
    overwrite: bool  # delete an earlier sweep in the folder first
    jobs: int | None  # processes at a time; None: see `sweep_jobs.default_jobs`
    settings: sweep_jobs.Settings
    command: str  # the command line, for the report
    load: Callable[[str], Dataset]  # the name of a data set -> the data set
    check_data: Callable[[Config, Dataset], None]  # raises a UserError if the data do not fit
    one_core: bool = False  # bind each process to a single core, on a CPU


def conduct(
    cells: list[grid.Cell],
    baseline: int,
    options: Options,
    finish: Callable[[Path, dict[str, Any]], str] | None = None,
    earlier: Sequence[Path] = (),
    interrupt: Interrupt | None = None,
) -> int:
    """Trains the replicates that the folder lacks, and reports. Returns the exit status.

    Args:
      cells: the grid, including the cells that cannot be trained.
      baseline: index of the cell that the others are compared with.
      options: see `Options`.
      finish: (folder, content of sweep.json) -> text to print; writes a report into the folder. It
        is also called after a signal. If None, `sweep_reporting.report` is called, but not after a
        signal.
      earlier: run directories outside of the folder, to be moved into it if their replicates are
        wanted (see `sweep_folder.adopt`).
      interrupt: an existing handler of signals; a new one if not given.

    Raises:
      UserError: no cell can be trained, or the folder or a data set cannot be used.
    """
    cells, sizes, digests = with_data(cells, options)
    if cells[baseline].config is None:
        raise UserError(cells[baseline].reason)
    wanted = [r for c in cells if c.config for r in training.replicas(c.config)]
    workdir = options.workdir or sweep_folder.default_name(options.name, wanted)
    with sweep_folder.claim(workdir, options.overwrite) as path:
        # Imported late, so that a sweep that is refused ends sooner.
        from elbo_lab.sweeps import sweep_reporting, sweep_results

        for cell in cells:
            if cell.config is None:
                print(f"Skipped: {cell.name}: {cell.reason}", file=sys.stderr)
        sweep_folder.adopt(path, earlier, wanted)
        store = sweep_folder.read(path, digests)
        if not (path / sweep_folder.SWEEP).exists():
            plan = sweep_results.plan(cells, baseline, options.command)
            write_summary(path / sweep_folder.SWEEP, plan)
        interrupt = interrupt or new_interrupt()
        failed: dict[grid.Group, str] = {}
        jobs = sweep_folder.jobs(path)
        if any(replica not in store.done for replica in wanted):
            failed, jobs = train_missing(path, store, wanted, sizes, options, interrupt)
            store = sweep_folder.read(path, digests)
        if interrupt.signal:
            print(stopped_message(store, wanted, path, options.overwrite), file=sys.stderr)
            if finish is None:
                return interrupt.status()
        results = sweep_results.collect(cells, baseline, store, failed, options.command, jobs)
        print("\n" + (finish or sweep_reporting.report)(path, results))
        if interrupt.signal:
            return interrupt.status()
        return 0 if results["complete"] else 1


def new_interrupt() -> Interrupt:
    """A handler of signals that gives the processes of a sweep time to save."""
    return Interrupt(sweep_jobs.PATIENCE + GRACE)


def stopped_message(
    store: sweep_folder.Store, wanted: list[Config], path: Path, overwrite: bool
) -> str:
    """The message after a signal."""
    missing = sum(replica not in store.done for replica in set(wanted))
    but = " without --overwrite" if overwrite else ""
    return (
        f"Stopped; {missing} of {len(set(wanted))} replicates are not complete. The same "
        f"command{but} goes on ({path})."
    )


def with_data(
    cells: list[grid.Cell], options: Options
) -> tuple[list[grid.Cell], dict[str, tuple[int, int]], dict[str, str]]:
    """Loads each data set, and checks the cells against it.

    Returns:
      The cells, of which those that do not fit their data have become skipped ones; data set ->
      its numbers of training and test images; and `sweep_folder.digest_key` -> the digest.

    Raises:
      UserError: a data set cannot be loaded, or no cell fits its data.
    """
    sizes, digests, checked = {}, {}, list(cells)
    names = dict.fromkeys(cell.config.dataset for cell in cells if cell.config)
    for name in names:
        dataset = options.load(name)
        sizes[name] = len(dataset.x_train), len(dataset.x_test)
        digests[name] = data.digest(dataset)
        own = [cell.config for cell in checked if cell.config and cell.config.dataset == name]
        conditional = [config for config in own if is_conditional(config.model_options)]
        if conditional:
            key = sweep_folder.digest_key(conditional[0])
            digests[key] = data.digest(dataset, with_labels=True)
        for i, cell in enumerate(checked):
            if cell.config and cell.config.dataset == name:
                try:
                    options.check_data(cell.config, dataset)
                except UserError as error:
                    checked[i] = cell._replace(config=None, reason=str(error))
    if all(cell.config is None for cell in checked):
        # The reason of the first cell that did not fit its data.
        for cell, before in zip(checked, cells, strict=True):
            if before.config is not None:
                raise UserError(cell.reason)
    return checked, sizes, digests


def train_missing(
    path: Path,
    store: sweep_folder.Store,
    wanted: list[Config],
    sizes: dict[str, tuple[int, int]],
    options: Options,
    interrupt: Interrupt,
) -> tuple[dict[grid.Group, str], int]:
    """Trains the wanted replicates that the folder does not have.

    Args:
      path: the sweep's folder.
      store: its runs.
      wanted: all replicates of the grid.
      sizes: data set -> its numbers of training and test images.
      options: see `Options`.
      interrupt: has the signal that has come, if any.

    Returns:
      Group -> the reason why it failed; and the number of groups that ran at a time.
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
    earlier = sum(total(replica) for replica in set(wanted) if replica in store.done)
    works = []
    for group in groups:
        number, each = len(group.replicas), work(group.replicas[0])
        works.append(sweep_jobs.Work(number * each.training, number * each.evaluation))
    progress = GridProgress("sweep", earlier + sum(w.total for w in works), earlier)

    def show(done: float, left: float | None, text: str, ended: int) -> None:
        progress.to(earlier + done, left, text, ended)

    try:
        failed = sweep_jobs.run(
            groups, works, path, options.settings, jobs, on_cpu, interrupt, show, options.one_core
        )
        return failed, jobs
    finally:
        progress.close()
