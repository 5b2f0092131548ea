"""Settings of the tests of `elbo_lab.losses`."""

import numpyro.distributions
import pytest

from tests.losses import promotion

promotion.allow_inside(numpyro.distributions, numpyro.distributions.transforms)
numpyro.distributions.kl_divergence = promotion.allowed(numpyro.distributions.kl_divergence)


def pytest_configure(config):
    config.addinivalue_line("markers", "promotes: the test may promote ranks and types of arrays")


@pytest.fixture(autouse=True)
def no_promotion(request):
    """Makes implicit promotion of ranks or types raise, in our code and in the test."""
    if request.node.get_closest_marker("promotes"):
        yield
        return
    with promotion.refused():
        yield
