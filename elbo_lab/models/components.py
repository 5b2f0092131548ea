"""Components of a mixture as exponential families: sufficient statistics, their M-step, their law.

A component is a Gaussian with a full, a diagonal or a tied covariance (one that all components
share), or a vector of independent Bernoulli variables.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.distributions.mixtures import (
    BernoulliComponents,
    GaussianComponents,
    in_blocks,
    mixture,
)

# Float32 products whatever the device's default: TF32 would cost digits of the covariances.
_EXACT = jax.lax.Precision.HIGHEST
FULL, DIAGONAL, TIED = COVARIANCES = ("full", "diagonal", "tied")
# The kind of Bernoulli components, which have no covariances.
BERNOULLI = "bernoulli"


class Statistics(NamedTuple):
    """Sufficient statistics of the responsibilities: means and covariances in place of raw moments.

    The difference of second moments and squared means would lose its digits in float32 where means
    are large. Covariances are those of the data, without the variance floor.
    """

    shares: Array  # [K], mean responsibility of each component; they sum to one
    means: Array  # [K, D]
    covariances: Any  # full [K, D, D], diagonal [K, D], tied [D, D]; () for Bernoulli components


def start(key: Array, x: Array, number: int, kind: str, way: str) -> Statistics:
    """Statistics with equal shares and the variances of x, at which EM or gradients start.

    "kmeans++": the means are rows of x, each drawn with a probability proportional to its squared
    distance to the nearest row drawn before (Arthur and Vassilvitskii 2007). "random": the means
    are averages of x with random responsibilities, Dirichlet(1, ..., 1) for each row.

    Args:
      key: one typed PRNG key.
      x: the first rows of the training data, [N, D].
      number: K.
      kind: one of `COVARIANCES`, or `BERNOULLI`.
      way: "kmeans++" or "random".

    Raises:
      ValueError: "kmeans++" with more components than rows.
    """
    x = jnp.asarray(x)  # NumPy's rows cannot be taken by a traced index.
    if way == "random":
        rows = jax.random.dirichlet(key, jnp.ones(number, x.dtype), (len(x),))
        means = jnp.matmul(rows.T, x, precision=_EXACT) / jnp.sum(rows, axis=0)[:, None]
    elif number > len(x):
        raise ValueError(
            f"components must be at most {len(x)}, the rows of the first batch, from which "
            f"start=kmeans++ draws the means; got {number}. start=random takes any number."
        )
    else:
        means = _distant_rows(key, x, number)
    variances = jnp.var(x, axis=0)
    covariances: Any = ()
    if kind == DIAGONAL:
        covariances = jnp.broadcast_to(variances, means.shape)
    elif kind == TIED:
        covariances = jnp.diag(variances)
    elif kind == FULL:
        covariances = jnp.broadcast_to(jnp.diag(variances), (number, x.shape[1], x.shape[1]))
    else:
        means = (means + jnp.mean(x, axis=0)) / 2  # A row of 0 and 1 alone fits no other row.
    return Statistics(jnp.full(number, 1 / number, x.dtype), means, covariances)


def updated(
    old: Statistics, x: Array, responsibilities: Array, decay: Array | float, kind: str
) -> Statistics:
    """The M-step: statistics after a batch, averaged with the old ones.

    With responsibilities r_nk, decay g, a batch of N, and old statistics s_k, m_k, C_k,

        share_k = g s_k + (1 - g) / N sum_n r_nk
        mean_k  = (g s_k m_k + (1 - g) / N sum_n r_nk x_n) / share_k
        cov_k   = (g s_k (C_k + d_k d_k^T)
                   + (1 - g) / N sum_n r_nk (x_n - mean_k)(x_n - mean_k)^T) / share_k

    with d_k = mean_k - m_k: the average of the raw moments (Cappe and Moulines 2009, equation 15),
    as a sum of squares, from which nothing is subtracted. g = 0 is the M-step of EM on the batch.
    A component whose share is zero keeps its mean and covariance.

    Args:
      old: statistics before the batch.
      x: [N, D].
      responsibilities: [N, K].
      decay: g, in [0, 1).
      kind: one of `COVARIANCES`, or `BERNOULLI`.
    """
    keep = jnp.asarray(decay, x.dtype)
    rows = (1 - keep) / len(x) * responsibilities  # [N, K]
    added = jnp.sum(rows, axis=0)
    shares = keep * old.shares + added
    is_empty = (shares < jnp.finfo(shares.dtype).tiny)[:, None]
    divisor = jnp.where(is_empty, 1, shares[:, None])
    # One matrix product, which takes no array of N K D numbers.
    moved = jnp.matmul(rows.T, x, precision=_EXACT) - added[:, None] * old.means
    shift = jnp.where(is_empty, 0, moved / divisor)  # d_k
    means = old.means + shift
    if kind == BERNOULLI:
        return Statistics(shares, means, ())
    old_shares = (keep * old.shares)[:, None]
    if kind == DIAGONAL:
        offsets = x - means[:, None, :]  # [K, N, D]
        squares = jnp.sum(rows.T[..., None] * offsets**2, axis=1)
        covariances = (old_shares * (old.covariances + shift**2) + squares) / divisor
        return Statistics(shares, means, jnp.where(is_empty, old.covariances, covariances))
    shifted = jnp.sqrt(old_shares) * shift
    if kind == TIED:
        squares = jnp.sum(_scatter(x, rows, means), axis=0)
        between = jnp.matmul(shifted.T, shifted, precision=_EXACT)
        return Statistics(shares, means, keep * old.covariances + between + squares)
    squares = _scatter(x, rows, means)
    between = shifted[:, :, None] * shifted[:, None, :]
    scatter = old_shares[..., None] * old.covariances + between + squares
    covariances = jnp.where(is_empty[..., None], old.covariances, scatter / divisor[..., None])
    return Statistics(shares, means, covariances)


def _scatter(x: Array, rows: Array, means: Array) -> Array:
    """sum_n r_nk (x_n - m_k)(x_n - m_k)^T, [K, D, D], one block of rows after another.

    Args:
      x: [N, D].
      rows: r, [N, K].
      means: m, [K, D].
    """

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        x, roots = block
        # Products of equal factors are symmetric without rounding, and have no negative eigenvalue.
        weighted = roots.T[..., None] * (x - means[:, None, :])  # [K, n, D]
        squares = jnp.einsum("knd,kne->kde", weighted, weighted, precision=_EXACT)
        return total + squares, None

    blocks = in_blocks(x, means.size), in_blocks(jnp.sqrt(rows), means.size)
    zeros = jnp.zeros((*means.shape, means.shape[1]), x.dtype)
    return jax.lax.scan(add, zeros, blocks)[0]


def law(
    log_weights: Array, means: Array, covariances: Any, kind: str, floor: float
) -> dist.MixtureSameFamily:
    """The mixture with these parameters.

    The floor is added to the diagonal of each covariance. The probabilities p of Bernoulli
    components are clipped to p (1 - p) >= floor.

    Args:
      log_weights: [*batch, K], up to a constant.
      means: [K, D].
      covariances: as in `Statistics`.
      kind: one of `COVARIANCES`, or `BERNOULLI`.
      floor: the least variance.
    """
    if kind == BERNOULLI:
        least = least_probability(floor)
        p = jnp.clip(means, least, 1 - least)
        return mixture(log_weights, BernoulliComponents(jnp.log(p) - jnp.log1p(-p)))
    if kind == DIAGONAL:
        components = dist.Normal(means, jnp.sqrt(covariances + floor)).to_event(1)
        return mixture(log_weights, components)
    factors = jnp.linalg.cholesky(with_floor(covariances, floor))
    if kind == TIED:
        factors = factors[None]
    return mixture(log_weights, GaussianComponents(means, scale_tril=factors))


def least_probability(floor: float) -> float:
    """The probability p <= 1/2 of a Bernoulli variable with the variance p (1 - p) = floor."""
    # 1/2 - sqrt(1/4 - floor), without its cancellation for a small floor
    return floor / (0.5 + math.sqrt(0.25 - floor))


def with_floor(covariances: Array, floor: float) -> Array:
    """Covariances [..., D, D] with the floor added to their diagonals."""
    return covariances + floor * jnp.eye(covariances.shape[-1], dtype=covariances.dtype)


def _distant_rows(key: Array, x: Array, number: int) -> Array:
    """Rows [number, D] of x, drawn one after another as in the start of k-means++."""
    keys = jax.random.split(key, number)
    first = x[jax.random.randint(keys[0], (), 0, len(x))]

    def squared_distances(row: Array) -> Array:
        return jnp.sum((x - row) ** 2, axis=-1)

    def draw(nearest: Array, draw_key: Array) -> tuple[Array, Array]:
        row = x[jax.random.categorical(draw_key, jnp.log(nearest))]
        return jnp.minimum(nearest, squared_distances(row)), row

    _, rows = jax.lax.scan(draw, squared_distances(first), keys[1:])
    return jnp.concatenate([first[None], rows])
