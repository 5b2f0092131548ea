"""The report of a study with rungs: study.json, the figure, the page, and the table to print."""

from pathlib import Path
from typing import Any

from elbo_lab.files import write_atomically, write_summary
from elbo_lab.reports import compute_figures, svg_figures
from elbo_lab.runs import rundir
from elbo_lab.studies import halving_page, halving_table, stored_results
from elbo_lab.sweeps import sweep_folder

STUDY = "study.json"


def report(path: Path, content: dict[str, Any], results_dir: Path | None = None) -> str:
    """Writes study.json, page and figure, unless the folder is read-only. Returns the table.

    Args:
      path: the study's folder.
      content: see `halving.content`.
      results_dir: folder for the same content under the study's name, if the study is complete.

    Raises:
      UserError: a file cannot be written.
    """
    table = halving_table.table(content)
    if results_dir is not None and content["complete"]:
        kept = content | {"command": stored_results.shown_command(content["command"])}
        stored_results.write(results_dir / f"{content['study']['name']}.json", kept)
    if rundir.is_read_only(path):
        return table
    figure = compute_figures.candidates(content)
    write_summary(path / STUDY, content)
    write_atomically(path / sweep_folder.REPORT, halving_page.page(content, figure).encode())
    files = [f"report: {path / sweep_folder.REPORT}"]
    if figure:
        standalone = svg_figures.standalone(figure).encode()
        write_atomically(path / sweep_folder.FIGURE, standalone)
        files.append(f"figure: {path / sweep_folder.FIGURE}")
    return "\n\n".join([table, "\n".join(files)])
