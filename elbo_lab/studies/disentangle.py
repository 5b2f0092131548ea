"""What weights on the KL and on the total correlation do to a code: reconstruction against scores
of disentanglement, on images whose factors are known.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.evaluation import scikit_learn
from elbo_lab.reports import disentangle_figures
from elbo_lab.studies import analysed_study, disentangle_analysis, disentangle_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts

WEIGHTS = {"beta_vae": ("1", "2", "4", "8"), "beta_tcvae": ("2", "4", "8", "16")}
DATA = ("factors", "factors64")


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every objective with every weight; the VAE first.

    Raises:
      UserError: the data have no known factors in both splits, or scikit-learn is not installed.
    """
    del config_of
    if settings["dataset"] not in DATA:
        raise UserError(
            f"--dataset must be {' or '.join(DATA)} in the study disentangle, which needs the "
            f"factors of both splits; got {settings['dataset']!r}."
        )
    scikit_learn.check_installed("The study disentangle")
    return [
        Choice({"objective": objective, "weight": weight}, {"objective": objective, "beta": weight})
        for objective, weights in WEIGHTS.items()
        for weight in weights
    ]


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of scores against the reconstruction; "" until all cells are trained and scored."""
    results = disentangle_results.content(path, sweep)
    return disentangle_figures.figure(results["rows"]) if results else ""


_TABLE, _KEPT_IN = analysed_study.table_and_file(
    disentangle_results.FILE, disentangle_results.content, disentangle_results.text
)

STUDY = Study(
    "disentangle",
    "What do weights on the KL and on the total correlation do to a code?",
    {
        "model": "mlp",
        "dataset": "factors",
        "latent_dims": "10",
        "k": "1",
        "batch_size": "64",
        "epochs": "40",
        "eval_k": "100",
        "replicates": "3",
    },
    choices,
    caption="Scores of the means of q(z|x) against the reconstruction of test images, for weights "
    "on the KL (beta-VAE; the least is the VAE) and on the total correlation (beta-TC-VAE). Bars: "
    "one standard error over replicates.",
    table=_TABLE,
    kept_in=_KEPT_IN,
    drawing=drawing,
    after_training=disentangle_analysis.compute,
)
