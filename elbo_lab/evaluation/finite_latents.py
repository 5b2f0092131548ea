"""The decomposition of log p(x) for a latent variable of finitely many values, without draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses.arrays import to_common_float


class Decomposition(NamedTuple):
    """The parts of log p(x) = ELBO(q) + KL(q || p(z|x)), each [*batch] in nats."""

    log_px: Array
    elbo: Array  # a lower bound of log_px for every q, with equality at q = p(z|x)
    kl: Array  # at least 0


def decomposition(log_joint: Array, log_q: Array) -> Decomposition:
    """log p(x), ELBO(q) and KL(q || p(z|x)), each by its own sum over the K values of z.

        log p(x) = log sum_z p(x, z)
        ELBO(q)  = sum_z q(z) (log p(x, z) - log q(z))
        KL       = sum_z q(z) (log q(z) - log p(z|x))

    (textbook 13.3 and 13.4). The three are computed apart, so that the equation checks them.

    Args:
      log_joint: log p(x, z), [*batch, K], such as `component_log_probs` of a mixture.
      log_q: log q(z) or log q(z|x), normalized, broadcastable to [*batch, K]; -inf where q is 0.
    """
    log_joint, log_q = to_common_float(log_joint, log_q)
    log_q = jnp.broadcast_to(log_q, log_joint.shape)
    log_px = jax.nn.logsumexp(log_joint, axis=-1)
    log_posterior = log_joint - log_px[..., None]
    q, is_possible = jnp.exp(log_q), log_q > -jnp.inf

    def expected(values: Array) -> Array:
        # Mask the values of probability 0: 0 * inf is NaN.
        return jnp.sum(q * jnp.where(is_possible, values, 0), axis=-1)

    return Decomposition(log_px, expected(log_joint - log_q), expected(log_q - log_posterior))
