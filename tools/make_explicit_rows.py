"""Makes rows of the table of docs/systems/explicit.md from trained runs, and prints the table.

    python -m tools.make_explicit_rows --list
    python -m tools.make_explicit_rows

The first prints the commands of the runs. The second writes a small JSON file into --results_dir
for each system whose runs are complete; the others keep theirs. tools.make_results_tables then
writes the table into the documents.
"""

from pathlib import Path

from absl import flags

from elbo_lab.cli import folders, grid_flags, run_flags
from elbo_lab.errors import UserError
from elbo_lab.studies import explicit, explicit_results


def make(runs: str, results_dir: str) -> str:
    """Writes the rows of all complete systems. Returns the table of the folder's rows."""
    folder = Path(runs).expanduser()
    rows = [explicit_results.row_of_runs(n, folder, grid_flags.checked) for n in explicit.SYSTEMS]
    if not any(rows):
        raise UserError(
            f"--runs={runs} has no complete run of {', '.join(explicit.SYSTEMS)}; --list prints "
            "the commands that train them."
        )
    results = folders.create("results_dir", results_dir)
    for row in filter(None, rows):
        explicit_results.write(results, row)
    return explicit_results.text(explicit_results.read(results))


def main() -> None:
    """Prints the table with the new rows, or lists the commands."""
    values = flags.FLAGS
    if values.list:
        print("\n".join(line for name in explicit.SYSTEMS for line in explicit.commands(name)))
    else:
        print(make(values.runs, values.results_dir))


if __name__ == "__main__":
    # Defined here, so that a test can import this module without defining its flags.
    flags.DEFINE_string("runs", explicit.RUNS, "folder of the runs, each named by its system")
    flags.DEFINE_string("results_dir", "results", "folder of the rows as small JSON files")
    flags.DEFINE_bool("list", False, "print the commands of all systems, and exit")
    run_flags.run(main, __doc__)
