"""Rainforth et al. (2018), section 6: how 64 draws are divided between the logarithm and repeats.

All cells take 64 draws of each image in a step. The paper's gradients are the reparameterized ones,
whose signal-to-noise ratio for the inference network falls with K.
"""

from elbo_lab.studies import comparison_study, table1
from elbo_lab.studies.study import Choice, ConfigOf, Texts

DRAWS = "64"


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """IWAE, which is the baseline, and the objectives that are compared with it."""
    del config_of
    models = {
        "IWAE": {"objective": "iwae", "k": DRAWS},
        "PIWAE(8, 8)": {"objective": "piwae", "k": "8", "m": "8"},
        "MIWAE(8, 8)": {"objective": "miwae", "k": "8", "m": "8"},
        "CIWAE(0.5)": {"objective": "ciwae", "beta": "0.5", "k": DRAWS},
        "VAE": table1.vae(settings["protocol"]) | {"k": DRAWS},
    }
    return [Choice({"model": name}, flags) for name, flags in models.items()]


STUDY = comparison_study.make(
    "rainforth2018",
    "Does a bound of 64 draws that is looser than IWAE's train a better model?",
    {"estimator": "reparam"},
    choices,
    "IWAE",
)
