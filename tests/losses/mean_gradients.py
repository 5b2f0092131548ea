"""Mean gradients over many keys, and their distance from exact gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from tests.losses import linear_gaussian


class GivenNoise:
    """A user's own N(mean, scale^2), of no library, with fixed noise [*sample_shape, *batch, L]."""

    def __init__(self, mean, scale, noise):
        self.mean, self.scale, self.noise = mean, scale, noise

    def sample(self, key, sample_shape=()):
        assert self.noise.shape == (*sample_shape, *self.mean.shape)
        mean, scale = (jnp.broadcast_to(p, self.noise.shape) for p in (self.mean, self.scale))
        return mean + scale * self.noise

    def log_prob(self, z):
        return dist.Normal(self.mean, self.scale).to_event(1).log_prob(z)


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def many(loss, params, draws, estimators):
    """Gradients by each estimator with the same keys, float64: {estimator: {leaf: [draws, ...]}}.

    Args:
      loss: (params, key, estimator=) -> scalar.
      params: a dict or a NamedTuple of arrays.
      draws: number of keys.
      estimators: names, or estimators as functions.
    """

    def by_estimators(params, key):
        return [
            jax.grad(functools.partial(loss, estimator=estimator))(params, jax.random.clone(key))
            for estimator in estimators
        ]

    keys = jax.random.split(jax.random.key(3), draws)
    gradients = jax.jit(jax.vmap(by_estimators, in_axes=(None, 0)))(float32(params), keys)
    gradients = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), gradients)
    as_dicts = [g if isinstance(g, dict) else g._asdict() for g in gradients]
    return dict(zip(estimators, as_dicts, strict=True))


def standard_errors_off(samples, expected):
    """The greatest |mean - expected| in standard errors, beyond float32's rounding of 1e-5."""
    error = np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))
    distance = np.abs(np.mean(samples, axis=0) - expected)
    return np.max(np.maximum(distance - 1e-5, 0) / np.maximum(error, 1e-12))


def off_exact(gradients, exact):
    """The greatest distance, in standard errors, of minus the mean gradient from the exact one."""
    exact = exact._asdict()
    return max(standard_errors_off(-gradients[leaf], exact[leaf]) for leaf in exact)


def one_latent():
    """Parameters and x of a model with one latent dimension, whose q is far from the posterior."""
    return linear_gaussian.one_latent(shift=0.4, widening=0.3), np.array([0.7, -0.4])


def objective_loss(objective, options, x):
    """The objective on the linear-Gaussian model, as `many` takes it."""

    def loss(params, key, estimator):
        arguments = linear_gaussian.distributions(params, float32(x))
        return objective(key, *arguments, estimator=estimator, **options)[0]

    return loss
