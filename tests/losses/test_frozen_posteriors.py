"""Estimators that hold log q's parameters fixed do so for closures too: hierarchies and flows."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hierarchy import LAYERS, normal, two_layers
from numpyro.distributions.flows import InverseAutoregressiveTransform

from elbo_lab import losses

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = jnp.array([0.5, -1.0, 1.5])


class Held:
    """A posterior whose draws carry no derivative on purpose."""

    reparameterized = True

    def __init__(self, posterior):
        self.posterior, self.log_prob = posterior, posterior.log_prob

    def sample(self, key, sample_shape=()):
        return jax.lax.stop_gradient(self.posterior.sample(key, sample_shape))


def flow(params, x):
    """A flow whose network is a closure: its parameters are no leaves of the distribution."""
    mask = np.tril(np.ones((3, 3)), -1)

    def network(z):
        return z @ (mask * params["a"]).T, z @ (mask * params["w"]).T

    base = normal(x, 1.0)
    posterior = dist.TransformedDistribution(base, InverseAutoregressiveTransform(network))
    return posterior, normal(jnp.zeros(3), 1.0), lambda z: normal(z, 0.8).log_prob(x)


@pytest.mark.parametrize("model, leaves", [(two_layers, "abs"), (flow, "aw")])
def test_log_q_alone_gives_q_no_gradient(model, leaves):
    def loss(params, estimator):
        posterior, *others = model(params, X)
        key = jax.random.key(0)
        return losses.iwae(key, Held(posterior), *others, num_samples=2, estimator=estimator)[0]

    @jax.jit
    def gradients(params):
        names = "stl", "dreg", "wake_dreg", "reparam"
        return {name: jax.grad(loss)(params, name) for name in names}

    found = gradients(jax.tree.map(jnp.float32, LAYERS))
    for leaf in leaves:
        assert np.max(np.abs(found["reparam"][leaf])) > 1e-3
        for name in ("stl", "dreg", "wake_dreg"):
            np.testing.assert_array_equal(found[name][leaf], 0)
