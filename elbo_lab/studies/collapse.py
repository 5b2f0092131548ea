"""Posterior collapse: a decoder that can do without z, and the remedies that keep z in use.

The notes' section 3.3: weaken the decoder (dropped pixels, a short receptive field), bound the KL
from below, let its weight rise, update the encoder more often. Later papers: a q(z|x) that cannot
be the prior (delta-VAE), and skip connections from z to every layer (skip-VAE), which the decoder
has in all rows but one.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.reports import collapse_figures
from elbo_lab.studies import analysed_study, collapse_analysis, collapse_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed

# Every objective here takes the KL in closed form.
_ELBO = {"objective": "elbo", "kl": "analytic"}
# The decoder as it is comes first: the others are compared with it.
REMEDIES: dict[str, Texts] = {
    "none": _ELBO,
    "decoder dropout 0.3": {**_ELBO, "decoder_dropout": "0.3"},
    "receptive field 5": {**_ELBO, "receptive_field": "5"},
    "free bits, 0.25 a latent": {"objective": "free_bits", "min_kl": "0.25"},
    "KL warm-up": {"objective": "beta_vae", "beta": "linear:0:1:40%"},
    "cyclical warm-up": {"objective": "beta_vae", "beta": "cyclical:0:1:25%"},
    "3 encoder steps": {**_ELBO, "encoder_steps": "3"},
    "delta-posterior, 0.25 a latent": {**_ELBO, "posterior_min_kl": "0.25"},
    "without skip connections": {**_ELBO, "latent_gates": "first"},
}


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """A cell for each remedy.

    Raises:
      UserError: another model, or one that is conditioned on labels.
    """
    del config_of
    if settings["model"] != "pixelvae":
        raise UserError(
            "--model must be pixelvae in the study collapse, whose remedies are settings of its "
            f"decoder; got {settings['model']!r}."
        )
    if settings.get("condition", "none") != "none":
        raise UserError(
            f"--condition={settings['condition']} does not go with the study collapse, which "
            "measures I(x; z), not I(x; z | y); leave it out."
        )
    return crossed({collapse_analysis.AXIS: REMEDIES})


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of KL and L_K over the steps; "" until a cell is trained."""
    results = collapse_results.content(path, sweep)
    return "" if results is None else collapse_figures.figure(results["rows"], results["eval_k"])


_TABLE, _KEPT_IN = analysed_study.table_and_file(
    collapse_results.FILE, collapse_results.content, collapse_results.text
)

STUDY = Study(
    "collapse",
    "Which remedy keeps z in use when the decoder can do without it?",
    {
        "model": "pixelvae",
        "dataset": "mnist_small",
        "latent_dims": "16",
        "channels": "8,16",
        "layers": "3",
        "width": "8",
        "output_width": "16",
        "latent_features": "2",
        "activation": "relu",
        "batch_size": "50",
        "epochs": "2",
        "learning_rate": "0.003",
        "log_every": "20",
        "probe_every": "20",
        "eval_k": "5",
    },
    choices,
    caption="Top: KL(q(z|x) || p(z)) of the training images during training; 0 means that z is "
    "unused. Bottom: the bound L_K of the first test images, measured during training without "
    "dropped pixels.",
    table=_TABLE,
    kept_in=_KEPT_IN,
    drawing=drawing,
    after_training=collapse_analysis.compute,
)
