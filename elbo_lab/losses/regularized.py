"""Objectives with a reconstruction term and a regularizer per example: capacity, free bits, the
textbook's lambda. Conventions as in `objectives.py`; regularizers of a whole batch are in
`aggregate.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses.arguments import check_count
from elbo_lab.losses.arrays import to_common_float, to_common_rank
from elbo_lab.losses.common import (
    Aux,
    checked_kl,
    loss_with_kl,
    make_aux,
    reconstruction,
    reconstruction_and_kl,
    weight_like,
)
from elbo_lab.losses.divergences import kl_per_dimension
from elbo_lab.losses.estimators import Estimator
from elbo_lab.losses.weights import LogWeights, Problem


def capacity_vae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    gamma: Array | float = 30.0,
    capacity: Array | float = 0.0,
    num_samples: int = 1,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative capacity-controlled beta-VAE: E_q[log p(x|z)] - gamma |KL(q(z|x) || p(z)) - C|
    (Burgess et al. 2018, eq. 3), the KL in closed form.

    There is no form with a KL from draws: E|KL^ - C| is at least |KL - C|, and at KL = C, where
    training settles, gamma times the mean deviation of the estimate KL^ would be left.

    Args:
      gamma: weight of the constraint, >= 0, may be traced.
      capacity: C, nats, may be traced. The paper raises it during training.
      estimator: of the reconstruction term: reparam, score, score_loo, vimco or enumerate.
      others: as in `elbo`.

    Returns:
      loss [*batch], nats; Aux, whose `bound` is -loss. For gamma >= 1 and KL >= C a lower bound on
      log p(x) + gamma C; unbiased, value and gradient.

    Raises:
      ValueError: no closed form known; as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    surrogate, draws, divergence = reconstruction_and_kl(key, problem, "analytic", estimator)
    excess = divergence - weight_like(surrogate, "capacity", capacity)
    loss = surrogate + weight_like(surrogate, "gamma", gamma) * jnp.abs(excess)
    return loss, make_aux(-loss, draws, divergence, surrogate)


def free_bits(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    min_kl: Array | float = 0.1,
    group_size: int = 1,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative ELBO with a floor under the KL: E_q[log p(x|z)] - sum_g max(lambda, KL_g(x)), per
    example (after Kingma et al. 2016, appendix C.8, who take the batch's mean of the KL:
    `free_bits_batch`).

    Args:
      min_kl: lambda, nats per group, may be traced.
      group_size: neighbouring latent dimensions in a group: 1 for a floor per dimension. Divides L.
      kl: "analytic", with posterior and prior that are products over their dimensions; or "mc", the
        mean of log q(z_k|x) - log p(z_k) over the draws, for any posterior and prior: one group of
        all dimensions, group_size = L.
      estimator: of the reconstruction term: reparam, score, score_loo, vimco or enumerate; with
        kl="mc" reparam only, since the draws also enter the KL.
      others: as in `elbo`.

    Returns:
      loss [*batch], nats; Aux, whose `kl` has no floor. Population: at most the ELBO, so a lower
      bound on log p(x). kl="analytic": unbiased, value and gradient. kl="mc": E[max(lambda, KL^)]
      >= max(lambda, KL) for the estimate KL^ of K draws, so the expected -loss is a lower bound
      too, below the closed form's by at most 0.5 standard deviations of KL^ (at KL = lambda; by
      nearly nothing far from there); the gradient is unbiased for that expectation.

    Raises:
      ValueError: no KL per dimension is known; a group size that does not divide L, or with kl="mc"
        is not L; as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    surrogate, draws, groups = reconstruction_and_groups(key, problem, kl, estimator, group_size)
    total = checked_kl(jnp.sum(groups, axis=-1), surrogate)
    loss = surrogate + jnp.sum(floored(groups, min_kl), axis=-1)
    return loss, make_aux(-loss, draws, total, surrogate)


def lambda_vae(
    key: Array,
    posterior: Any,
    prior: Any,
    generation_mean: Callable[[Any], Array],
    *,
    x: Array,
    regularization: Array | float = 1.0,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """The textbook's objective for p(x|z) = N(mu_G(z), lambda I): -1/2 |x - mu_G(z)|^2 - lambda
    KL(q(z|x) || p(z)) (13.28), negated.

    It is lambda (ELBO + D/2 log 2 pi lambda): the maximizer is that of the ELBO with this variance.

    Args:
      generation_mean: one draw z [*batch, L] -> mu_G [*batch, D].
      x: [*batch, D].
      regularization: lambda > 0, the likelihood's variance and the KL's weight; may be traced.
      others: as in `beta_vae`.

    Returns:
      loss [*batch], nats times lambda; Aux, whose log_px_z is -1/2 |x - mu_G|^2. A bound on
      log p(x) only up to the constants above. Unbiased, value and gradient.

    Raises:
      ValueError: a mean of another shape than x; as `beta_vae`.
    """

    def half_squares(z: Any) -> Array:
        mean = generation_mean(z)
        event = mean.shape[mean.ndim - x.ndim :]
        # The estimator enumerate has z, and so means, of batch dimensions of size one.
        if event[-1:] != x.shape[-1:] or jnp.broadcast_shapes(event, x.shape) != x.shape:
            raise ValueError(
                f"generation_mean must return the shape of x, {x.shape}, for one draw; got "
                f"{mean.shape}."
            )
        target, mean = to_common_rank(*to_common_float(x, mean))
        return -0.5 * jnp.sum((target - mean) ** 2, axis=-1)

    problem = Problem(posterior, prior, half_squares, num_samples, vectorized)
    return loss_with_kl(key, problem, regularization, kl, estimator)


def reconstruction_and_groups(
    key: Array, problem: Problem, kl: str, estimator: str | Estimator, group_size: int
) -> tuple[Array, LogWeights, Array]:
    """-1/K sum_k log p(x|z_k), [*batch], its draws, and the KL of each group of neighbouring
    dimensions, [*batch, L / group_size], nats; see `free_bits`.
    """
    check_count("group_size", group_size)
    if kl == "analytic":
        groups = grouped_kl(problem.posterior, problem.prior, group_size)
        surrogate, draws = reconstruction(key, problem, estimator)
        return surrogate, draws, groups
    surrogate, draws, total = reconstruction_and_kl(key, problem, kl, estimator)
    size = sum(leaf.size for leaf in jax.tree.leaves(draws.z)) // draws.log_w.size
    if group_size != size:
        raise ValueError(
            f'kl="mc" estimates one KL of all latent dimensions: group_size must be {size}; got '
            f"{group_size}."
        )
    return surrogate, draws, total[..., None]


def grouped_kl(posterior: Any, prior: Any, group_size: int) -> Array:
    """Closed-form KL per group of neighbouring dimensions, [*batch, L / group_size], nats."""
    (divergence,) = to_common_float(kl_per_dimension(posterior, prior))
    size = divergence.shape[-1]
    if size % group_size:
        raise ValueError(
            f"group_size must divide the number of latent dimensions, {size}; got {group_size}."
        )
    return jnp.sum(divergence.reshape(*divergence.shape[:-1], -1, group_size), axis=-1)


def floored(groups: Array, min_kl: Array | float) -> Array:
    """max(lambda, KL_g) of each group, in the type of `groups`.

    Raises:
      ValueError: lambda is neither one number nor one for each group.
    """
    shape = jnp.shape(min_kl)
    if shape not in ((), groups.shape[-1:], groups.shape):
        raise ValueError(
            f"min_kl must be one number, or one for each group, shape {groups.shape[-1:]}; got "
            f"shape {shape}."
        )
    return jnp.maximum(groups, jnp.broadcast_to(jnp.asarray(min_kl, groups.dtype), groups.shape))
