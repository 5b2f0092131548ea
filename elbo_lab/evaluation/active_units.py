"""Which latent units carry information about the data."""

from typing import Any

import numpy as np
from jax import Array

from elbo_lab.distributions import Chain

# A unit u is active where Var_x(E_q(u|x)[u]) exceeds this (Burda et al. 2016, section 5.2).
ACTIVE_THRESHOLD = 0.01


def layer_means(key: Array, posterior: Any) -> tuple[Array, ...]:
    """E_q[z_i | x] of every stochastic layer, from the data up.

    Above the first layer it is the mean given one draw of the layers below, as in the public code
    of Burda et al. (2016).

    Args:
      key: one typed PRNG key, used by hierarchies only.
      posterior: q(z|x), batch shape [*batch].

    Returns:
      A tuple of [*batch, L_i].
    """
    if isinstance(posterior, Chain):
        return tuple(layer.mean for layer in posterior.layers(posterior.sample(key)))
    return (posterior.mean,)


def activity(means: np.ndarray) -> np.ndarray:
    """Var_x(E_q[z_l|x]) of each unit: means [N, L] over a split -> [L]."""
    return np.var(np.asarray(means, np.float64), axis=0)
