"""The last stage of a study: its table, the figure that answers it, and its page."""

from pathlib import Path
from typing import Any

from elbo_lab.files import jsonable
from elbo_lab.reports import html_page
from elbo_lab.studies.study import Study, Texts
from elbo_lab.sweeps import sweep_reporting


def report(study: Study, settings: Texts, path: Path, sweep: dict[str, Any]) -> str:
    """Writes sweep.json, page and figure into the folder, and returns the table.

    Args:
      study: what was asked.
      settings: what all cells share, by flag.
      path: the sweep's folder.
      sweep: what sweep.json is to hold.

    Raises:
      UserError: the disk refuses.
    """
    sweep = jsonable(sweep | {"study": {"name": study.name, "question": study.question}})
    done = [cell for cell in sweep["cells"] if "results" in cell]
    figure = study.figure(done) if done else ""
    answer = html_page.Answer(study.question, figure, study.caption)
    table = study.table(path, sweep, settings)
    return "\n\n".join([table, *sweep_reporting.write(path, sweep, answer)])
