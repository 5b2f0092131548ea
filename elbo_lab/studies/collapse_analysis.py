"""What the study collapse computes of trained runs: how much z says of x, and q(z) beside p(z).

KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)) in the mean over x: a KL that is not zero may be of
either kind. The estimates are kept in the study's folder, in measures.json, run after run.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from elbo_lab import keys
from elbo_lab.evaluation import aggregate_posterior
from elbo_lab.options import values_of
from elbo_lab.runs import examples, informing
from elbo_lab.runs.loading import Trained
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.analysed_runs import Part
from elbo_lab.studies.study import Load

FILE = "measures.json"
# The axis of the grid.
AXIS = "remedy"
# Arrays of `aggregate_posterior.make_measure`, for x uniform over the test examples.
MEASURES = ("information", "aggregate_kl")
# Settings on which neither q(z|x) nor p(z) depends.
_OF_DECODER = ("receptive_field", "decoder_dropout", "latent_gates")
_ROW = {"name": str, "seed?": int, "source": str, "examples": int}  # old files have no seeds
_ROW |= {f"{name}{end}": float | None for name in MEASURES for end in ("", "_error")}
_KIND = {"rows": list[_ROW]}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the estimates that measures.json lacks, once all runs are trained.

    Arguments and errors: see `study.AfterTraining`.
    """
    runs = analysed_runs.trained_runs(path, sweep, load)
    # Runs with the same q(z|x) and p(z) share a measure, which is compiled once; it is without the
    # information of the model's own x, which are drawn pixel by pixel.
    measures = {
        _inference_settings(run.trained): aggregate_posterior.make_measure(
            run.trained.method, with_model=False
        )
        for run in runs
    }
    parts = []
    for run in runs:
        # The replicates of a run share its checkpoint.
        fields = {"seed": run.trained.config.seed, "source": run.trained.digest}
        fields |= {"name": run.cell["values"][AXIS]}
        measure = measures[_inference_settings(run.trained)]
        parts.append(Part(fields, functools.partial(_rows, run.trained, measure)))
    content = {"rows": read(path)}
    analysed_runs.compute_missing(path / FILE, content, parts, "information", "runs")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a study's folder, one for each run; [] without a file, or of a damaged one."""
    stored = stored_results.read_undamaged(path / FILE, _KIND)
    return stored["rows"] if stored else []


def _inference_settings(trained: Trained) -> tuple[tuple[str, Any], ...]:
    """The settings of a run's model on which q(z|x) and p(z) may depend."""
    settings = values_of(trained.config.model_options)
    return tuple((name, value) for name, value in settings.items() if name not in _OF_DECODER)


def _rows(trained: Trained, measure: Callable[..., dict[str, Array]]) -> list[dict[str, Any]]:
    """Means over the test examples of a run, and their standard errors: one row."""
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
    return [row]
