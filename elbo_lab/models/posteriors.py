"""q(z|x): Gaussians whose covariance is diagonal, full, or of low rank plus a diagonal, and inverse
autoregressive flows.

diagonal  N(m, diag s^2), or `least_divergence` of m and s
full      N(m, L L^T), L lower triangular with the diagonal s > 0 (textbook 13.6 to 13.10, with a
          full Sigma_I)
lowrank   N(m, F F^T + diag s^2), F [L, R]; for R = 1 as in Rezende et al. 2014, section 4.3, who
          have the inverse covariance of this form
iaf       z = T_n(... T_1(m + s eps)), T_i the gated autoregressive steps of Kingma et al. 2016

m and s are outputs of the inference network for all of them; those of L below its diagonal, F and
the context of the flow's steps are further ones. The KL to a Gaussian prior is in closed form for
the Gaussians (textbook 13.23).
"""

import math
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
# Below the square of the least mean, whose derivative at 0 would be infinite.
_TINY = 1e-12


def least_divergence(min_kl: float) -> Callable[[Array, Array], dist.Distribution]:
    """A Gaussian whose KL to N(0, I) is at least delta in each dimension, by its form.

    Of a network's outputs m and s > 0:

        sigma = sigma_l + (sigma_u - sigma_l) s / (1 + s)
        mu = sqrt(r(sigma) + m^2),    r(sigma) = 2 delta + 1 + log sigma^2 - sigma^2

    with sigma_l < 1 < sigma_u the roots of r, so that r is not negative between them, and

        KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2 = delta + m^2 / 2.

    The independent form of delta-VAE (Razavi et al. 2019), whose mean is r + max(0, m). Here the
    root keeps their condition mu^2 >= r for every delta, and m^2 has a derivative on both sides of
    0. With --scale=log_std s / (1 + s) is the paper's sigmoid.

    A dimension costs delta nats for every x, whether it says something of x or not: the floor is
    one of KL(q(z|x) || p(z)), and not of the mutual information.

    Args:
      min_kl: delta > 0, nats.

    Returns:
      A function (m [*batch, L], s [*batch, L]) -> the Gaussian, batch shape [*batch].
    """
    least, most = deviations(min_kl)

    def distribution(mean: Array, scale: Array) -> dist.Distribution:
        sigma = least + (most - least) * (1 - 1 / (1 + scale))  # finite for s = inf too
        least_square = 2 * min_kl + 1 + 2 * jnp.log(sigma) - jnp.square(sigma)
        square = jnp.maximum(least_square, 0) + jnp.square(mean)
        return gaussian(jnp.sqrt(jnp.maximum(square, _TINY)), sigma)

    return distribution


def deviations(min_kl: float) -> tuple[float, float]:
    """sigma_l < 1 < sigma_u, the standard deviations with KL(N(0, sigma^2) || N(0, 1)) = min_kl.

    By bisection of e^y - 1 - y = 2 min_kl for y = log sigma^2. The left side is convex with its
    minimum 0 at y = 0, and at least 2 min_kl at both ends that are taken here.
    """

    def root(outer: float) -> float:
        inner = 0.0
        for _ in range(100):
            middle = (outer + inner) / 2
            if math.expm1(middle) - middle < 2 * min_kl:
                inner = middle
            else:
                outer = middle
        return math.exp(inner / 2)

    return root(-1 - 2 * min_kl), root(2 * math.sqrt(min_kl))


def make(options: Any, latent_dim: int) -> Posterior:
    """The q(z|x) that a model family's settings name, of one stochastic layer.

    Args:
      options: reads posterior, posterior_rank, posterior_depth, posterior_width, posterior_min_kl,
        prior, activation and latent_dims.
      latent_dim: L, of the layer.

    Raises:
      ValueError: a flow in one of several stochastic layers; a least KL of another q(z|x) than the
        diagonal one, to another prior than N(0, I), or of several stochastic layers.
    """
    _check_min_kl(options)
    if options.posterior == IAF:
        return _iaf(options, latent_dim)
    kind = GAUSSIANS[options.posterior]
    law = kind.distribution
    if options.posterior_min_kl:
        law = least_divergence(options.posterior_min_kl)

    def distribution(params: Params, *outputs: Array) -> dist.Distribution:
        return law(*outputs)

    return Posterior(kind.heads(latent_dim, options.posterior_rank), lambda key: {}, distribution)


def _check_min_kl(options: Any) -> None:
    shown = ",".join(map(str, options.latent_dims))
    for name, value, is_valid in (
        ("posterior", options.posterior, options.posterior == "diagonal"),
        ("prior", options.prior, options.prior == "standard"),
        ("latent_dims", shown, len(options.latent_dims) == 1),
    ):
        if options.posterior_min_kl and not is_valid:
            raise ValueError(
                f"posterior_min_kl={options.posterior_min_kl:g} bounds the KL of one layer of "
                f"independent Gaussians to the standard prior; got {name}={value}."
            )


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
