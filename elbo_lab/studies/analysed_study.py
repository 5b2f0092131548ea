"""Studies whose results are computed from trained runs: their table and their file of results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from elbo_lab.studies import stored_results
from elbo_lab.studies.study import Study, Texts
from elbo_lab.sweeps import sweep_reporting, sweep_results

Results = dict[str, Any]
Table = Callable[[Path, dict[str, Any], Texts], str]


def table_and_file(
    file: str,
    results: Callable[[Path, dict[str, Any]], Results | None],
    text: Callable[[Results], str],
) -> tuple[Table, Callable[[Study, Path], Study]]:
    """The fields `table` and `kept_in` of a `Study`.

    The table is that of the cells, followed by the text of the results. With --results_dir the
    results are also written to the file, once no cell waits.

    Args:
      file: the name of the file of results.
      results: (the sweep's folder, the content of its sweep.json) -> what is computed, JSON-ready;
        None as long as there is nothing to show.
      text: results -> text for a terminal.
    """

    def table_that_writes(folder: Path | None) -> Table:
        def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
            del settings
            cells = sweep_reporting.table(sweep)
            computed = results(path, sweep)
            if computed is None:
                return cells
            if folder is not None and not sweep_results.is_waiting(sweep):
                stored_results.write(folder / file, computed)
            return f"{cells}\n\n{text(computed)}"

        return table

    def kept_in(study: Study, folder: Path) -> Study:
        return study._replace(table=table_that_writes(folder))

    return table_that_writes(None), kept_in
