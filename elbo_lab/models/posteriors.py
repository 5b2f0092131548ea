"""q(z|x): Gaussians whose covariance is diagonal, full, or of low rank plus a diagonal, and inverse
autoregressive flows.

diagonal  N(m, diag s^2)
full      N(m, L L^T), L lower triangular with the diagonal s > 0 (textbook 13.6 to 13.10, with a
          full Sigma_I)
lowrank   N(m, F F^T + diag s^2), F [L, R]; for R = 1 as in Rezende et al. 2014, section 4.3, who
          have the inverse covariance of this form
iaf       z = T_n(... T_1(m + s eps)), T_i the gated autoregressive steps of Kingma et al. 2016

m and s are outputs of the inference network for all of them; those of L below its diagonal, F and
the context of the flow's steps are further ones. The KL to a Gaussian prior is in closed form for
the Gaussians (textbook 13.23).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from elbo_lab.distributions import Flow
from elbo_lab.losses.laws import diagonal_matrix
from elbo_lab.models import flows
from elbo_lab.models.base import Params
from elbo_lab.models.networks import Head, gaussian


class Posterior(NamedTuple):
    """q(z|x) of one stochastic layer as functions of a network's outputs."""

    heads: tuple[Head, ...]
    """The outputs besides mean and standard deviation."""

    init: Callable[[Array], Params]
    """key -> parameters of q(z|x) beside the network's; {} for the Gaussians."""

    distribution: Callable[..., Any]
    """(parameters, mean [*batch, L], standard deviation or diagonal [*batch, L], the heads'
    outputs) -> q(z|x)."""


class Gaussian(NamedTuple):
    """A family of Gaussians, as functions of a network's outputs."""

    # (L, R) -> the outputs besides mean and standard deviation
    heads: Callable[[int, int], tuple[Head, ...]]
    # (mean [*batch, L], standard deviation or diagonal [*batch, L], the heads' outputs) -> q(z|x)
    distribution: Callable[..., Any]


def _no_heads(size: int, rank: int) -> tuple[Head, ...]:
    return ()


def _below_diagonal(size: int, rank: int) -> tuple[Head, ...]:
    # Zero weights: q starts as the diagonal one. A single dimension has nothing below its diagonal.
    number = size * (size - 1) // 2
    return (Head("below", zero_weights=True, size=number),) if number else ()


def _full(mean: Array, diagonal: Array, *below: Array) -> dist.Distribution:
    tril = diagonal_matrix(diagonal)
    if below:
        rows, columns = np.tril_indices(mean.shape[-1], -1)
        tril = tril.at[..., rows, columns].set(below[0])
    return dist.MultivariateNormal(mean, scale_tril=tril)


def _factor(size: int, rank: int) -> tuple[Head, ...]:
    # Random weights: at F = 0 the derivative by F is zero.
    return (Head("factor", size=size * rank),)


def _lowrank(mean: Array, scale: Array, factor: Array) -> dist.Distribution:
    factor = factor.reshape(*mean.shape, factor.shape[-1] // mean.shape[-1])
    return dist.LowRankMultivariateNormal(mean, factor, jnp.square(scale))


GAUSSIANS: dict[str, Gaussian] = {
    "diagonal": Gaussian(_no_heads, gaussian),
    "full": Gaussian(_below_diagonal, _full),
    "lowrank": Gaussian(_factor, _lowrank),
}
IAF = "iaf"
POSTERIORS = (*GAUSSIANS, IAF)


def make(options: Any, latent_dim: int) -> Posterior:
    """The q(z|x) that a model family's settings name, of one stochastic layer.

    Args:
      options: reads posterior, posterior_rank, posterior_depth, posterior_width, activation and
        latent_dims.
      latent_dim: L, of the layer.

    Raises:
      ValueError: a flow in one of several stochastic layers.
    """
    if options.posterior == IAF:
        return _iaf(options, latent_dim)
    kind = GAUSSIANS[options.posterior]

    def distribution(params: Params, *outputs: Array) -> dist.Distribution:
        return kind.distribution(*outputs)

    return Posterior(kind.heads(latent_dim, options.posterior_rank), lambda key: {}, distribution)


def _iaf(options: Any, latent_dim: int) -> Posterior:
    if len(options.latent_dims) > 1:
        shown = ",".join(map(str, options.latent_dims))
        raise ValueError(
            "posterior=iaf is of one stochastic layer, since estimators would need the inverse of "
            f"every layer; got latent_dims={shown}."
        )
    depth, width = options.posterior_depth, options.posterior_width
    step = flows.iaf(latent_dim, width, options.activation)

    def init(key: Array) -> Params:
        return {"flow": flows.init(step, depth, key)}

    def distribution(params: Params, mean: Array, scale: Array, context: Array) -> Flow:
        contexts = jnp.split(context, depth, axis=-1)
        return Flow(gaussian(mean, scale), flows.bijections(step, params["flow"], contexts))

    return Posterior((Head("context", size=depth * width[0]),), init, distribution)
