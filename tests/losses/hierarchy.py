"""A model of two Gaussian layers with linear means, for tests of hierarchies."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from elbo_lab.distributions import Chain

RNG = np.random.default_rng(3)
LAYERS = {
    name: 0.7 * RNG.normal(size=shape)
    for name, shape in {"a": (3, 3), "b": (3, 2), "s": (2,), "v": (2, 3), "w": (3, 3)}.items()
}


def normal(mean, scale):
    return dist.Normal(mean, jnp.broadcast_to(scale, mean.shape)).to_event(1)


def two_layers(params, x):
    """Posterior, prior and log_likelihood of z = (z_1, z_2), of three and two dimensions.

    Args:
      params: as LAYERS; a, b and s are q's.
      x: [*batch, 3].
    """
    posterior = Chain(
        normal(x @ params["a"], 0.6), [lambda z: normal(z @ params["b"], jnp.exp(params["s"]))]
    )
    prior = Chain(normal(jnp.zeros(2), 1.0), [lambda z: normal(z @ params["v"], 0.9)], True)
    return posterior, prior, lambda z: normal(z[0] @ params["w"], 0.8).log_prob(x)
