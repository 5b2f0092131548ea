"""The flags of everything that is a sweep: where it is kept, and how its runs are trained."""

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
) -> int:
    """Prints the cells if asked, else trains what is missing and reports. Returns the exit status.

    Args:
      script: the name in `python -m experiments.<script>`.
      cells: the grid, those that cannot be trained included.
      baseline: index of the cell that the others are compared with.
      name: begins the folder's name where none is given; the script's if not given.
      workdir: the folder, in the place of --workdir.
      finish: see `sweep_running.conduct`.
      earlier: see `sweep_running.conduct`.
    """
    if flags.FLAGS.print_config:
        print(json.dumps([described(cell) for cell in cells], indent=2))
        return 0
    how = options(script, name or script, workdir or flags.FLAGS.workdir)
    return sweep_running.conduct(cells, baseline, how, finish, earlier)


def options(script: str, name: str, workdir: str | Path | None) -> sweep_running.Options:
    """How the command line has the sweep run."""
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
    command = shlex.join(["python", "-m", f"experiments.{script}", *sys.argv[1:]])
    return sweep_running.Options(
        name,
        None if workdir is None else str(workdir),
        values.overwrite,
        values.jobs,
        settings,
        command,
        load,
        validation.check_data,
    )


def load(name: str) -> data.Dataset:
    """A cell's data set, as --data_dir, --manual_dir and --stream say."""
    return run_flags.load_data("dataset", name, bool(run_flags.placement_from_flags().stream))


def described(cell: grid.Cell) -> dict[str, Any]:
    """A cell for --print_config."""
    if cell.config is None:
        return {"cell": cell.name, "skipped": cell.reason}
    return {"cell": cell.name, "config": configs.to_dict(cell.config)}


def define_jobs() -> None:
    """The flag of how much is trained at a time."""
    define_optional_count(
        "jobs",
        "processes at a time, each with its share of the cores or of the GPU's memory (if not "
        "given, on a CPU as many as there are cores, else one)",
        least=1,
    )
