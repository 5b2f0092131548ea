"""What the study discrete computes from its trained models: log p(x) of the training images, and
the gradients of all estimators at one point. They are kept in the study's folder, in analysis.json.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from elbo_lab import configs, methods, models
from elbo_lab.configs import Config
from elbo_lab.data import Batch
from elbo_lab.evaluation.gradients import exact_gradients, gradient_study
from elbo_lab.evaluation.gradients.exact_gradients import Estimator, Quality
from elbo_lab.models import NOTHING_GIVEN
from elbo_lab.runs import examples
from elbo_lab.runs.loading import Trained
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.study import Load
from elbo_lab.training import hyper

FILE = "analysis.json"
# The axis of the grid; the cell with the exact gradient; the cell at whose first replicate, at its
# end, gradients are taken: its baseline is fitted there.
AXIS, EXACT, POINT = "estimator", "enumerate", "score, learned baseline"
# Gradients of each estimator; images whose log p(x) is computed at once.
GRADIENTS, CHUNK = 1000, 500
# The parts of the parameters that all methods of the model share.
_MODEL = ("encoder", "decoder", "prior")

_QUALITY = {"variance": float, "bias": float, "cosine": float, "is_biased": bool}
_QUALITY |= {"resolution": float | None}  # null: infinite
_KIND = {
    "sources": list[str],  # of each run, the digest of its checkpoint
    "train_log_px": dict[str, list[float]],
    "num_train": int,
    "gradients": dict[str, _QUALITY],
    "batch_size": int,
}


class Analysis(NamedTuple):
    """What is computed from the trained cells."""

    train_log_px: dict[str, list[float]]  # cell -> mean over the training images, per replicate
    num_train: int  # training images
    gradients: dict[str, Quality]  # cell -> of the inference network's gradient; {} without POINT
    batch_size: int  # images of one gradient


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the analysis of the trained cells, once no cell waits, unless it is stored.

    Arguments and errors: see `study.AfterTraining`.
    """
    cells = [cell for cell in sweep["cells"] if stored_results.has_headline(cell)]
    if not cells or not analysed_runs.is_ready(path, sweep):
        return
    runs = {
        cell["values"][AXIS]: [load(path / run["run"], run["replicate"]) for run in cell["runs"]]
        for cell in cells
    }
    sources = [trained.digest for own in runs.values() for trained in own]
    stored = _stored(path)
    if stored is None or stored["sources"] != sources:
        analysis = _of_runs(runs)
        gradients = {name: quality._asdict() for name, quality in analysis.gradients.items()}
        content = analysis._asdict() | {"gradients": gradients, "sources": sources}
        stored_results.write(path / FILE, content)


def read(path: Path) -> Analysis | None:
    """The analysis in a study's folder; None if there is none, or the file is damaged."""
    stored = _stored(path)
    if stored is None:
        return None
    gradients = {name: _quality(fields) for name, fields in stored["gradients"].items()}
    return Analysis(**{n: stored[n] for n in Analysis._fields} | {"gradients": gradients})


def _stored(path: Path) -> dict[str, Any] | None:
    return stored_results.read_undamaged(path / FILE, _KIND)


def _quality(fields: dict[str, Any]) -> Quality:
    resolution = math.inf if fields["resolution"] is None else fields["resolution"]
    return Quality(**fields | {"resolution": resolution})


def _of_runs(runs: dict[str, list[Trained]]) -> Analysis:
    """The analysis of the runs of each cell, one for each seed."""
    first = {name: own[0] for name, own in runs.items()}
    some = next(iter(first.values()))
    train = examples.all_of_train(some.config, some.dataset, some.spec).x
    mean_log_px = _mean_log_px(some)
    train_log_px = {
        name: [mean_log_px(trained.params, train) for trained in own] for name, own in runs.items()
    }
    size = some.config.batch_size
    return Analysis(train_log_px, len(train), _gradients(first, train[:size]), size)


def _mean_log_px(trained: Trained) -> Callable[[Any, Array], float]:
    """(params, x [N, D]) -> mean of the exact log p(x), nats, for all runs of the same model."""
    model = models.make(trained.config, trained.spec)
    log_px = jax.jit(lambda params, x: model.log_px(params, x, NOTHING_GIVEN))

    def mean(params: Any, x: Array) -> float:
        shared = {name: params[name] for name in _MODEL}
        parts = [log_px(shared, x[start : start + CHUNK]) for start in range(0, len(x), CHUNK)]
        return float(np.mean(np.concatenate(parts), dtype=np.float64))

    return mean


def _gradients(trained: dict[str, Trained], x: Array) -> dict[str, Quality]:
    """The inference network's gradient by each cell's method, all at the end of the cell POINT."""
    if POINT not in trained:
        return {}
    point = trained[POINT]

    def estimator(config: Config) -> Estimator:
        method = methods.make(config, point.spec, len(point.dataset.x_train))
        hparams = hyper.hyperparameters([config])
        has_baseline = config.score_baseline != "none"

        def loss_fn(key: Array, params: Any, x: Array) -> Array:
            stats = point.stats if has_baseline else ()
            return method.loss(key, params, stats, Batch(x), hparams).loss

        params = point.params if has_baseline else {name: point.params[name] for name in _MODEL}
        return Estimator(loss_fn, params)

    def inference(tree: Any) -> dict[str, Any]:
        return {"inference": tree["encoder"]}

    exact_config = configs.replace(
        point.config, objective="elbo", k=1, estimator="enumerate", score_baseline="none"
    )
    exact = exact_gradients.exact_gradient(estimator(exact_config), x, inference)
    estimators = {
        name: estimator(of_elbo(own.config)) for name, own in trained.items() if name != EXACT
    }
    return exact_gradients.compare(estimators, exact, x, inference, GRADIENTS)


def of_elbo(config: Config) -> Config:
    """The config with the ELBO in the place of the IWAE bound, whose exact gradient is unknown."""
    return configs.replace(config, objective="elbo") if config.objective == "iwae" else config


def has_other_target(config: Config) -> bool:
    """True if the inference network does not follow the ELBO's gradient, nor estimates it."""
    return config.estimator is None or config.estimator in gradient_study.BOUNDLESS
