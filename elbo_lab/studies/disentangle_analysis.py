"""What the study disentangle computes from its trained models: scores of the means of q(z|x).

They are kept in the study's folder, in scores.json, run after run.
"""

import functools
from pathlib import Path
from typing import Any

from elbo_lab.runs import disentangling
from elbo_lab.runs.disentangling import Scores
from elbo_lab.runs.loading import Trained
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.analysed_runs import Part, Place
from elbo_lab.studies.study import Load

FILE = "scores.json"
_ROW = {"run": str, "replicate": int, "source": str, **dict.fromkeys(Scores._fields, float)}
_KIND = {"rows": list[_ROW]}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the scores that scores.json lacks, once all runs are trained.

    Arguments and errors: see `study.AfterTraining`.
    """
    parts = []
    for run in analysed_runs.trained_runs(path, sweep, load):
        folder, replicate = run.place
        fields = {"run": folder, "replicate": replicate, "source": run.trained.digest}
        parts.append(Part(fields, functools.partial(_scores, run.trained)))
    analysed_runs.compute_missing(path / FILE, {"rows": _rows(path)}, parts, "scores", "runs")


def read(path: Path) -> dict[Place, Scores]:
    """The scores in a study's folder; {} if there are none, or the file is damaged."""
    return {
        (row["run"], row["replicate"]): Scores(*(row[name] for name in Scores._fields))
        for row in _rows(path)
    }


def of_cell(cell: dict[str, Any], scores: dict[Place, Scores]) -> list[Scores]:
    """The scores of each replicate of a cell of sweep.json; [] if it has no run, or one without."""
    places = analysed_runs.places(cell)
    return [scores[place] for place in places] if set(places) <= set(scores) else []


def _rows(path: Path) -> list[dict[str, Any]]:
    stored = stored_results.read_undamaged(path / FILE, _KIND)
    return stored["rows"] if stored else []


def _scores(trained: Trained) -> list[dict[str, float]]:
    return [disentangling.scores(trained, trained.dataset, trained.config.seed)._asdict()]
