"""What the study disentangle computes from its trained models: scores of the means of q(z|x).

They are kept in the study's folder, in scores.json, run after run.
"""

from pathlib import Path
from typing import Any

from elbo_lab import json_files
from elbo_lab.errors import UserError
from elbo_lab.runs import disentangling, rundir
from elbo_lab.runs.disentangling import Scores
from elbo_lab.runs.loading import Trained
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import stored_results
from elbo_lab.studies.study import Load
from elbo_lab.sweeps import sweep_results

FILE = "scores.json"
_ROW = {"run": str, "replicate": int, "source": str, **dict.fromkeys(Scores._fields, float)}
_KIND = {"rows": list[_ROW]}
Place = tuple[str, int]  # a run's folder in the study's, and a replicate


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the scores that scores.json lacks, once all runs are trained.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
      load: reads a trained run.

    Raises:
      UserError: a run cannot be loaded, or the file cannot be written.
    """
    if sweep_results.is_waiting(sweep) or rundir.is_read_only(path):
        return
    places = [place for cell in sweep["cells"] for place in _places(cell)]
    rows = {_place(row): row for row in _rows(path)}
    missing: dict[Place, Trained] = {}
    for run, replicate in places:
        trained = load(path / run, replicate)
        # A run that was trained again since has another checkpoint.
        if rows.get((run, replicate), {}).get("source") != trained.digest:
            first = next(iter(missing.values()), trained)
            missing[run, replicate] = trained._replace(dataset=first.dataset)  # held once
    progress = Progress("scores", len(places), len(places) - len(missing), "runs")
    try:
        for (run, replicate), trained in missing.items():
            scores = disentangling.scores(trained, trained.dataset, trained.config.seed)
            row = {"run": run, "replicate": replicate, "source": trained.digest}
            rows[run, replicate] = row | scores._asdict()
            stored_results.write(path / FILE, {"rows": list(rows.values())})
            progress.to(progress.done + 1)
    finally:
        progress.close()


def read(path: Path) -> dict[Place, Scores]:
    """The scores in a study's folder; {} if there are none, or the file is damaged."""
    return {_place(row): Scores(*(row[name] for name in Scores._fields)) for row in _rows(path)}


def of_cell(cell: dict[str, Any], scores: dict[Place, Scores]) -> list[Scores]:
    """The scores of each replicate of a cell of sweep.json; [] if it has no run, or one without."""
    places = _places(cell)
    return [scores[place] for place in places] if set(places) <= set(scores) else []


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return json_files.read(path / FILE, _KIND)["rows"]
    except UserError:
        return []


def _places(cell: dict[str, Any]) -> list[Place]:
    return [(run["run"], run["replicate"]) for run in cell.get("runs", [])]


def _place(row: dict[str, Any]) -> Place:
    return row["run"], row["replicate"]
