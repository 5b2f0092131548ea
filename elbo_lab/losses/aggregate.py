"""Objectives that need the whole batch: their regularizers depend on the aggregate posterior q(z),
the mean of q(z|x) over x, which is estimated from the batch.

They return `BatchAux`, and the posterior's batch shape must be [B] with B >= 2. Under a `jax.vmap`
over examples there is no batch, and they raise ValueError. The regularizer is added to every
example's loss, so that the mean over the batch contains it once. Examples are paired with each
other: a batch sharded over a mesh's Explicit axes must go through `jax.sharding.auto_axes`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses.arguments import check_count, typed_key
from elbo_lab.losses.arrays import to_common_float
from elbo_lab.losses.common import (
    BY_DRAWS,
    checked_kl,
    make_aux,
    reconstruction,
    reconstruction_and_kl,
    weight_like,
)
from elbo_lab.losses.derivatives import inspect_tangents
from elbo_lab.losses.divergences import factors, moments
from elbo_lab.losses.estimators import Estimator
from elbo_lab.losses.posteriors import is_reparameterizable, one_per_example
from elbo_lab.losses.regularized import floored, reconstruction_and_groups
from elbo_lab.losses.weights import LogWeights, Problem


class BatchAux(NamedTuple):
    """`Aux` of an objective that needs the whole batch, in nats."""

    bound: Array  # [B], the quantity that is maximized, = -loss
    kl: Array  # [B], KL(q(z|x) || p(z)): closed form, or mean_k log_qz_x - log_pz
    log_w: Array  # [K, B], log-weights
    log_px_z: Array  # [K, B]
    log_pz: Array  # [K, B]
    log_qz_x: Array  # [K, B]
    learning_signal: Array  # [B], as in `Aux`: here mean_k log p(x|z_k)
    penalty: Array  # [], mean over the batch of the loss minus the negative ELBO


class DipWeights(NamedTuple):
    """Weights of DIP-VAE's penalties."""

    off: Array | float  # of squared covariances
    diag: Array | float  # of squared deviations of the variances from 1


