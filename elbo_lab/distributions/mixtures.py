"""Mixtures of K components: sum_k w_k p_k(x), with an exact log p(x)."""

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular

from elbo_lab.distributions.pixels import BernoulliVector
from elbo_lab.losses.arrays import to_common_float, to_common_rank

# Rows are taken in blocks whose arrays have about so many numbers, 2 MB in float32: they stay in a
# processor's cache, and the memory does not grow with the number of rows.
BLOCK_SIZE = 2**19
# Each row of a block uses all parameters, which fewer rows than these would read too often.
LEAST_ROWS = 256


class BernoulliComponents(BernoulliVector):
    """Independent Bernoulli variables over the last axis, for few laws and many values.

    The same distribution as `BernoulliVector`. `log_prob` is one matrix product, sum_d x_d l_d,
    minus sum_d log(1 + exp(l_d)), which does not depend on x: values [N, 1, D] under K laws [K, D]
    take no array of N K D numbers.
    """

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], nats, [*any, *batch]."""
        logits, value = to_common_rank(*to_common_float(self.logits, value))
        linear = jnp.einsum("...d,...d->...", value, logits, precision=jax.lax.Precision.HIGHEST)
        normalizer = jnp.sum(jax.nn.softplus(logits), axis=-1)
        return linear - jnp.broadcast_to(normalizer, linear.shape)


class GaussianComponents(dist.MultivariateNormal):
    """Gaussians with any covariances, for few laws and many values.

    The same distribution as `MultivariateNormal`. `log_prob` multiplies x - m_k by the inverse of
    the Cholesky factor, which is computed once for all values: for values [N, 1, D] under K laws
    this is many times as fast as to solve a triangular system for each.
    """

    def log_prob(self, value: Array) -> Array:
        """The log density of values [*any, *batch, D], nats, [*any, *batch]."""
        if len(self.batch_shape) != 1 or value.ndim < 2 or value.shape[-2] != 1:
            return super().log_prob(value)
        number, dim = self.loc.shape
        factors = self.scale_tril  # [K, D, D], or [1, D, D] if all are equal
        identity = jnp.broadcast_to(jnp.eye(dim, dtype=factors.dtype), factors.shape)
        inverse = solve_triangular(factors, identity, lower=True)

        def squared_distances(x: Array) -> Array:
            offsets = x - self.loc[:, None]  # [K, n, D]
            whitened = jnp.matmul(
                offsets, jnp.swapaxes(inverse, -1, -2), precision=jax.lax.Precision.HIGHEST
            )
            return jnp.sum(whitened**2, axis=-1).T

        x = value.reshape(-1, dim)
        blocks = jax.lax.map(squared_distances, in_blocks(x, self.loc.size))  # [T, n, K]
        squares = jnp.swapaxes(blocks, 0, 1).reshape(-1, number)[: len(x)]
        log_scales = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)), axis=-1)
        log_prob = -0.5 * (squares + dim * math.log(2 * math.pi)) - log_scales
        return log_prob.reshape(*value.shape[:-2], number)


def in_blocks(x: Array, row_size: int) -> Array:
    """The rows of x [N, ...] in T blocks of n, [T, n, ...]; T n - N rows of zeros are added.

    Row i is row i // T of block i % T, so that a block's rows are spread over the devices that
    share x.

    Args:
      x: [N, ...].
      row_size: numbers that the computation of a row takes; n of them are about `BLOCK_SIZE`.
    """
    number = len(x)
    blocks = max(1, math.ceil(number / max(LEAST_ROWS, BLOCK_SIZE // row_size)))
    rows = math.ceil(number / blocks)
    zeros = jnp.zeros((blocks * rows - number, *x.shape[1:]), x.dtype)
    filled = jnp.concatenate([x, zeros]).reshape(rows, blocks, *x.shape[1:])
    return jnp.swapaxes(filled, 0, 1)


def mixture(log_weights: Array, components: dist.Distribution) -> dist.MixtureSameFamily:
    """The mixture sum_k w_k p_k(x).

    Args:
      log_weights: [*batch, K], up to a constant; weights below the least normal number count as
        that number.
      components: p_k, batch shape [K] or [*batch, K].

    Returns:
      A distribution with `log_prob` (exact), `sample`, `mean` and `component_log_probs`,
      log w_k + log p_k(x), [*any, *batch, K].
    """
    least = jnp.log(jnp.finfo(log_weights.dtype).tiny)
    logits = jnp.maximum(jax.nn.log_softmax(log_weights), least)  # NumPyro refuses -inf.
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


def responsibilities(law: dist.MixtureSameFamily, x: Array) -> tuple[Array, Array]:
    """p(k|x) and log p(x): Bayes' rule over the components (textbook 13.5).

    Args:
      law: a mixture of K components.
      x: [*any, *batch, D].

    Returns:
      [*any, *batch, K], which sum to one, and [*any, *batch] in nats.
    """
    log_joint = law.component_log_probs(x)
    log_px = jax.nn.logsumexp(log_joint, axis=-1)
    return jnp.exp(log_joint - log_px[..., None]), log_px
