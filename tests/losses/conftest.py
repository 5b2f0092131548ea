"""Settings of the tests of `elbo_lab.losses`."""

import numpyro.distributions
import pytest

from tests.losses import promotion

promotion.allow_inside(numpyro.distributions, numpyro.distributions.transforms)
numpyro.distributions.kl_divergence = promotion.allowed(numpyro.distributions.kl_divergence)


def pytest_configure(config):
    config.addinivalue_line("markers", "promotes: lets a test promote ranks and types of arrays")


@pytest.fixture(autouse=True)
def no_promotion(request):
    """Neither our code nor the test's promotes ranks or types of arrays implicitly."""
    if request.node.get_closest_marker("promotes"):
        yield
        return
    with promotion.refused():
        yield
