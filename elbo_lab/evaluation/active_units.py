"""Which latent units carry information about the data."""

from typing import Any

import jax
import numpy as np
from jax import Array

from elbo_lab.distributions import Chain
from elbo_lab.distributions.means import mean_of

# A unit u is active where Var_x(E_q(u|x)[u]) exceeds this (Burda et al. 2016, section 5.2).
ACTIVE_THRESHOLD = 0.01


def layer_means(key: Array, posterior: Any) -> tuple[Array, ...]:
    """E_q[z_i | x] of every stochastic layer, from the data up.

    Above the first layer it is the mean given one draw of the layers below, as in the public code
    of Burda et al. (2016). Layers that give no mean in closed form have that of 10,000 draws
    (`means.mean_of`).

    Args:
      key: one typed PRNG key, used by hierarchies and by layers without a closed form.
      posterior: q(z|x), batch shape [*batch].

    Returns:
      A tuple of [*batch, L_i]; the leaves of a draw, where draws are trees.
    """
    if not isinstance(posterior, Chain):
        return tuple(jax.tree.leaves(mean_of(key, posterior)))
    # Folded in, so that draws are the key's own, as in runs of before.
    keys = jax.random.split(jax.random.fold_in(key, 1), len(posterior.conditionals) + 1)
    layers = posterior.layers(posterior.sample(key))
    return tuple(mean_of(k, layer) for k, layer in zip(keys, layers, strict=True))


def activity(means: np.ndarray) -> np.ndarray:
    """Var_x(E_q[z_l|x]) of each unit: means [N, L] over a split -> [L]."""
    return np.var(np.asarray(means, np.float64), axis=0)