def free_bits_batch(
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
) -> tuple[Array, BatchAux]:
    """Negative ELBO with free bits: E_q[log p(x|z)] - sum_g max(lambda, mean_x KL_g(x)), the mean
    over the batch (Kingma et al. 2016, appendix C.8).

    Args:
      min_kl: lambda, nats per group, may be traced.
      group_size: neighbouring latent dimensions in a group. Divides L.
      kl: as in `free_bits`. The paper's inverse autoregressive flows need "mc", here with one group
        of all dimensions, whose KL is the mean over the batch and the draws.
      others: as in `free_bits`. This is the published form.

    Returns:
      loss [B], nats; BatchAux. Population: the mean over the batch is at most the ELBO's. With
      kl="mc" its expectation is below that by at most 0.5 standard deviations of the estimate of
      the mean KL, which fall as 1/sqrt(K B); the gradient is unbiased for it.

    Raises:
      ValueError: no batch; as `free_bits`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    surrogate, draws, groups = reconstruction_and_groups(key, problem, kl, estimator, group_size)
    _check_batch("free_bits_batch", surrogate)
    total = checked_kl(jnp.sum(groups, axis=-1), surrogate)
    cost = jnp.sum(floored(jnp.mean(groups, axis=0), min_kl)).astype(surrogate.dtype)
    loss = surrogate + cost
    return loss, _aux(loss, draws, total, surrogate, cost - jnp.mean(total))


def beta_tcvae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    dataset_size: int,
    beta: Array | float = 6.0,
    num_samples: int = 1,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, BatchAux]:
    """Negative beta-TCVAE objective: E_q[log p(x|z)] - I(x; z) - beta TC(z) - sum_l KL(q(z_l) ||
    p(z_l)) (Chen et al. 2018, eq. 4), with q(z) by minibatch-weighted sampling: log q(z_i) = log
    1/(N B) sum_j q(z_i|x_j) (their eq. 5), and alike for each dimension.

    Args:
      dataset_size: N, training examples.
      beta: weight of the total correlation, may be traced. 1 is exactly the Monte Carlo ELBO.
      estimator: reparam only, since the draws also enter log q(z).
      others: as in `elbo`; the posterior must be a product over its dimensions.

    Returns:
      loss [B], nats; BatchAux. Minibatch-weighted sampling underestimates q(z) and q(z_l), by
      factors of up to N, and so overestimates the total correlation, by up to L log N. Much of that
      is a constant, which has no gradient.

    Raises:
      ValueError: no batch; a posterior that is not a product over its dimensions; as `elbo`.
    """
    check_count("dataset_size", dataset_size)
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    by_dimension = factors(posterior)
    surrogate, draws = reconstruction(key, problem, estimator, BY_DRAWS)
    _check_batch("beta_tcvae", surrogate)
    size = surrogate.shape[0]
    # log q(z_il | x_j): [K, B, B, L], for draw i and example j.
    (pairs,) = to_common_float(by_dimension.log_prob(draws.z[:, :, None, :]))
    log_count = jnp.log(float(dataset_size * size))
    log_qz = jax.nn.logsumexp(jnp.sum(pairs, axis=-1), axis=2) - log_count  # [K, B]
    log_qz_l = jnp.sum(jax.nn.logsumexp(pairs, axis=2) - log_count, axis=-1)
    total_correlation = jnp.mean(log_qz - log_qz_l, axis=0)
    # I + TC + sum_l KL_l telescopes to log q(z|x) - log p(z): the ELBO's own KL.
    kl = jnp.mean(draws.log_qz_x - draws.log_pz, axis=0)
    penalty = (weight_like(surrogate, "beta", beta) - 1) * total_correlation
    loss = surrogate + kl + penalty
    return loss, _aux(loss, draws, kl, surrogate, jnp.mean(penalty))


def dip_vae_i(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    lambda_off: Array | float = 10.0,
    lambda_diag: Array | float = 100.0,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, BatchAux]:
    """Negative DIP-VAE-I objective: ELBO - lambda_off sum_{i != j} C_ij^2 - lambda_diag sum_i (C_ii
    - 1)^2, C = Cov_x[E_q[z|x]] over the batch (Kumar et al. 2018, eq. 6).

    Args:
      lambda_off, lambda_diag: weights, >= 0, may be traced.
      kl: "analytic", or "mc" for a prior without a closed form, the mean of log q(z_k|x) - log
        p(z_k) over the draws, unbiased.
      estimator: of the reconstruction term: reparam, score, score_loo, vimco or enumerate; with
        kl="mc" reparam only, since the draws also enter the KL.
      others: as in `elbo`; the posterior must give its mean in closed form.

    Returns:
      loss [B], nats; BatchAux. At most the ELBO. On average the penalty of a batch differs from the
      data set's by O(1/B), to either side.

    Raises:
      ValueError: no batch; no mean or closed form known; as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    mean, _ = moments(posterior)

    def covariance() -> Array:
        return _covariance(mean)

    weights = DipWeights(lambda_off, lambda_diag)
    return _dip(key, problem, kl, estimator, "dip_vae_i", covariance, weights)


