"""The flags of all scripts that run a sweep: its folder, and how its runs are trained."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from elbo_lab import configs, data
from elbo_lab.cli import run_flags, validation
from elbo_lab.cli.flag_values import define_optional_count
from elbo_lab.sweeps import grid, sweep_jobs, sweep_running


def conduct(
    script: str,
    cells: list[grid.Cell],
    baseline: int,
    name: str | None = None,
    workdir: Path | None = None,
    finish: Callable[[Path, dict[str, Any]], str] | None = None,
    earlier: Sequence[Path] = (),
    one_core: bool = False,
) -> int:
    """Trains the runs that a sweep lacks, and reports it. Returns the exit status.

    With --print_config, prints the cells instead.

    Args:
      script: the name in `python -m experiments.<script>`.
      cells: the grid, including the cells that cannot be trained.
      baseline: index of the cell that the others are compared with.
      name: start of the folder's default name; None: the script's name.
      workdir: the sweep's folder; None: that of --workdir.
      finish: see `sweep_running.conduct`.
      earlier: see `sweep_running.conduct`.
      one_core: True to bind each process to a single core, on a CPU.
    """
    if flags.FLAGS.print_config:
        print(json.dumps([described(cell) for cell in cells], indent=2))
        return 0
    sweep_options = options(script, name or script, workdir or flags.FLAGS.workdir, one_core)
    return sweep_running.conduct(cells, baseline, sweep_options, finish, earlier)


def options(
    script: str, name: str, workdir: str | Path | None, one_core: bool = False
) -> sweep_running.Options:
    """The options of a sweep that the command line gives."""
    values = flags.FLAGS
    settings = sweep_jobs.Settings(
        platform=values.platform,
        cache=values.compilation_cache_dir,
        cache_given=values["compilation_cache_dir"].present > 0,
        tensorboard=values.tensorboard,
        data_dir=values.data_dir,
        manual_dir=values.manual_dir,
        placement=tuple(run_flags.placement_from_flags()),
    )
    command = shlex.join(["python", "-m", f"experiments.{script}", *sys.argv[1:]])
    return sweep_running.Options(
        name=name,
        workdir=None if workdir is None else str(workdir),
        overwrite=values.overwrite,
        jobs=values.jobs,
        settings=settings,
        command=command,
        load=load,
        check_data=validation.check_data,
        one_core=one_core,
    )


def load(name: str) -> data.Dataset:
    """Loads the data set of a cell, by --data_dir, --manual_dir and --stream."""
    return run_flags.load_data("dataset", name, bool(run_flags.placement_from_flags().stream))


def described(cell: grid.Cell) -> dict[str, Any]:
    """What --print_config prints of a cell."""
    if cell.config is None:
        return {"cell": cell.name, "skipped": cell.reason}
    return {"cell": cell.name, "config": configs.to_dict(cell.config)}


def define_jobs() -> None:
    """Defines --jobs."""
    define_optional_count(
        "jobs",
        "processes at a time, which share the cores or the GPU's memory (if not given, one per "
        "core on a CPU, else one)",
        least=1,
    )
