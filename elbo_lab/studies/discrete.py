"""Binary latents that can still be summed: every way to train them, judged by the exact likelihood.

A sigmoid belief network of 12 units has 4,096 states, so that log p(x) and the gradient of the ELBO
are sums. Estimators of that gradient are compared with it, and the trained models with each other.
"""

from pathlib import Path
from typing import Any

from elbo_lab.reports import discrete_figures
from elbo_lab.studies import discrete_analysis, discrete_results, stored_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed
from elbo_lab.sweeps import sweep_reporting

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


def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of the cells and, once all are trained, that of the study."""
    del settings
    cells = sweep_reporting.table(sweep)
    analysis = discrete_analysis.of_sweep(path, sweep)
    if analysis is None:
        return cells
    return "\n\n".join([cells, discrete_results.text(discrete_results.content(sweep, analysis))])


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of likelihoods and gradients; "" until all cells are trained."""
    analysis = discrete_analysis.of_sweep(path, sweep)
    if analysis is None:
        return ""
    return discrete_figures.figure(discrete_results.content(sweep, analysis)["rows"])


def kept_in(study: Study, folder: Path) -> Study:
    """The study that writes its results into a folder, once all cells are trained."""

    def stored_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
        analysis = discrete_analysis.of_sweep(path, sweep)
        if analysis is not None:
            results = discrete_results.content(sweep, analysis)
            stored_results.write(folder / discrete_results.FILE, results)
        return study.table(path, sweep, settings)

    return study._replace(table=stored_table)


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
    table=table,
    kept_in=kept_in,
    drawing=drawing,
)
