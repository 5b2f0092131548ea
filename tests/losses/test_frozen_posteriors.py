"""Estimators freeze log q's parameters in closures too: hierarchies and flows."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions.flows import InverseAutoregressiveTransform

from elbo_lab import losses
from elbo_lab.distributions import Chain
from tests.losses.hierarchy import LAYERS, normal, two_layers

pytestmark = pytest.mark.usefixtures("fast_compilation")

X = jnp.array([0.5, -1.0, 1.5])


class FrozenDraws:
    """A posterior whose draws carry no derivative, although it is declared reparameterized."""

    reparameterized = True

    def __init__(self, posterior):
        self.posterior, self.log_prob = posterior, posterior.log_prob

    def sample(self, key, sample_shape=()):
        return jax.lax.stop_gradient(self.posterior.sample(key, sample_shape))


def flow(params, x):
    """A flow whose network is a closure: its parameters are not leaves of the distribution."""
    mask = np.tril(np.ones((3, 3)), -1)

    def network(z):
        return z @ (mask * params["a"]).T, z @ (mask * params["w"]).T

    base = normal(x, 1.0)
    posterior = dist.TransformedDistribution(base, InverseAutoregressiveTransform(network))
    return posterior, normal(jnp.zeros(3), 1.0), lambda z: normal(z, 0.8).log_prob(x)


@pytest.mark.parametrize("model, leaves", [(two_layers, "abs"), (flow, "aw")])
def test_log_q_alone_gives_q_no_gradient(model, leaves):
    def loss(params, estimator):
        posterior, prior, log_likelihood = model(params, X)
        arguments = FrozenDraws(posterior), prior, log_likelihood
        options = {"num_samples": 2, "estimator": estimator}
        return losses.iwae(jax.random.key(0), *arguments, **options)[0]

    @jax.jit
    def compute(params):
        names = "stl", "dreg", "wake_dreg", "reparam"
        return {name: jax.grad(loss)(params, name) for name in names}

    gradients = compute(jax.tree.map(jnp.float32, LAYERS))
    for leaf in leaves:
        assert np.max(np.abs(gradients["reparam"][leaf])) > 1e-3
        for name in ("stl", "dreg", "wake_dreg"):
            np.testing.assert_array_equal(gradients[name][leaf], 0)


def test_some_layers_of_a_hierarchy_may_be_frozen():
    """Slopes by m of the negative ELBO of one draw; z_1 ~ N(m, s), and z_2 ~ N(1, 1) is frozen."""
    scale, x = 0.5, 1.5

    def total(mean, first, estimator):
        posterior = Chain(first(mean), [lambda z: normal(jax.lax.stop_gradient(0 * z) + 1, 1.0)])
        prior = Chain(normal(jnp.zeros(1), 1.0), [lambda z: normal(0 * z, 1.0)], downwards=True)
        loss, aux = losses.elbo(
            jax.random.key(0),
            posterior,
            prior,
            lambda z: -0.5 * jnp.sum((x - z[0]) ** 2, axis=-1),
            estimator=estimator,
        )
        return loss, aux.log_px_z[0]

    @jax.jit
    def gradients(mean):
        def slope(estimator):
            return jax.grad(total, has_aux=True)(mean, lambda m: normal(m, scale), estimator)

        return {name: slope(name) for name in ("reparam", "stl", "dreg")}

    mean = jnp.array([0.3])
    for estimator, (slope, log_px_z) in gradients(mean).items():
        # Two values of z have this likelihood, and the draw is one of them.
        z = x + np.array([-1, 1]) * np.sqrt(-2 * np.float64(log_px_z))
        expected = 2 * z - x - (0 if estimator == "reparam" else (z - 0.3) / scale**2)
        assert np.min(np.abs(expected - slope[0])) < 1e-5

    class FloatBits:
        """Bernoulli draws as floating-point numbers, which jump."""

        def __init__(self, logits):
            self.law = dist.BernoulliLogits(logits).to_event(1)
            self.log_prob = self.law.log_prob

        def sample(self, key, sample_shape=()):
            return self.law.sample(key, sample_shape).astype(jnp.float32)

    with pytest.raises(ValueError, match="draws can be differentiated"):
        jax.eval_shape(lambda mean: jax.grad(total, has_aux=True)(mean, FloatBits, "reparam"), mean)