def dip_vae_ii(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    lambda_off: Array | float = 10.0,
    lambda_diag: Array | float = 10.0,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, BatchAux]:
    """Negative DIP-VAE-II objective: as `dip_vae_i`, with the covariance of the aggregate posterior
    itself, C = E_x[diag Var_q[z|x]] + Cov_x[E_q[z|x]] (Kumar et al. 2018, eq. 7).

    Args, Returns, Raises: as `dip_vae_i`; the posterior must be a product over its dimensions and
      give its variance too.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    factors(posterior)  # Raises for dependent dimensions: their variances are not the covariance.
    mean, variance = moments(posterior)

    def covariance() -> Array:
        return _covariance(mean) + jnp.diag(jnp.mean(variance, axis=0))

    weights = DipWeights(lambda_off, lambda_diag)
    return _dip(key, problem, kl, estimator, "dip_vae_ii", covariance, weights)


def info_vae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    kl_weight: Array | float = 0.0,
    mmd_weight: Array | float = 100.0,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, BatchAux]:
    """Negative InfoVAE objective: E_q[log p(x|z)] - (1 - alpha) KL(q(z|x) || p(z)) - (alpha +
    lambda - 1) MMD^2(q(z), p(z)) (Zhao et al. 2019, eq. 6, with the maximum mean discrepancy).

    MMD^2 compares one draw of q(z|x) per example with one draw of the prior per example, without
    bias, by the kernel C / (C + |z - z'|^2), C = 2 L (Tolstikhin et al. 2018, section 4).

    Args:
      kl_weight: 1 - alpha, may be traced; the paper's MMD-VAE has 0.
      mmd_weight: alpha + lambda - 1, nats, may be traced.
      kl: "analytic", or "mc", the mean of log q(z_k|x) - log p(z_k) over the draws, unbiased.
      estimator: reparam only, since the draws enter the discrepancy.
      others: as in `elbo`; z is one array; the prior must have `sample`.

    Returns:
      loss [B], nats; BatchAux. Not a bound on log p(x) in general.

    Raises:
      ValueError: no batch; no closed-form KL known; as `elbo`. Where the loss is differentiated by
        parameters of the prior: its draws have no derivative by them (mixtures).
    """
    draws_key, prior_key = jax.random.split(typed_key(key))
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    surrogate, draws, divergence = reconstruction_and_kl(
        draws_key, problem, kl, estimator, BY_DRAWS
    )
    _check_batch("info_vae", surrogate)
    kl_weight = weight_like(surrogate, "kl_weight", kl_weight)
    mmd_weight = weight_like(surrogate, "mmd_weight", mmd_weight)
    z_q = draws.z[0].reshape(surrogate.shape[0], -1)  # [B, L]
    z_p = one_per_example(prior, prior_key, surrogate.shape)
    pair = to_common_float(z_q, z_p.reshape(z_q.shape))
    discrepancy = squared_mmd(*pair).astype(surrogate.dtype)
    loss = surrogate + kl_weight * divergence + mmd_weight * discrepancy
    penalty = mmd_weight * discrepancy + jnp.mean((kl_weight - 1) * divergence)
    loss = _checked_prior(prior, z_p, loss)
    return loss, _aux(loss, draws, divergence, surrogate, penalty)


def squared_mmd(z_q: Array, z_p: Array) -> Array:
    """Unbiased estimate of MMD^2 between the laws of two samples, [A, L] and [B, L] (Gretton et al.
    2012, eq. 3), by the inverse multiquadratic kernel C / (C + d^2), C = 2 L. May be negative.
    """

    def kernel(a: Array, b: Array) -> Array:
        squares = jnp.sum((a[:, None] - b[None]) ** 2, axis=-1)
        return 2 * a.shape[-1] / (2 * a.shape[-1] + squares)

    def within(a: Array) -> Array:
        number = a.shape[0]
        return (jnp.sum(kernel(a, a)) - number) / (number * (number - 1))  # The diagonal is ones.

    return within(z_q) + within(z_p) - 2 * jnp.mean(kernel(z_q, z_p))


def _checked_prior(prior: Any, z_p: Array, loss: Array) -> Array:
    """The loss, which raises ValueError when it is differentiated by parameters of a prior whose
    draws, [B, L], have no derivative by them.
    """
    if is_reparameterizable(prior, z_p):
        return loss

    def check(is_moving: list[bool]) -> None:
        if any(is_moving):
            raise ValueError(
                "info_vae needs a prior whose draws can be differentiated by its parameters; those "
                f"of {type(prior).__name__} cannot."
            )

    _, parameters = jax.closure_convert(prior.log_prob, z_p)
    return inspect_tangents(loss, parameters, check)


def _dip(
    key: Array,
    problem: Problem,
    kl: str,
    estimator: str | Estimator,
    name: str,
    covariance: Callable[[], Array],
    weights: DipWeights,
) -> tuple[Array, BatchAux]:
    """DIP-VAE with a given covariance of z, called after the batch has been checked."""
    surrogate, draws, divergence = reconstruction_and_kl(key, problem, kl, estimator)
    _check_batch(name, surrogate)
    matrix = covariance().astype(surrogate.dtype)  # [L, L]
    diagonal = jnp.diagonal(matrix)
    off = jnp.sum(matrix**2) - jnp.sum(diagonal**2)
    lambda_off = jnp.asarray(weights.off, surrogate.dtype)
    lambda_diag = jnp.asarray(weights.diag, surrogate.dtype)
    penalty = lambda_off * off + lambda_diag * jnp.sum((diagonal - 1) ** 2)
    loss = surrogate + divergence + penalty
    return loss, _aux(loss, draws, divergence, surrogate, penalty)


def _covariance(values: Array) -> Array:
    """Covariance matrix [L, L] of values [B, L], over the batch."""
    centred = values - jnp.mean(values, axis=0, keepdims=True)
    return centred.T @ centred / values.shape[0]


def _check_batch(name: str, loss: Array) -> None:
    if loss.ndim != 1 or loss.shape[0] < 2:
        raise ValueError(
            f"{name} needs a batch, a posterior of batch shape (B,) with B >= 2; got {loss.shape}. "
            "Call it without jax.vmap over examples."
        )


def _aux(loss: Array, draws: LogWeights, kl: Array, surrogate: Array, penalty: Array) -> BatchAux:
    return BatchAux(*make_aux(-loss, draws, kl, surrogate), penalty)
