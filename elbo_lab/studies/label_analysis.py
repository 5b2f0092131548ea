"""What the study labels computes from its trained runs: Bayes' rule by every p(x|y), beside the
classifiers of pixels.

Each run is classified by as `experiments.evaluate --measures=classification` does it, and the
evaluation is kept in the run's folder: the same command computes those that are missing. What the
table and the figure show lies in the study's folder, in classified.json.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab.evaluation import classification, comparison, pixel_classifiers
from elbo_lab.models.conditions import LABEL
from elbo_lab.reports import results
from elbo_lab.runs import classifying, evaluating
from elbo_lab.runs.evaluating import Kept
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.study import Load

FILE = "classified.json"
# The axis of the grid.
AXIS = "model"
MEASURES = evaluating.Settings(measures=(classifying.NAME,))

VALUE = {"mean": float, "standard_error": float | None}
_CLASSIFIER = {
    "name": str,
    "accuracy": VALUE,
    "log_py": VALUE,
    "calibration": {"error": float},
    "confusion": list[list[int]],
}
_KIND = {"classifiers": list[_CLASSIFIER], "log_px": dict[str, VALUE]}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Classifies the test examples by every trained p(x|y), once no cell waits.

    Arguments and errors: see `study.AfterTraining`.
    """
    cells = {cell["values"][AXIS]: cell["runs"] for cell in sweep["cells"] if _is_classifier(cell)}
    if not cells or not analysed_runs.is_ready(path, sweep):
        return
    classifiers, log_px, pixels = [], {}, []
    for name, runs in cells.items():
        seeds = {run["seed"]: _kept(load(path / run["run"], run["replicate"])) for run in runs}
        classifiers.append(by_bayes(name, seeds))
        first = next(iter(seeds.values()))
        summed = next(q for q in classification.SUMMED.values() if q in first.values)
        log_px[name] = _value(seeds, summed)
        pixels = pixels or list(by_pixels(first))
    content = {"classifiers": classifiers + pixels, "log_px": log_px}
    stored_results.write(path / FILE, content)


def read(path: Path) -> dict[str, Any] | None:
    """The content of classified.json in a study's folder; None if it is missing or damaged."""
    return stored_results.read_undamaged(path / FILE, _KIND)


def _is_classifier(cell: dict[str, Any]) -> bool:
    """True if a cell has runs of a model p(x|y)."""
    return bool(cell.get("runs")) and cell["config"].get("condition") == LABEL


def _kept(trained: Any) -> Kept:
    """The evaluation of a run, computed if it is not stored."""
    progress = Progress("classification", len(trained.dataset.x_test), 0, "examples")
    try:
        return evaluating.kept(trained, MEASURES, on_batch=progress.to)
    finally:
        progress.close()


def by_bayes(name: str, seeds: dict[int, Kept]) -> dict[str, Any]:
    """The classifier that a model p(x|y) is: means over its seeds, and the first one's curves.

    Args:
      name: of the model.
      seeds: seed -> its evaluation.
    """
    own = [
        kept.summaries[classifying.NAME]["classifiers"][classifying.OWN] for kept in seeds.values()
    ]
    error = float(np.mean([classifier["calibration"]["error"] for classifier in own]))
    return {
        "name": name,
        "accuracy": _value(seeds, "accuracy"),
        "log_py": _value(seeds, "log_py"),
        "confusion": own[0]["confusion"],
        "calibration": own[0]["calibration"] | {"error": error},
    }


def by_pixels(kept: Kept) -> Iterator[dict[str, Any]]:
    """Yields the classifiers of pixels, which are the same for all runs; none for other data."""
    rows = {(row.name, row.symbol): row for row in kept.rows}
    classifiers = kept.summaries[classifying.NAME]["classifiers"]
    for name in pixel_classifiers.NAMES:
        if name in classifiers:
            measured = {
                "accuracy": rows[results.ACCURACY, name],
                "log_py": rows[results.LOG_PY, name],
            }
            values = {
                quantity: {"mean": row.value, "standard_error": row.standard_error}
                for quantity, row in measured.items()
            }
            yield {"name": name, **values, **classifiers[name]}


def _value(seeds: dict[int, Kept], quantity: str) -> dict[str, float | None]:
    """The mean of a quantity over seeds and examples, and its standard error."""
    arrays = {seed: kept.values[quantity] for seed, kept in seeds.items()}
    mean, error, _ = comparison.mean_and_error(arrays)
    return {"mean": mean, "standard_error": error}
