"""What the study codebooks computes from its trained runs: rates and distortions.

The values of the test examples are those of the runs' evaluations. The tables of frequencies of a
VQ-VAE's codes are counted on the training examples, which are encoded here. The numbers are kept in
the study's folder, in rates.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab.evaluation import Evaluation, code_rates, comparison
from elbo_lab.methods import codebook
from elbo_lab.runs import completing, derived, examples, run_files
from elbo_lab.runs.loading import Trained
from elbo_lab.runs.progress import Progress
from elbo_lab.studies import analysed_runs, stored_results
from elbo_lab.studies.study import Load

FILE = "rates.json"
# The models, and for each the axis of the grid that is its setting.
VQVAE, VAE = "vqvae", "conv"
SETTINGS = {VQVAE: "num_codes", VAE: "beta"}

VALUE = {"mean": float, "standard_error": float | None}
ROW = {
    "model": str,
    "setting": str,
    "over": str | None,
    "distortion": VALUE,
    "rate": VALUE,
    "bound": VALUE,
    "positions?": int,
    "fixed_rate?": float,
    "usage_rate?": VALUE,
    "fixed_bound?": VALUE,
    "perplexity?": float,
}
_KIND = {"rows": list[ROW]}


def compute(path: Path, sweep: dict[str, Any], load: Load) -> None:
    """Computes the rates and distortions of all cells, once none of them waits.

    Arguments and errors: see `study.AfterTraining`.
    """
    cells = [cell for cell in sweep["cells"] if cell.get("runs")]
    if not cells or not analysed_runs.is_ready(path, sweep):
        return
    progress = Progress("rates", len(cells), 0, "cells")
    rows = []
    try:
        for cell in cells:
            model = cell["values"]["model"]
            own = {"model": model, "setting": cell["values"][SETTINGS[model]]}
            rows.append(own | _numbers(path, cell, load))
            progress.to(progress.done + 1)
    finally:
        progress.close()
    stored_results.write(path / FILE, {"rows": rows})


def read(path: Path) -> dict[str, Any] | None:
    """The content of rates.json in a study's folder; None if it is missing or damaged."""
    return stored_results.read_undamaged(path / FILE, _KIND)


def _numbers(path: Path, cell: dict[str, Any], load: Load) -> dict[str, Any]:
    places = {run["seed"]: (path / run["run"], run["replicate"]) for run in cell["runs"]}
    evaluations = {seed: _evaluation(*place) for seed, place in places.items()}
    if cell["values"]["model"] == VAE:
        return of_vae(evaluations)
    train = {seed: _train_codes(load(*place)) for seed, place in places.items()}
    return of_vqvae(evaluations, train, cell["config"]["num_codes"])


def _evaluation(run: Path, replicate: int) -> Evaluation:
    return completing.stored_evaluations(run, run_files.read_summary(run))[replicate]


def _train_codes(trained: Trained) -> np.ndarray:
    """Codes [N, M] of the training examples, binarized once."""
    train = examples.all_of_train(trained.config, trained.dataset, trained.spec)
    return derived.encode_in_chunks(trained, train)


def of_vae(evaluations: Mapping[int, Evaluation]) -> dict[str, Any]:
    """Rate and distortion of a VAE: KL(q(z|x) || p(z)) and -E_q log p(x|z).

    Args:
      evaluations: seed -> values of the test examples, "kl" and "reconstruction" [n].
    """
    distortion = {seed: -_float64(own["reconstruction"]) for seed, own in evaluations.items()}
    rate = {seed: _float64(own["kl"]) for seed, own in evaluations.items()}
    return _point(distortion, rate)


def of_vqvae(
    evaluations: Mapping[int, Evaluation], train: Mapping[int, np.ndarray], num_codes: int
) -> dict[str, Any]:
    """Rates and distortion of a VQ-VAE: those of `code_rates`, and -log p(x|codes).

    Args:
      evaluations: seed -> values of the test examples, "log_px_code" [n] and "codes" [n, M].
      train: seed -> codes of the training examples, [N, M].
      num_codes: K.
    """
    distortion = {seed: -_float64(own["log_px_code"]) for seed, own in evaluations.items()}
    rates = {
        seed: code_rates.rates(train[seed], np.asarray(own["codes"]), num_codes)
        for seed, own in evaluations.items()
    }
    fixed = {seed: own.fixed for seed, own in rates.items()}
    perplexities = [
        float(codebook.codebook_use(own["codes"], num_codes).perplexity)
        for own in evaluations.values()
    ]
    any_codes = next(iter(train.values()))
    return _point(distortion, {seed: own.by_position for seed, own in rates.items()}) | {
        "positions": any_codes.shape[1],
        "fixed_rate": float(next(iter(fixed.values()))[0]),
        "usage_rate": _value({seed: own.usage for seed, own in rates.items()}),
        "fixed_bound": _value(_bound(distortion, fixed)),
        "perplexity": float(np.mean(perplexities)),
    }


def _point(distortion: dict[int, np.ndarray], rate: dict[int, np.ndarray]) -> dict[str, Any]:
    """A point of the plane of rate and distortion, and the bound of log p(x) that it gives."""
    return {
        "over": comparison.mean_and_error(distortion)[2],
        "distortion": _value(distortion),
        "rate": _value(rate),
        "bound": _value(_bound(distortion, rate)),
    }


def _bound(distortion: dict[int, np.ndarray], rate: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {seed: -(distortion[seed] + rate[seed]) for seed in distortion}


def _value(values: dict[int, np.ndarray]) -> dict[str, float | None]:
    """The mean over seeds and examples, and its standard error."""
    mean, error, _ = comparison.mean_and_error(values)
    return {"mean": mean, "standard_error": error}


def _float64(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)
