"""What the study discrete computes from its trained models: log p(x) of the training images, and
the gradients of all estimators at one point.
"""

import functools
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
from elbo_lab.runs import derived, examples
from elbo_lab.runs.loading import Trained
from elbo_lab.studies import stored_results
from elbo_lab.sweeps import sweep_results
from elbo_lab.training import hyper

# The axis of the grid; the cell with the exact gradient; the cell at whose first replicate, at its
# end, gradients are taken: its baseline is fitted there.
AXIS, EXACT, POINT = "estimator", "enumerate", "score, learned baseline"
# Gradients of each estimator; images whose log p(x) is computed at once.
GRADIENTS, CHUNK = 1000, 500
# The parts of the parameters that all methods of the model share.
_MODEL = ("encoder", "decoder", "prior")


class Analysis(NamedTuple):
    """What is computed from the trained cells."""

    train_log_px: dict[str, list[float]]  # cell -> mean over the training images, per replicate
    num_train: int  # training images
    gradients: dict[str, Quality]  # cell -> of the inference network's gradient; {} without POINT
    batch_size: int  # images of one gradient


class _Cell(NamedTuple):
    """A trained cell, hashable."""

    name: str
    runs: tuple[tuple[Path, int], ...]  # a run's folder and a replicate, of each seed


def of_sweep(path: Path, sweep: dict[str, Any]) -> Analysis | None:
    """The analysis of a sweep; None while a cell waits, or if none has results."""
    cells = sweep["cells"]
    if sweep_results.is_waiting(sweep):
        return None
    trained = tuple(
        _Cell(
            cell["values"][AXIS],
            tuple((path / run["run"], run["replicate"]) for run in cell["runs"]),
        )
        for cell in cells
        if "results" in cell and stored_results.is_complete(cell)
    )
    return _of_cells(trained) if trained else None


@functools.lru_cache(maxsize=1)  # The table and the figure share it.
def _of_cells(cells: tuple[_Cell, ...]) -> Analysis:
    some = derived.load_run(*cells[0].runs[0])
    train = examples.all_of_train(some.config, some.dataset, some.spec).x
    mean_log_px = _mean_log_px(some)
    first: dict[str, Trained] = {}
    train_log_px: dict[str, list[float]] = {}
    for cell in cells:
        loaded = [derived.load_run(*run) for run in cell.runs]
        first[cell.name] = loaded[0]
        train_log_px[cell.name] = [mean_log_px(trained.params, train) for trained in loaded]
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
