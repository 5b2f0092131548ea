"""What bounds of mutual information find where the answer is known, and while VAEs train.

The lecture notes' section 4.2: laws of one covariance and different mutual information, and the
lower bound by which the training of a VAE is also one of mutual information.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.reports import information_figures
from elbo_lab.studies import analysed_study, information_analysis, information_results
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed, flag_axis

MODELS = ("mlp", "conv", "sbn")


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """VAEs of few and of many latents after 1 to 32 epochs.

    With the same seed and a constant learning rate, a run of few epochs is the past of a longer
    one.

    Raises:
      UserError: a run without a q(z|x), or one that is conditioned on labels.
    """
    del config_of
    if settings["model"] not in MODELS:
        raise UserError(
            f"--model must be one of {', '.join(MODELS)} in the study information, which measures "
            f"q(z|x); got {settings['model']!r}."
        )
    if settings["objective"] in ("autoencoder", "gan"):
        raise UserError(
            f"--objective={settings['objective']} has no q(z|x), which the study "
            "information measures; take a variational objective, such as elbo."
        )
    if settings.get("condition", "none") != "none":
        raise UserError(
            f"--condition={settings['condition']} does not go with the study information, which "
            "measures I(x; z), not I(x; z | y); leave it out."
        )
    return crossed(
        {
            information_analysis.LATENTS: flag_axis("latent_dims", "2", "20"),
            information_analysis.EPOCHS: flag_axis("epochs", "1", "2", "4", "8", "16", "32"),
        }
    )


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of laws, estimates and training; "" until all cells are trained."""
    content = information_results.content(path, sweep)
    return information_figures.study(content) if content else ""


_TABLE, _KEPT_IN = analysed_study.table_and_file(
    information_results.FILE, information_results.content, information_results.text
)

STUDY = Study(
    "information",
    "How much does z say about x, and where do bounds of mutual information end?",
    {
        "model": "mlp",
        "objective": "elbo",
        "k": "1",
        "dataset": "mnist_small",
        "binarization": "fixed",
        "batch_size": "100",
        "lr_schedule": "constant",
        "eval_k": "50",
    },
    choices,
    caption="Top: two laws with the same marginals and the same covariance. Middle: estimates for "
    "correlated Gaussians against the exact mutual information, from N pairs; Barber-Agakov with a "
    "q(z|x) that is not the true one. Below: the ELBO and the information of VAEs on test images "
    "against the epochs of training; Barber-Agakov is of the model's own x and z. Bars: two "
    "standard errors.",
    table=_TABLE,
    kept_in=_KEPT_IN,
    drawing=drawing,
    after_training=information_analysis.compute,
)
