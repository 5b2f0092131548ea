"""q(z|x): Gaussians whose covariance is diagonal, full, or of low rank plus a diagonal.

diagonal  N(m, diag s^2)
full      N(m, L L^T), L lower triangular with the diagonal s > 0 (textbook 13.6 to 13.10, with a
          full Sigma_I)
lowrank   N(m, F F^T + diag s^2), F [L, R]; for R = 1 as in Rezende et al. 2014, section 4.3, who
          have the inverse covariance of this form

m and s are outputs of the inference network for all of them; those of L below its diagonal and F
are further ones. The KL to a Gaussian prior is in closed form for all of them (textbook 13.23).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from elbo_lab.losses.laws import diagonal_matrix
from elbo_lab.models.networks import Head, gaussian


class Kind(NamedTuple):
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


POSTERIORS: dict[str, Kind] = {
    "diagonal": Kind(_no_heads, gaussian),
    "full": Kind(_below_diagonal, _full),
    "lowrank": Kind(_factor, _lowrank),
}
