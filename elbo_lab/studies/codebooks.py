"""Rate and distortion of a VQ-VAE at several codebook sizes, beside a VAE of the same networks.

Both have the strided convolutions, the residual blocks, and p(x|.) of `networks.conv`. They differ
in what lies between: a grid of code vectors, or a flat Gaussian code with linear layers before and
after it. With code_dim equal to the last of the channels the convolutions have equal shapes.
"""

from pathlib import Path
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.reports import codebook_figures
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.studies import analysed_study, codebook_analysis, codebook_results
from elbo_lab.studies.codebook_analysis import SETTINGS, VAE, VQVAE
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts
from elbo_lab.sweeps import sweep_results

NUM_CODES = ("2", "4", "8", "32", "128", "512")
BETAS = ("4", "1", "0.3", "0.1")
_VALUES = {VQVAE: NUM_CODES, VAE: BETAS}
_FLAGS = {VQVAE: {"model": VQVAE}, VAE: {"model": VAE, "objective": "beta_vae", "k": "1"}}


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """The VQ-VAE with every size of its codebook, then the VAE with every weight of the KL.

    Raises:
      UserError: labels are shown to the VAE.
    """
    del config_of
    if settings.get("condition", "none") != "none":
        raise UserError(
            f"--condition={settings['condition']} shows labels to the VAE of the study codebooks "
            "and not to the VQ-VAE, which takes none; leave it out."
        )
    axes = {"model": NOT_APPLICABLE, **dict.fromkeys(SETTINGS.values(), NOT_APPLICABLE)}
    return [
        Choice(axes | {"model": model, SETTINGS[model]: text}, own | {SETTINGS[model]: text})
        for model, own in _FLAGS.items()
        for text in _VALUES[model]
    ]


def results(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results; None while a cell waits."""
    rates = None if sweep_results.is_waiting(sweep) else codebook_analysis.read(path)
    return codebook_results.content(sweep, rates) if rates else None


def drawing(path: Path, sweep: dict[str, Any]) -> str:
    """SVG of distortion against rate; "" while a cell waits."""
    content = results(path, sweep)
    return codebook_figures.figure(content["rows"]) if content else ""


_TABLE, _KEPT_IN = analysed_study.table_and_file(
    codebook_results.FILE, results, codebook_results.text
)

STUDY = Study(
    "codebooks",
    "What distortion does a VQ-VAE reach at which rate, beside a VAE of the same networks?",
    {
        "dataset": "mnist_small",
        "channels": "8,16,16",
        "residual_blocks": "1",
        "activation": "tanh",
        "code_dim": "16",
        "latent_dims": "32",
        "batch_size": "50",
        "epochs": "10",
        "learning_rate": "0.003",
        "eval_k": "50",
    },
    choices,
    caption="Distortion -log p(x|codes) and -E log p(x|z) against the rate, nats per test image; "
    "nearer to the corner of the origin is better. The VQ-VAE has its codes at full length, M log "
    "K, and by a table of frequencies for each position; the VAE has KL(q(z|x) || p(z)). Numbers "
    "are K and beta. Dotted: equal rate + distortion, minus a lower bound of log p(x).",
    table=_TABLE,
    kept_in=_KEPT_IN,
    drawing=drawing,
    after_training=codebook_analysis.compute,
)
