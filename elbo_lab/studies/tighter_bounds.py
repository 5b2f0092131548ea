"""More draws in the IWAE bound, by two gradient estimators (after Rainforth et al. 2018 and Tucker
et al. 2019): the reparameterized gradient of the inference network has a signal-to-noise ratio that
falls as K grows, the doubly reparameterized one does not.
"""

from elbo_lab.reports import sweep_figures
from elbo_lab.studies.study import Choice, Study, Texts, crossed, flag_axis


def choices(settings: Texts) -> list[Choice]:
    """K by estimator."""
    del settings
    axes = {
        "estimator": flag_axis("estimator", "reparam", "dreg"),
        "k": flag_axis("k", "1", "5", "50"),
    }
    return crossed(axes)


STUDY = Study(
    "tighter_bounds",
    "Does a tighter bound train a better model, and does the gradient estimator decide it?",
    {"objective": "iwae", "replicates": "3", "epochs": "20"},
    choices,
    sweep_figures.bound_against_k,
    "Test bounds against K, the draws in the bound that is trained. Bars: one standard error.",
)
