"""IWAE with more draws, by two gradient estimators (Rainforth et al. 2018, Tucker et al. 2019).

The signal-to-noise ratio of the inference network's gradient falls as K grows with the
reparameterized estimator, but not with the doubly reparameterized one.
"""

from elbo_lab.reports import sweep_figures
from elbo_lab.studies.study import Choice, ConfigOf, Study, Texts, crossed, flag_axis


def choices(settings: Texts, config_of: ConfigOf) -> list[Choice]:
    """Every estimator with every K."""
    del settings, config_of
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
