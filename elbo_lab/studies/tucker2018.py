"""Tucker et al. (2018): gradient estimators of the IWAE bound and of reweighted wake-sleep.

`wake` and `wake_dreg` train the generation network by the IWAE bound as the others do, and the
inference network by the wake phase of reweighted wake-sleep.
"""

from elbo_lab.studies import comparison_study
from elbo_lab.studies.study import Choice, ConfigOf, Texts, crossed, flag_axis

ESTIMATORS = ("reparam", "stl", "dreg", "wake", "wake_dreg")


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """The reparameterized estimator, which is the baseline, and those compared with it."""
    del settings, config_of
    return crossed({"estimator": flag_axis("estimator", *ESTIMATORS)})


STUDY = comparison_study.make(
    "tucker2018",
    "Do doubly reparameterized gradients train a better model than reparameterized ones?",
    {"objective": "iwae", "k": "64"},
    choices,
    "the reparameterized estimator",
)
