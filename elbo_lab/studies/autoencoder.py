"""An autoencoder and VAEs over the same networks: reconstructions, decoded draws from the prior,
and where the codes lie; and the textbook's objective (13.28) as an ELBO.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.reports import autoencoder_figures
from elbo_lab.studies import autoencoder_analysis, autoencoder_results, stored_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed
from elbo_lab.sweeps import sweep_reporting

# The law of p(x|z) of which (13.28) speaks.
LIKELIHOOD = "gaussian_fixed"


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """The autoencoder, the VAE, and the VAE by (13.28), whose lambda is p(x|z)'s variance.

    Raises:
      UserError: p(x|z) is another law.
    """
    del config_of
    if settings["likelihood"] != LIKELIHOOD:
        raise UserError(
            f"--likelihood must be {LIKELIHOOD} in the study autoencoder, which compares with "
            f"equation 13.28; got {settings['likelihood']!r}."
        )
    vae = {"k": "1", "kl": "analytic"}
    variance = settings["likelihood_variance"]
    systems = {
        "autoencoder": {"objective": "autoencoder"},
        "VAE": {"objective": "elbo", **vae},
        "VAE by (13.28)": {"objective": "lambda_vae", "regularization": variance, **vae},
    }
    return crossed({"system": systems})


def table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
    """The table of the cells, and those of codes and of (13.28)."""
    del settings
    cells = sweep_reporting.table(sweep)
    results = autoencoder_results.content(path, sweep)
    return cells if results is None else f"{cells}\n\n{autoencoder_results.text(results)}"


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of the first replicates of autoencoder and VAE; "" until both are trained, and for codes
    that are no plane.
    """
    pictures = {}
    for cell in sweep["cells"][:2]:
        replicates = autoencoder_analysis.of_cell(path, cell)
        if replicates and replicates[0].pictures is not None:
            pictures[cell["values"]["system"]] = replicates[0].pictures
    if len(pictures) < 2:
        return ""
    return autoencoder_figures.side_by_side(pictures, autoencoder_analysis.radius(2))


def kept_in(study: Study, folder: Path) -> Study:
    """The study that writes its results into a folder, once all cells are trained."""

    def stored_table(path: Path, sweep: dict[str, Any], settings: Texts) -> str:
        results = autoencoder_results.content(path, sweep)
        if sweep["complete"] and results is not None:
            stored_results.write(folder / autoencoder_results.FILE, results)
        return study.table(path, sweep, settings)

    return study._replace(table=stored_table)


STUDY = Study(
    "autoencoder",
    "Where do an autoencoder's codes lie under the prior, and what do draws from it decode to?",
    {
        "model": "mlp",
        "latent_dims": "2",
        "dataset": "mnist_small",
        "binarization": "none",
        "likelihood": LIKELIHOOD,
        "likelihood_variance": "0.2",
        "batch_size": "100",
        "epochs": "40",
        "eval_k": "100",
        "replicates": "3",
    },
    choices,
    caption="Autoencoder (left) and VAE (right) over the same networks, two latents. Top: test "
    "images, and below each its decoded code. Middle: codes of the test images, coloured by class; "
    "dashed, the circle that holds 99% of the prior. Bottom: decoded draws from the prior, the "
    "same draws on both sides.",
    table=table,
    kept_in=kept_in,
    drawing=drawing,
)
