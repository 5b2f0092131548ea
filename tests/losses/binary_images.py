"""Four binary images of six pixels, and a linear generation network of three latent dimensions."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

B, L, D, K = 4, 3, 6, 5
RNG = np.random.default_rng(0)
W = RNG.normal(size=(L, D)).astype(np.float32)
X = (RNG.random((B, D)) < 0.5).astype(np.float32)
PRIOR = dist.Normal(jnp.zeros(L), 1.0).to_event(1)


def log_likelihood(z):
    """log p(x|z) of each image, z [..., B, L] -> [..., B], nats."""
    return dist.BernoulliLogits(z @ W).to_event(1).log_prob(X)
