"""What the table of a run says of its objective."""

import pytest

from elbo_lab import configs, losses
from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.runs import reporting


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"objective": "elbo", "kl": "mc"}, "elbo, k = 5, mc KL, reparam estimator"),
        (
            {"objective": "beta_vae", "beta": "linear:0:4:100"},
            "beta_vae, k = 5, beta = linear:0:4:100, analytic KL, reparam estimator",
        ),
        ({"objective": "piwae", "m": 2}, "piwae, k = 5, m = 2, reparam estimator"),
        (
            {"objective": "renyi", "alpha": "-inf"},
            "renyi, k = 5, alpha = -inf, reparam estimator",
        ),
        ({"objective": "rws", "phase": "both"}, "rws, k = 5, phase = both"),
    ],
)
def test_settings_as_they_were_given(given, text):
    used = validation.resolved(configs.make(**given))
    assert reporting.objective_text(configs.to_dict(used)) == text


@pytest.mark.parametrize("objective", losses.CATALOGUE)
def test_settings_of_every_objective(objective):
    """Those that were not given as well, and none that the objective does not take."""
    used = configs.to_dict(validation.resolved(Config(objective=objective)))
    text = reporting.objective_text(used)
    assert text.startswith(f"{objective}, k = 5")
    for name in configs.option_types():
        shown = f"{used[name]} KL" if name == "kl" and name in used else f", {name} = "
        assert (shown in text) == (objective in configs.objectives_with(name))
    assert text.endswith(" estimator") == bool(losses.CATALOGUE[objective].estimators)
