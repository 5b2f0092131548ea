"""What the study disentangle computes from its trained models: scores of the means of q(z|x)."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from elbo_lab.data import Batch
from elbo_lab.evaluation import disentanglement
from elbo_lab.evaluation.active_units import ACTIVE_THRESHOLD, activity
from elbo_lab.runs import derived, examples
from elbo_lab.runs.loading import Trained


class Scores(NamedTuple):
    """Scores of one trained model, of the training images; fits are judged on the test images."""

    mig: float
    sap: float
    dci_disentanglement: float
    dci_completeness: float
    dci_informativeness: float
    factor_vae: float
    beta_vae: float
    active: float  # active units


def of_cell(path: Path, cell: dict[str, Any]) -> list[Scores]:
    """The scores of each replicate of a cell of sweep.json; [] if it is not trained.

    Args:
      path: the sweep's folder.
      cell: of the content of its sweep.json.
    """
    if "results" not in cell:
        return []
    return list(_of_runs(tuple((path / run["run"], run["replicate"]) for run in cell["runs"])))


@functools.lru_cache(maxsize=64)  # The table and the figure share them.
def _of_runs(runs: tuple[tuple[Path, int], ...]) -> tuple[Scores, ...]:
    return tuple(_scores(derived.load_run(*run)) for run in runs)


def _scores(trained: Trained) -> Scores:
    config, dataset, spec = trained.config, trained.dataset, trained.spec
    train = _means(trained, examples.all_of_train(config, dataset, spec).x)
    test = _means(trained, examples.test_examples(config, dataset, spec).x)
    factors = dataset.factors
    splits = (train, factors.train, test, factors.test)
    dci = disentanglement.dci(*splits, seed=config.seed)
    return Scores(
        disentanglement.mig(train, factors.train),
        disentanglement.sap(*splits),
        *dci,
        disentanglement.factor_vae(train, factors.train, config.seed),
        disentanglement.beta_vae(train, factors.train, config.seed),
        float(np.sum(activity(train) > ACTIVE_THRESHOLD)),
    )


def _means(trained: Trained, x: Array) -> np.ndarray:
    """Means of q(z|x) of examples [N, D]: [N, L]."""
    encode = jax.jit(trained.method.encode)
    parts = [
        encode(trained.params, trained.stats, Batch(x[start : start + derived.CHUNK]))
        for start in range(0, len(x), derived.CHUNK)
    ]
    return np.concatenate(parts).astype(np.float64)
