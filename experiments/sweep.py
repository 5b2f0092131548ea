"""Trains a grid of configurations, several seeds each, compares them, and writes report.html.

    python -m experiments.sweep --objective=elbo,iwae --k=1,5,50 --replicates=5

Every flag of a configuration takes several values, separated by commas; those whose values hold
commas themselves (--latent_dims, --hidden_dims, --upper_hidden_dims, --partition) by semicolons:
--latent_dims="50;100,50". Switches are written --shuffle=true,false. Combinations that do not go
together are left out and listed.

The same command goes on with a sweep that was stopped. A larger grid in the same --workdir adds
what is missing, and a smaller one reports what it has in common: replicates are looked up by their
whole configuration. --workdir is the sweep's folder; --overwrite removes what is in it first.
"""

import json
import shlex
import sys
from pathlib import Path

from absl import flags

from elbo_lab import configs, data, training
from elbo_lab.cli import grid_flags, run_flags, validation
from elbo_lab.cli.flag_values import define_optional_count
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary
from elbo_lab.runs.progress import GRACE, GridProgress, Interrupt
from elbo_lab.sweeps import grid, sweep_folder, sweep_jobs


def main() -> int:
    """Flags -> cells -> what `conduct` does with them. Returns the exit status."""
    cells = grid_flags.cells()
    return conduct("sweep", cells, grid_flags.baseline(cells, flags.FLAGS.baseline))


def conduct(script: str, cells: list[grid.Cell], baseline: int) -> int:
    """Cells -> groups -> processes -> results -> report. Returns the exit status.

    Args:
      script: experiments.<script> is what a person started; sweeps and what is made of them.
      cells: the grid, those that cannot be trained included.
      baseline: index of the cell that the others are compared with.
    """
    values = flags.FLAGS
    if values.print_config:
        print(json.dumps([described(cell) for cell in cells], indent=2))
        return 0
    cells, sizes, digests = with_data(cells)
    if cells[baseline].config is None:
        raise UserError(cells[baseline].reason)
    wanted = [r for c in cells if c.config for r in training.replicas(c.config)]
    command = shlex.join(["python", "-m", f"experiments.{script}", *sys.argv[1:]])
    workdir = values.workdir or sweep_folder.default_name(script, wanted)
    with sweep_folder.claim(workdir, values.overwrite) as path:
        from elbo_lab.sweeps import sweep_reporting, sweep_results

        for cell in cells:
            if cell.config is None:
                print(f"Skipped: {cell.name}: {cell.reason}", file=sys.stderr)
        store = sweep_folder.read(path, digests)
        if not (path / sweep_folder.SWEEP).exists():
            plan = sweep_results.plan(cells, baseline, command)
            write_summary(path / sweep_folder.SWEEP, plan)
        interrupt, failed = Interrupt(sweep_jobs.PATIENCE + GRACE), {}
        jobs = sweep_folder.jobs(path)
        if any(replica not in store.done for replica in wanted):
            failed, jobs = train_missing(path, store, wanted, sizes, interrupt)
            store = sweep_folder.read(path, digests)
        if interrupt.signal:
            print(stopped(store, wanted, path), file=sys.stderr)
            return interrupt.status()
        results = sweep_results.collect(cells, baseline, store, failed, command, jobs)
        print("\n" + sweep_reporting.report(path, results))
        return 0 if results["complete"] else 1


def stopped(store: sweep_folder.Store, wanted: list[Config], path: Path) -> str:
    """What a person is told after a signal."""
    left = sum(replica not in store.done for replica in wanted)
    but = " without --overwrite" if flags.FLAGS.overwrite else ""
    return (
        f"Stopped; {left} of {len(set(wanted))} replicates are not complete. The same command{but} "
        f"goes on ({path})."
    )


def with_data(
    cells: list[grid.Cell],
) -> tuple[list[grid.Cell], dict[str, tuple[int, int]], dict[str, str]]:
    """Loads each data set once: the cells that go with theirs (the others are skipped ones), and of
    each data set the numbers of training and test images and the digest.

    Raises:
      UserError: a data set cannot be had, or no cell goes with its data.
    """
    in_file = bool(run_flags.placement_from_flags().stream)
    sizes, digests, found = {}, {}, list(cells)
    names = dict.fromkeys(cell.config.dataset for cell in cells if cell.config)
    for name in names:
        dataset = run_flags.load_data("dataset", name, in_file)
        sizes[name] = len(dataset.x_train), len(dataset.x_test)
        digests[name] = data.digest(dataset)
        for i, cell in enumerate(found):
            if cell.config and cell.config.dataset == name:
                try:
                    validation.check_data(cell.config, dataset)
                except UserError as error:
                    found[i] = cell._replace(config=None, reason=str(error))
    if all(cell.config is None for cell in found):
        raise UserError(next(c.reason for c, was in zip(found, cells, strict=True) if was.config))
    return found, sizes, digests


def train_missing(
    path: Path,
    store: sweep_folder.Store,
    wanted: list[Config],
    sizes: dict[str, tuple[int, int]],
    interrupt: Interrupt,
) -> tuple[dict[grid.Group, str], int]:
    """Trains what the folder does not have yet.

    Returns:
      Why groups failed, and how many were trained at a time.
    """
    values = flags.FLAGS
    settings = sweep_jobs.Settings(
        values.platform,
        values.compilation_cache_dir,
        values["compilation_cache_dir"].present > 0,
        values.tensorboard,
        values.data_dir,
        values.manual_dir,
        tuple(run_flags.placement_from_flags()),
    )

    def work(replica: Config) -> sweep_jobs.Work:
        num_train, num_test = sizes[replica.dataset]
        return sweep_jobs.Work(
            grid.training_work(replica, num_train),
            grid.evaluation_work(replica, num_test or replica.held_out),
        )

    def total(replica: Config) -> float:
        return work(replica).total

    on_cpu = sweep_jobs.platform(settings) == "cpu"
    begun, left = sweep_folder.missing(store, wanted)
    count = len(left) + sum(len(group.replicas) for group in begun)
    jobs = values.jobs or sweep_jobs.default_jobs(on_cpu, count)
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
        failed = sweep_jobs.run(groups, works, path, settings, jobs, on_cpu, interrupt, show)
        return failed, jobs
    finally:
        progress.close()


def described(cell: grid.Cell) -> dict:
    """A cell for --print_config."""
    if cell.config is None:
        return {"cell": cell.name, "skipped": cell.reason}
    return {"cell": cell.name, "config": configs.to_dict(cell.config)}


def define() -> None:
    """The script's flags."""
    run_flags.define(texts=True, without=run_flags.DISTRIBUTED)
    flags.DEFINE_string(
        "baseline",
        None,
        "the cell that others are compared with, as objective=elbo,k=1 (the first one that has "
        "these values; the grid's first if not given)",
    )
    define_jobs()


def define_jobs() -> None:
    """The flag of how much is trained at a time."""
    define_optional_count(
        "jobs",
        "processes at a time, each with its share of the cores or of the GPU's memory (if not "
        "given, on a CPU as many as there are cores, else one)",
        least=1,
    )


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
