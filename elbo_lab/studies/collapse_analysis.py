"""What the study collapse computes of trained runs: how much z says of x, and q(z) beside p(z).

KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)) in the mean over x: a KL that is not zero may be of
either kind. The estimates are kept in the study's folder, in measures.json, run after run.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from elbo_lab import json_files, keys
from elbo_lab.errors import UserError
from elbo_lab.evaluation import aggregate_posterior
from elbo_lab.options import values_of
from elbo_lab.runs import examples, informing, rundir
from elbo_lab.runs.loading import Trained
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import stored_results
from elbo_lab.studies.study import Load
from elbo_lab.sweeps import sweep_results

FILE = "measures.json"
# The axis of the grid.
AXIS = "remedy"
# Arrays of `aggregate_posterior.make_measure`, for x uniform over the test examples.
MEASURES = ("information", "aggregate_kl")
# Settings on which neither q(z|x) nor p(z) depends.
_OF_DECODER = ("receptive_field", "decoder_dropout", "latent_gates")
_ROW = {"name": str, "source": str, "examples": int}
_ROW |= {f"{name}{end}": float | None for name in MEASURES for end in ("", "_error")}
_KIND = {"rows": list[_ROW]}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the estimates that measures.json lacks, once all runs are trained.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
      load: reads a trained run.

    Raises:
      UserError: a run cannot be loaded, or the file cannot be written.
    """
    runs = [(name, load(*place)) for name, place in _places(path, sweep)]
    # Rows of runs that were trained again since are dropped.
    current = {(name, trained.digest) for name, trained in runs}
    rows = [row for row in read(path) if (row["name"], row["source"]) in current]
    done = {(row["name"], row["source"]) for row in rows}
    missing = [(name, trained) for name, trained in runs if (name, trained.digest) not in done]
    if not missing or rundir.is_read_only(path):
        return
    progress = Progress("information", len(missing), 0, "runs")
    # Runs with the same q(z|x) and p(z) share a measure, which is compiled once.
    measures: dict[Any, Callable[..., dict[str, Array]]] = {}
    try:
        for name, trained in missing:
            # Without the information of the model's own x, which are drawn pixel by pixel.
            own = aggregate_posterior.make_measure(trained.method, with_model=False)
            measure = measures.setdefault(_inference_settings(trained), own)
            rows.append({"name": name, "source": trained.digest, **_estimates(trained, measure)})
            stored_results.write(path / FILE, {"rows": rows})
            progress.to(progress.done + 1)
    finally:
        progress.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a study's folder, one for each run; [] without a file, or of a damaged one."""
    try:
        return json_files.read(path / FILE, _KIND)["rows"]
    except UserError:
        return []


def _places(path: Path, sweep: dict[str, Any]) -> list[tuple[str, tuple[Path, int]]]:
    """Remedy, and directory with replicate, of each run; [] until all are trained."""
    if sweep_results.is_waiting(sweep):
        return []
    return [
        (cell["values"][AXIS], (path / run["run"], run["replicate"]))
        for cell in sweep["cells"]
        for run in cell.get("runs", [])
    ]


def _inference_settings(trained: Trained) -> tuple[tuple[str, Any], ...]:
    """The settings of a run's model on which q(z|x) and p(z) may depend."""
    settings = values_of(trained.config.model_options)
    return tuple((name, value) for name, value in settings.items() if name not in _OF_DECODER)


def _estimates(trained: Trained, measure: Callable[..., dict[str, Array]]) -> dict[str, Any]:
    """Means over the test examples, and their standard errors."""
    test = examples.test_examples(trained.config, trained.dataset, trained.spec)
    # Arrays of the decoder would differ in their shapes, for which a measure is compiled anew.
    inference = {name: trained.params[name] for name in ("encoder", "prior")}
    trained = trained._replace(params=inference)
    values = informing.measured(measure, keys.base_key(trained.config.seed), trained, test)
    row: dict[str, Any] = {"examples": len(test.x)}
    for name in MEASURES:
        array = np.float64(values[name])
        row[name] = float(np.mean(array))
        row[f"{name}_error"] = float(np.std(array, ddof=1) / math.sqrt(len(array)))
    return row
