"""Mixtures of Gaussians on two-dimensional data: EM, online EM and gradients of the same exact
likelihood; the path of EM's bound, and log p(x) = ELBO(q) + KL(q || p(z|x)) in numbers.
"""

from pathlib import Path
from typing import Any

from elbo_lab.reports import mixture_figures
from elbo_lab.studies import analysed_study, mixture_analysis, mixture_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed, flag_axis

# The batch of EM is all of the pinwheel's training examples.
FITS = {
    "EM": {"fit": "em", "batch_size": "2000"},
    "online EM": {"fit": "em", "batch_size": "100"},
    "gradient": {"fit": "gradient", "batch_size": "100", "learning_rate": "0.02"},
}


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every covariance with every fit."""
    del settings, config_of
    covariances = flag_axis("covariance", "full", "diagonal", "tied")
    return crossed({"covariance": covariances, "fit": FITS})


def results(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results; None until the first cell is trained."""
    analysis = mixture_analysis.of_sweep(path, sweep)
    return None if analysis is None else mixture_results.content(sweep, analysis)


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of the first cell's mixture; "" until it is trained, or in other than two dimensions."""
    analysis = mixture_analysis.of_sweep(path, sweep)
    if analysis is None or analysis.density is None:
        return ""
    return mixture_figures.em_figure(
        analysis.examples, analysis.draws, analysis.density, *analysis.path
    )


_table, _kept_in = analysed_study.table_and_file(
    mixture_results.FILE, results, mixture_results.text
)

STUDY = Study(
    "mixtures",
    "Do EM and gradients of the exact likelihood find equally good mixtures?",
    {
        "model": "mixture",
        "dataset": "pinwheel",
        "likelihood": "gaussian",
        "binarization": "none",
        "components": "15",
        "epochs": "100",
        "replicates": "3",
    },
    choices,
    caption="Training examples, the density of a mixture with full covariances that EM fitted, its "
    "draws, and the first iterations: an M-step raises the bound (solid), and the next E-step "
    "raises it to log p(x) (dotted).",
    table=_table,
    kept_in=_kept_in,
    drawing=drawing,
    after_training=mixture_analysis.compute,
)
