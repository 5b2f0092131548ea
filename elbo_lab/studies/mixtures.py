"""Mixtures of Gaussians on two-dimensional data: EM, online EM and gradients of the same exact
likelihood; the path of EM's bound, and log p(x) = ELBO(q) + KL(q || p(z|x)) in numbers.
"""

from pathlib import Path
from typing import Any

from elbo_lab.reports import mixture_figures
from elbo_lab.studies import mixture_analysis, mixture_results, stored_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed, flag_axis
from elbo_lab.sweeps import sweep_reporting

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


def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of the cells, and that of log p(x) = ELBO + KL."""
    del settings
    cells = sweep_reporting.table(sweep)
    analysis = mixture_analysis.of_sweep(path, sweep)
    if analysis is None:
        return cells
    return "\n\n".join([cells, mixture_results.text(mixture_results.content(sweep, analysis))])


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of the first cell's mixture; "" until it is trained, or in other than two dimensions."""
    analysis = mixture_analysis.of_sweep(path, sweep)
    if analysis is None or analysis.density is None:
        return ""
    return mixture_figures.em_figure(
        analysis.examples, analysis.draws, analysis.density, *analysis.path
    )


def kept_in(study: Study, folder: Path) -> Study:
    """The study that writes its results into a folder, once all cells are trained."""

    def stored_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
        analysis = mixture_analysis.of_sweep(path, sweep)
        if sweep["complete"] and analysis is not None:
            results = mixture_results.content(sweep, analysis)
            stored_results.write(folder / mixture_results.FILE, results)
        return study.table(path, sweep, settings)

    return study._replace(table=stored_table)


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
    table=table,
    kept_in=kept_in,
    drawing=drawing,
)
