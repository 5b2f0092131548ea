"""The last stage of a study: its table, its figure and its page."""

from pathlib import Path
from typing import Any

from elbo_lab.files import jsonable
from elbo_lab.reports import html_page
from elbo_lab.runs import derived
from elbo_lab.studies.study import Load, Study, Texts
from elbo_lab.sweeps import sweep_reporting


def report(
    study: Study,
    settings: Texts,
    path: Path,
    sweep: dict[str, Any],
    load: Load = derived.load_run,
) -> str:
    """Writes sweep.json, page and figure into the folder, and returns the table.

    Args:
      study: the question and its figure.
      settings: flag -> text, what all cells share.
      path: the sweep's folder.
      sweep: the content of sweep.json.
      load: reads a trained run, for what the study computes of its runs.

    Raises:
      UserError: a file cannot be written, or a run cannot be loaded.
    """
    sweep = jsonable(sweep | {"study": {"name": study.name, "question": study.question}})
    done = [cell for cell in sweep["cells"] if "results" in cell]
    if study.after_training is not None:
        study.after_training(path, sweep, load)
    table = study.table(path, sweep, settings)  # first: it may write what the figure shows
    figure = ""
    if done:
        figure = study.drawing(path, sweep) if study.drawing else study.figure(done)
    answer = html_page.Answer(study.question, figure, study.caption)
    return "\n\n".join([table, *sweep_reporting.write(path, sweep, answer)])
