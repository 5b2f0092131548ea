"""Li and Turner (2016): the Renyi (VR) bounds between the VAE and IWAE, and beyond.

VR(alpha) is the bound of order alpha: VAE and IWAE are alpha = 1 and alpha = 0, and VR-max is
alpha = -inf, the greatest of the log-weights.
"""

from elbo_lab.studies import comparison_study, table1
from elbo_lab.studies.study import Choice, ConfigOf, Texts, crossed, flag_axis


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every model with every K; the VAE with the least K is the baseline."""
    del config_of
    models = {
        "VAE": table1.vae(settings["protocol"]),
        "IWAE": {"objective": "iwae"},
        "VR-max": {"objective": "renyi", "alpha": "-inf"},
        "VR(0.5)": {"objective": "renyi", "alpha": "0.5"},
    }
    # By K first, so that models of the same K stand together.
    by_k = crossed({"k": flag_axis("k", "5", "50"), "model": models})
    return [Choice({"model": values["model"], "k": values["k"]}, flags) for values, flags in by_k]


STUDY = comparison_study.make(
    "li_turner2016",
    "Do Renyi bounds train a better model than the VAE, and as good a one as IWAE?",
    {"estimator": "reparam"},
    choices,
    "the VAE with k = 5",
)
