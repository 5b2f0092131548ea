"""Maddison et al. (2017), table 1: sigmoid belief networks with layers of 200 binary units.

"-" is a linear conditional, "~" one with two hidden layers of 200 tanh units. The paper's column
VIMCO is beside reweighted wake-sleep here; both take five draws of each image in a step.
"""

from elbo_lab.studies import comparison_study
from elbo_lab.studies.study import Choice, ConfigOf, Texts, crossed

_NONLINEAR = {"hidden_dims": "200,200"}
NETWORKS: dict[str, Texts] = {
    "200H-784V": {"latent_dims": "200"},
    "200H~784V": {"latent_dims": "200"} | _NONLINEAR,
    "200H-200H-784V": {"latent_dims": "200,200"},
    "200H~200H~784V": {"latent_dims": "200,200"} | _NONLINEAR,
}
WAYS: dict[str, Texts] = {
    "vimco": {"objective": "iwae", "estimator": "vimco"},
    # rws has a target for each network, and no estimator.
    "rws": {"objective": "rws", "estimator": ""},
}


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every network by both ways; the linear one of a single layer by VIMCO is the baseline."""
    del settings, config_of
    return crossed({"network": NETWORKS, "trained by": WAYS})


STUDY = comparison_study.make(
    "maddison2017",
    "How well do VIMCO and reweighted wake-sleep train layers of 200 binary units?",
    {"model": "sbn", "binarization": "fixed", "k": "5"},
    choices,
    "one linear layer by VIMCO",
)
