"""Exact sums over all states of binary latent variables, z_i in {0, 1}^L_i, layer by layer.

A layer of L units has 2^L states, so that these sums are for few units: `MOST_UNITS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.distributions import Chain, Distribution
from elbo_lab.distributions.pixels import binary_states
from elbo_lab.models.base import NOTHING_GIVEN, Given, Model, Params

# States whose p(x|z) is computed at once.
STATES_PER_CHUNK = 64


def log_lowest_layer(prior: Distribution, sizes: Sequence[int]) -> Array:
    """log p(z_1) of every state of the lowest layer.

    log p(z_i) = log sum_{z_{i+1}} p(z_{i+1}) p(z_i | z_{i+1}), from the top layer downwards.

    Args:
      prior: p(z) of one layer, or a downwards `Chain`; batch shape ().
      sizes: L_1, ..., L_n.

    Returns:
      [2^L_1], nats, in the order of `binary_states`.
    """
    if not isinstance(prior, Chain):
        return prior.log_prob(binary_states(sizes[0]))
    above = binary_states(sizes[-1])
    log_p = prior.first.log_prob(above)
    for conditional, size in zip(prior.conditionals, reversed(sizes[:-1]), strict=True):
        below = binary_states(size)
        log_joint = log_p[:, None] + conditional(above[:, None]).log_prob(below[None])
        log_p, above = jax.nn.logsumexp(log_joint, axis=0), below
    return log_p


def log_px(
    prior: Distribution,
    likelihood: Callable[[Array], Distribution],
    sizes: Sequence[int],
    x: Array,
) -> Array:
    """log p(x) = log sum_{z_1} p(z_1) p(x | z_1), in chunks of states.

    Args:
      prior: as in `log_lowest_layer`.
      likelihood: z_1 [*any, L_1] -> p(x|z_1), batch shape [*any].
      sizes: L_1, ..., L_n.
      x: [*batch, D].

    Returns:
      [*batch], nats.
    """
    number = 2 ** sizes[0]
    per_chunk = min(number, STATES_PER_CHUNK)
    # The batch's dimensions are ones here: a network sees each state once, not once per example.
    shape = (number // per_chunk, per_chunk, *(1,) * (x.ndim - 1))
    z = binary_states(sizes[0]).reshape(*shape, sizes[0])
    log_pz = log_lowest_layer(prior, sizes).reshape(shape)

    def log_sum(chunk: tuple[Array, Array]) -> Array:
        z, log_pz = chunk
        return jax.nn.logsumexp(log_pz + likelihood(z).log_prob(x[None]), axis=0)

    return jax.nn.logsumexp(jax.lax.map(log_sum, (z, log_pz)), axis=0)


def posterior(
    model: Model, params: Params, sizes: Sequence[int], x: Array, given: Given = NOTHING_GIVEN
) -> tuple[Any, Array]:
    """Every state of all layers together, and its exact posterior log p(z|x), all held at once.

    Args:
      model: with binary latents.
      params: of the model.
      sizes: L_1, ..., L_n, at most `MOST_UNITS` together.
      x: [*batch, D].
      given: the model's conditions.

    Returns:
      z, as a draw of the prior with sample shape [S, 1, ..., 1], S = 2^(L_1 + ... + L_n), and
      log p(z|x) [S, *batch], nats.

    Raises:
      ValueError: more than `MOST_UNITS` units.
    """
    units = binary_states(sum(sizes))
    units = units.reshape(len(units), *(1,) * (x.ndim - 1), units.shape[-1])
    layers = tuple(jnp.split(units, np.cumsum(sizes)[:-1], axis=-1))
    z = layers if len(sizes) > 1 else layers[0]
    log_px_z = model.likelihood(params, z, given).log_prob(x[None])
    log_joint = model.prior(params, given).log_prob(z) + log_px_z
    return z, jax.nn.log_softmax(log_joint, axis=0)
