"""What an encoder that was trained without labels is worth to a classifier with few of them: linear
probes of its features, and a classifier that starts from its weights.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.reports import feature_figures
from elbo_lab.studies import analysed_study, feature_analysis, feature_results
from elbo_lab.studies.feature_analysis import AUTOENCODER, VAE
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed

ENCODERS = {VAE: {"objective": "elbo", "k": "1"}, AUTOENCODER: {"objective": "autoencoder"}}
MODELS = ("mlp", "conv")


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """The VAE and the autoencoder over the same networks.

    Raises:
      UserError: another model family, or an encoder that sees labels.
    """
    del config_of
    if settings["model"] not in MODELS:
        raise UserError(
            f"--model must be {' or '.join(MODELS)} in the study features, whose encoders start a "
            f"classifier; got {settings['model']!r}."
        )
    if settings.get("condition", "none") != "none":
        raise UserError(
            f"--condition={settings['condition']} shows labels to the encoders, which the study "
            "features trains without; leave it out."
        )
    return crossed({"encoder": ENCODERS})


def results(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results; None until there are accuracies."""
    probed = feature_analysis.read(path)
    return feature_results.content(sweep, probed) if probed else None


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of accuracy against the number of labels; "" until there are accuracies."""
    del sweep
    probed = feature_analysis.read(path)
    return feature_figures.accuracies(feature_results.rows_of(probed)) if probed else ""


_table, _kept_in = analysed_study.table_and_file(
    feature_results.FILE, results, feature_results.text
)

STUDY = Study(
    "features",
    "How many labels does an encoder save that was trained without any?",
    {
        "model": "mlp",
        "dataset": "mnist_small",
        "binarization": "threshold",
        "batch_size": "100",
        "epochs": "30",
        "eval_k": "100",
        "replicates": "5",
    },
    choices,
    caption="Test accuracy against the number of labelled training examples: linear probes of a "
    "VAE's posterior means, of an autoencoder's codes and of the pixels, and the VAE's encoder "
    "with a linear layer, trained as a classifier from the VAE's weights and from fresh ones. "
    "Bands: one standard error over seeds.",
    table=_table,
    kept_in=_kept_in,
    drawing=drawing,
    after_training=feature_analysis.compute,
    needs_labels=True,
)
