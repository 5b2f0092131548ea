"""Makes rows of the study explicit from trained runs, and prints its table.

    python -m tools.make_explicit_rows --list
    python -m tools.make_explicit_rows

The first prints the commands of the runs. The second writes a file results/explicit-SYSTEM.json for
each system whose runs are complete; the others keep theirs. tools.make_results_tables then writes
the table into the documents.
"""

from pathlib import Path

from absl import flags

from elbo_lab.cli import folders, grid_flags, run_flags
from elbo_lab.errors import UserError
from elbo_lab.studies import explicit, explicit_results


def main() -> int:
    """Writes the rows, or lists the commands. Returns the exit status."""
    if flags.FLAGS.list:
        print("\n".join(line for name in explicit.SYSTEMS for line in explicit.commands(name)))
        return 0
    runs = Path(flags.FLAGS.runs).expanduser()
    made = [explicit_results.row_of_runs(n, runs, grid_flags.checked) for n in explicit.SYSTEMS]
    if not any(made):
        raise UserError(
            f"--runs={flags.FLAGS.runs} has no complete run of {', '.join(explicit.SYSTEMS)}; "
            "--list prints the commands that train them."
        )
    results = folders.create("results_dir", flags.FLAGS.results_dir)
    for row in filter(None, made):
        explicit_results.write(results, row)
    print(explicit_results.text(explicit_results.read(results)))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("runs", explicit.RUNS, "folder of the runs, each named by its system")
    flags.DEFINE_string("results_dir", "results", "folder of the rows as small JSON files")
    flags.DEFINE_bool("list", False, "print the commands of all systems, and exit")
    run_flags.run(main, __doc__)
