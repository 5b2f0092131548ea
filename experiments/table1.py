"""Table 1 of the IWAE paper (Burda et al. 2016), ours beside the paper's.

    python -m experiments.table1 --manual_dir=mnist --k=1,5 --budget=0.01
    python -m experiments.table1 --data=mnist,omniglot --layers=1,2 --k=1,5,50

Cells are trained as those of experiments.sweep are, in the folder sweep under --workdir, and the
same command goes on with what is missing; runs that an earlier version left in --workdir are taken
over. A table of what is there stands at the end, also after Ctrl-C.
"""

import functools
from pathlib import Path

from absl import flags

from elbo_lab.cli import folders, run_flags, study_flags, sweep_flags, table1_flags
from elbo_lab.errors import UserError
from elbo_lab.studies import study_reporting, table1, table1_results
from elbo_lab.sweeps import grid, sweep_running


def main() -> int:
    """Flags -> cells -> a sweep -> results and table. Returns the exit status."""
    values = flags.FLAGS
    if not values.workdir:
        raise UserError(f"--workdir must be a folder; got {values.workdir!r}.")
    settings = table1_flags.settings()
    cells = study_flags.cells(table1.STUDY, settings, table1_flags.choices())
    grid.check_values(cells)
    flag = "results_dir" if values.results_dir else "workdir"
    folder = folders.made(flag, getattr(values, flag))
    workdir = Path(values.workdir).expanduser()
    options = sweep_flags.options("table1")._replace(
        workdir=str(workdir / "sweep"),
        command=table1_flags.command(),
        load=functools.partial(sweep_flags.load, flag="data"),
    )
    earlier = [
        workdir / table1_results.slug(table1.table_cell(cell.values, cell.config, settings))
        for cell in cells
        if cell.config
    ]
    study = table1.STUDY._replace(table=functools.partial(table1.stored_table, folder))
    return sweep_running.conduct(
        cells,
        0,
        options,
        functools.partial(study_reporting.report, study, settings),
        earlier,
    )


if __name__ == "__main__":
    table1_flags.define()
    run_flags.run(main, __doc__)
