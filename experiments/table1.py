"""Table 1 of the IWAE paper (Burda et al. 2016), ours beside the paper's.

    python -m experiments.table1 --manual_dir=mnist --k=1,5 --budget=0.01
    python -m experiments.table1 --data=mnist,omniglot --layers=1,2 --k=1,5,50

Cells are trained one after the other, each in a directory of its own under --workdir, and the same
command goes on with what is missing. A table of what is there stands at the end, also after Ctrl-C.
"""

import sys
from pathlib import Path

from absl import flags

from elbo_lab.cli import folders, run_flags, table1_flags
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.runs import completing
from elbo_lab.runs.progress import Interrupt
from elbo_lab.studies import table1_results


def main() -> int:
    """Flags -> cells -> runs -> results and table. Returns the exit status."""
    cells = table1_flags.cells_from_flags()
    values = flags.FLAGS
    if not values.workdir:
        raise UserError(f"--workdir must be a folder; got {values.workdir!r}.")
    setup.set_up(
        values.platform,
        values.replicates,
        values.compilation_cache_dir,
        values["compilation_cache_dir"].present > 0,
    )
    from elbo_lab.runs import stages

    datasets = table1_flags.loaded(cells)  # What is missing is said before anything is trained.
    flag = "results_dir" if values.results_dir else "workdir"
    folder = folders.made(flag, getattr(values, flag))
    # One for all cells: a signal may come between two of them.
    status, interrupt = 0, Interrupt()
    for number, cell in enumerate(cells, 1):
        print(
            f"[{number} of {len(cells)}] {table1_results.title(cell)}", file=sys.stderr, flush=True
        )
        try:
            path, _ = completing.complete(
                cell.config,
                str(Path(values.workdir) / table1_results.slug(cell)),
                datasets[cell.config.dataset],
                values.tensorboard,
                interrupt=interrupt,
            )
            table1_results.write(
                folder, cell, table1_results.row(cell, path, table1_flags.command())
            )
        except stages.StoppedError as stopped:
            print(f"{stopped} The same command goes on.", file=sys.stderr)
            status = stopped.status
            break
        except (stages.DivergedError, table1_results.NothingFiniteError) as failed:
            print(f"{table1_results.title(cell)}: {failed}", file=sys.stderr)
            status = 1
        if interrupt.signal and number < len(cells):
            print(f"Stopped after {number} cells. The same command goes on.", file=sys.stderr)
            status = interrupt.status()
            break
    print("\n" + table1_results.text(table1_results.read(folder)))
    return status


if __name__ == "__main__":
    table1_flags.define()
    run_flags.run(main, __doc__)
