"""A user's own normal distribution, valid under every setting of JAX's promotions.

Every operation is between arrays of one rank and one type.
"""

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import losses


def log_normal(value, mean, scale):
    """log N(value; mean, scale^2), summed over the last axis."""
    mean, scale = (jnp.broadcast_to(p, value.shape) for p in (mean, scale))
    noise = (value - mean) / scale
    return jnp.sum(-0.5 * noise**2 - jnp.log(scale) - 0.5 * np.log(2 * np.pi).item(), axis=-1)


class OwnNormal:
    """N(mean, diag scale^2); draws, densities and the KL are of the mean's type.

    Args:
      mean: [*batch, L].
      scale: [L] or [*batch, L].
      noise: (key, shape, dtype) -> standard normal draws.
    """

    def __init__(self, mean, scale, noise=jax.random.normal):
        self.mean, self.scale = mean, jnp.broadcast_to(scale, mean.shape)
        self.noise = noise
        self.variance = self.scale**2

    def sample(self, key, sample_shape=()):
        noise = self.noise(key, (*sample_shape, *self.mean.shape), self.mean.dtype)
        mean, scale = (jnp.broadcast_to(p, noise.shape) for p in (self.mean, self.scale))
        return mean + scale * noise

    def log_prob(self, z):
        return log_normal(z, self.mean, self.scale)


def kl(q, p):
    mean, scale = (jnp.broadcast_to(x, q.mean.shape) for x in (p.mean, p.scale))
    ratio, distance = q.scale / scale, (q.mean - mean) / scale
    return jnp.sum(0.5 * (ratio**2 + distance**2 - 1) - jnp.log(ratio), axis=-1)


losses.KL_REGISTRY[OwnNormal, OwnNormal] = kl
