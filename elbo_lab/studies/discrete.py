"""Binary latents that can still be summed: every way to train them, judged by the exact likelihood.

A sigmoid belief network of 12 units has 4,096 states, so that log p(x) and the gradient of the ELBO
are sums. Estimators of that gradient are compared with it, and the trained models with each other.
"""

from pathlib import Path
from typing import Any

from elbo_lab.reports import discrete_figures
from elbo_lab.studies import analysed_study, discrete_analysis, discrete_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed
from elbo_lab.sweeps import sweep_results

_ELBO = {"objective": "elbo", "k": "1"}
# The exact gradient first, with which the others are compared.
WAYS: dict[str, Texts] = {
    discrete_analysis.EXACT: {**_ELBO, "estimator": "enumerate"},
    "score": {**_ELBO, "estimator": "score"},
    discrete_analysis.POINT: {**_ELBO, "estimator": "score", "score_baseline": "network"},
    "disarm": {**_ELBO, "estimator": "disarm"},
    "rebar": {**_ELBO, "estimator": "rebar"},
    "gumbel_softmax": {**_ELBO, "estimator": "gumbel_softmax"},
    "straight_through": {**_ELBO, "estimator": "straight_through"},
    "vimco": {"objective": "iwae", "k": "5", "estimator": "vimco"},
    "rws": {"objective": "rws", "k": "5"},
    "wake_sleep": {"objective": "wake_sleep", "k": "1"},
}


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """A cell for each way to train."""
    del settings, config_of
    return crossed({discrete_analysis.AXIS: WAYS})


def results(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results; None while a cell waits, and without an analysis."""
    analysis = None if sweep_results.is_waiting(sweep) else discrete_analysis.read(path)
    return None if analysis is None else discrete_results.content(sweep, analysis)


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of likelihoods and gradients; "" until all cells are trained."""
    computed = results(path, sweep)
    return "" if computed is None else discrete_figures.figure(computed["rows"])


_table, _kept_in = analysed_study.table_and_file(
    discrete_results.FILE, results, discrete_results.text
)

STUDY = Study(
    "discrete",
    "How well do gradient estimators train binary latents, beside the exact gradient?",
    {
        "model": "sbn",
        "latent_dims": "12",
        "dataset": "mnist_small",
        "binarization": "fixed",
        "batch_size": "100",
        "epochs": "20",
        "learning_rate": "0.01",
        "eval_k": "100",
        "replicates": "2",
    },
    choices,
    caption="Left: exact log p(x) of test (filled) and training images (open). Right: the gradient "
    "of the inference network at one trained point, its standard deviation (filled) and its bias "
    "(open, where the test finds one), both over the length of the exact gradient of the ELBO.",
    table=_table,
    kept_in=_kept_in,
    drawing=drawing,
    after_training=discrete_analysis.compute,
)
