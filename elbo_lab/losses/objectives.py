"""Objectives: pure functions of a key, distributions and a log-likelihood, for one example or a
batch. No reduction over the batch happens inside.

    loss, aux = iwae(key, posterior, prior, log_likelihood, num_samples=5)

`loss` [*batch] is to be minimized, and its value is minus the bound in nats; `aux` carries the
bound and its terms. Keys come first, are typed, and are consumed once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.divergences import kl_divergence
from elbo_lab.losses.estimators import (
    ESTIMATORS,
    Bound,
    LogWeights,
    Problem,
    Weigh,
    check_count,
)

KL_MODES = ("mc", "analytic")


class Aux(NamedTuple):
    """What an objective computed beside its loss; nats."""

    bound: Array  # [*batch], the quantity that is maximized, = -loss
    kl: Array  # [*batch], KL(q(z|x) || p(z)): closed form, or mean_k log_qz_x - log_pz
    log_w: Array  # [K, *batch] ([M*K, *batch] with outer repeats), log-weights
    log_px_z: Array  # as log_w, log p(x|z)
    log_pz: Array  # as log_w, log p(z)
    log_qz_x: Array  # as log_w, log q(z|x)


def elbo(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 1,
    kl: str = "mc",
    estimator: str = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative evidence lower bound (textbook 13.20 by Monte Carlo, 13.21 and 13.27 with the KL in
    closed form; Kingma and Welling 2014).

    kl="mc":        1/K sum_k [log p(x|z_k) + log p(z_k) - log q(z_k|x)]
    kl="analytic":  1/K sum_k log p(x|z_k) - KL(q(z|x) || p(z))

    Args:
      key: one typed PRNG key, consumed.
      posterior: q(z|x), batch shape [*batch]; `sample(key, sample_shape)` and `log_prob(z)`.
      prior: p(z), batch shape broadcastable to [*batch].
      log_likelihood: function of one draw z [*batch, ...] -> log p(x|z) [*batch], nats.
      num_samples: K (the textbook's M), draws per example.
      kl: "mc" or "analytic". Neither has the lower variance in general: near convergence the
        Monte Carlo form's errors cancel (its variance vanishes where q is the exact posterior).
      estimator: a name in `ESTIMATORS`.
      vectorized: whether the functions take all draws at once; see `log_weights`.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: the bound is at most log p(x). Finite K:
      unbiased, value and gradient.

    Raises:
      ValueError: unknown kl or estimator; no closed form known; see `log_weights`.
    """
    return beta_vae(
        key,
        posterior,
        prior,
        log_likelihood,
        beta=1.0,
        num_samples=num_samples,
        kl=kl,
        estimator=estimator,
        vectorized=vectorized,
    )


def beta_vae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    beta: Array | float = 4.0,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative beta-VAE objective: E_q[log p(x|z)] - beta KL(q(z|x) || p(z)) (Higgins et al. 2017,
    eq. 4; the textbook's 13.28 is this for a Gaussian likelihood, up to a constant and a factor).

    Args:
      beta: weight of the KL, >= 0, may be traced. 1 gives the ELBO.
      others: as in `elbo`; kl="mc" estimates the KL from the same draws.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: for beta >= 1 at most the ELBO, so a lower
      bound on log p(x); for beta < 1 it may exceed log p(x). Finite K: unbiased, value and
      gradient.

    Raises:
      ValueError: as `elbo`.
    """
    if kl not in KL_MODES:
        raise ValueError(f"kl must be one of {', '.join(KL_MODES)}; got {kl!r}.")
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    if kl == "analytic":
        divergence = kl_divergence(posterior, prior)  # [*batch]
        surrogate, draws = _estimate(
            key, problem, estimator, bounds.elbo, lambda draws: draws.log_px_z
        )
        if jnp.shape(divergence) != surrogate.shape:
            raise ValueError(
                f"The closed-form KL must have one value per example, shape {surrogate.shape}; got "
                f"{jnp.shape(divergence)}. Sum it over latent dimensions."
            )
        loss = surrogate + beta * divergence
        return loss, _aux(loss, draws, divergence)

    def weigh(draws: LogWeights) -> Array:
        return draws.log_px_z + beta * (draws.log_pz - draws.log_qz_x)

    loss, draws = _estimate(key, problem, estimator, bounds.elbo, weigh)
    return loss, _aux(loss, draws)


def iwae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 5,
    estimator: str = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative importance-weighted bound: log 1/K sum_k w_k (Burda et al. 2016, eq. 8).

    Args:
      num_samples: K, draws inside the logarithm.
      others: as in `elbo`.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: a lower bound on log p(x), tighter as K
      grows. Finite K: the value is unbiased for that bound, and so is the gradient.

    Raises:
      ValueError: as `elbo`.
    """
    return miwae(
        key,
        posterior,
        prior,
        log_likelihood,
        num_outer=1,
        num_samples=num_samples,
        estimator=estimator,
        vectorized=vectorized,
    )


def miwae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_outer: int = 8,
    num_samples: int = 8,
    estimator: str = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative mean of M importance-weighted bounds (Rainforth et al. 2018, eq. 10).

    Args:
      num_outer: M, independent repeats of the bound.
      num_samples: K, draws inside each logarithm.
      others: as in `elbo`.

    Returns:
      loss [*batch], nats, = -bound; Aux with log-weights [M * K, *batch]. Population: the IWAE-K
      bound. Finite M: unbiased, value and gradient; the signal-to-noise ratio of every gradient
      grows as sqrt(M).

    Raises:
      ValueError: as `elbo`; M < 1.
    """
    check_count("num_outer", num_outer)
    check_count("num_samples", num_samples)  # Before it is multiplied: 1 * True is an integer.
    bound = functools.partial(bounds.miwae, num_outer=num_outer)
    problem = Problem(posterior, prior, log_likelihood, num_outer * num_samples, vectorized)
    loss, draws = _estimate(key, problem, estimator, bound, lambda draws: draws.log_w)
    return loss, _aux(loss, draws)


OBJECTIVES: dict[str, Callable[..., tuple[Array, Aux]]] = {
    "elbo": elbo,
    "beta_vae": beta_vae,
    "iwae": iwae,
    "miwae": miwae,
}


def _estimate(
    key: Array, problem: Problem, estimator: str, bound: Bound, weigh: Weigh
) -> tuple[Array, LogWeights]:
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {estimator!r}.")
    return ESTIMATORS[estimator](key, problem, bound, weigh)


def _aux(loss: Array, draws: LogWeights, kl: Array | None = None) -> Aux:
    if kl is None:
        kl = jnp.mean(draws.log_qz_x - draws.log_pz, axis=0)
    return Aux(-loss, kl, draws.log_w, draws.log_px_z, draws.log_pz, draws.log_qz_x)
