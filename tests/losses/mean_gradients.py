"""Means of an estimator's gradient over many keys, and their distance from exact ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from tests.losses import linear_gaussian


class GivenNoise:
    """N(mean, scale^2) whose noise is given."""

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


def many(make_loss, params, draws, names):
    """Gradients by each estimator, of the same keys, float64: {name: {leaf: [draws, ...]}}."""

    def all_of_them(params, key):
        keys = [jax.random.clone(key) for _ in names]
        return [
            jax.grad(functools.partial(make_loss, estimator=name))(params, k)
            for name, k in zip(names, keys, strict=True)
        ]

    keys = jax.random.split(jax.random.key(3), draws)
    found = jax.jit(jax.vmap(all_of_them, in_axes=(None, 0)))(float32(params), keys)
    found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
    found = [one if isinstance(one, dict) else one._asdict() for one in found]
    return dict(zip(names, found, strict=True))


def standard_errors_off(samples, expected):
    """|mean - expected| in standard errors, beside float32's rounding."""
    error = np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))
    distance = np.abs(np.mean(samples, axis=0) - expected)
    return np.max(np.maximum(distance - 1e-5, 0) / np.maximum(error, 1e-12))


def off_exact(gradients, exact):
    """The greatest distance of the losses' mean gradient from that of minus the exact one."""
    exact = exact._asdict()
    return max(standard_errors_off(-gradients[leaf], exact[leaf]) for leaf in exact)


def one_latent():
    """One latent dimension, for quadrature."""
    params = linear_gaussian.make_params(data_dim=2, latent_dim=1, seed=1)
    params = params._replace(c=params.c + 0.4, log_scale=params.log_scale + 0.3)
    return params, np.array([0.7, -0.4])


def objective_loss(objective, options, x):
    def loss(params, key, estimator):
        arguments = linear_gaussian.distributions(params, float32(x))
        return objective(key, *arguments, estimator=estimator, **options)[0]

    return loss
