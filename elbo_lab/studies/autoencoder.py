"""An autoencoder and VAEs over the same networks: reconstructions, decoded draws from the prior,
and where the codes lie; and the textbook's objective (13.28) as an ELBO.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.reports import autoencoder_figures
from elbo_lab.studies import analysed_study, autoencoder_analysis, autoencoder_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed

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


_table, _kept_in = analysed_study.table_and_file(
    autoencoder_results.FILE, autoencoder_results.content, autoencoder_results.text
)

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
    table=_table,
    kept_in=_kept_in,
    drawing=drawing,
    after_training=autoencoder_analysis.compute,
)
