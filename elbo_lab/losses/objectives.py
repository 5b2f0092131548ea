"""Objectives that are one function of log-weights: pure functions of a key, distributions and a
log-likelihood, for one example or a batch. No reduction over the batch happens inside.

    loss, aux = iwae(key, posterior, prior, log_likelihood, num_samples=5)

`loss` [*batch] is to be minimized, and its value is minus the bound in nats (plus the bound for the
upper bound `cubo`); `aux` carries the bound and its terms. Keys come first, are typed, and are
consumed once. `catalogue.py` lists all objectives, these and those of the neighbouring files.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_count
from elbo_lab.losses.common import (
    FIXED_DRAWS,
    FOR_IWAE,
    FOR_MEAN,
    Aux,
    loss_of_bound,
    loss_with_kl,
)
from elbo_lab.losses.estimators import Bound, Estimator
from elbo_lab.losses.weights import Problem


def elbo(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 1,
    kl: str = "mc",
    estimator: str | Estimator = "reparam",
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
      kl: "mc" (the default here; `beta_vae`'s is "analytic") or "analytic". Neither has the lower
        variance in general: near convergence the Monte Carlo form's errors cancel (its variance
        vanishes where q is the exact posterior).
      estimator: a name in `ESTIMATORS`, or a function of the same type. With kl="analytic" the
        log-weights have no log q, and the choices are reparam, score, score_loo, vimco,
        enumerate and those of binary draws.
      vectorized: True if the functions take all draws at once; see `log_weights`.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: the bound is at most log p(x). Finite K:
      unbiased, value and gradient (except for the wake estimators, which follow no bound, and the
      gradient of gumbel_softmax and straight_through).

    Raises:
      ValueError: unknown kl or estimator; no closed form known; see `log_weights`. Where the loss
        is differentiated: draws without a derivative by q's parameters (path estimators), a
        support that moves with them (all but reparam), second derivatives (all but reparam).
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    if kl == "mc":
        return loss_of_bound(key, problem, bounds.elbo, estimator, FOR_MEAN)
    return loss_with_kl(key, problem, 1.0, kl, estimator)


def beta_vae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    beta: Array | float = 4.0,
    num_samples: int = 1,
    kl: str = "analytic",
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative beta-VAE objective: E_q[log p(x|z)] - beta KL(q(z|x) || p(z)) (Higgins et al. 2017,
    eq. 4).

    Args:
      beta: weight of the KL, >= 0, one number or [*batch], may be traced. 1 gives the ELBO; it is
        equal to `elbo` draw for draw only if kl is the same.
      others: as in `elbo`, except that the default of kl is "analytic".

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: for beta >= 1 at most the ELBO, so a lower
      bound on log p(x); for beta < 1 it may exceed log p(x). Finite K: unbiased, value and
      gradient.

    Raises:
      ValueError: as `elbo`; a wake estimator, which would ignore beta.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return loss_with_kl(key, problem, beta, kl, estimator)


def iwae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative importance-weighted bound: log 1/K sum_k w_k (Burda et al. 2016, eq. 8).

    Args:
      num_samples: K, draws inside the logarithm.
      others: as in `elbo`.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: a lower bound on log p(x), tighter as K
      grows. Finite K: the value is unbiased for that bound, and so is the gradient of every
      estimator but stl (for K > 1), the wake estimators, gumbel_softmax and straight_through.

    Raises:
      ValueError: as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return loss_of_bound(key, problem, bounds.iwae, estimator, FOR_IWAE)


def miwae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_outer: int = 8,
    num_samples: int = 8,
    estimator: str | Estimator = "reparam",
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
      ValueError: as `elbo`; M < 1; estimator score_loo, since M K - 1 draws form no groups.
    """
    check_count("num_outer", num_outer)
    check_count("num_samples", num_samples)  # Checked before the product: 1 * True is an integer.
    bound = functools.partial(bounds.miwae, num_outer=num_outer)
    problem = Problem(posterior, prior, log_likelihood, num_outer * num_samples, vectorized)
    return loss_of_bound(key, problem, bound, estimator, FIXED_DRAWS)


def ciwae(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    beta: Array | float = 0.5,
    num_samples: int = 64,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative convex combination of ELBO and IWAE bound (Rainforth et al. 2018, eq. 12):
    `bounds.ciwae` with the ELBO's share beta in [0, 1], which may be traced.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: a lower bound on log p(x). Finite K: unbiased,
      value and gradient.

    Raises:
      ValueError: as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return loss_of_bound(key, problem, functools.partial(bounds.ciwae, beta=beta), estimator)


def renyi(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    alpha: Array | float = 0.5,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative variational Renyi bound of order alpha (Li and Turner 2016): `bounds.renyi`. alpha =
    -inf is VR-max; with alpha in [0, 1) it is VR-IWAE (Daudel et al. 2023).

    Returns:
      loss [*batch], nats, = -bound; Aux. The loss is maximized or minimized alike for either sign
      of alpha, as in the paper. Population (K -> inf): a lower bound on log p(x) for alpha > 0, an
      upper one for alpha < 0. Finite K: biased for that (see `bounds.renyi`); gradients are
      unbiased for the gradient of its expectation.

    Raises:
      ValueError: as `elbo`; estimator dreg with alpha = -inf or inf.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    bound = functools.partial(bounds.renyi, alpha=alpha)
    return loss_of_bound(key, problem, bound, estimator)


def jackknife(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    order: int = 1,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative jackknife estimate of log p(x) (Nowozin 2018): `bounds.jackknife` of order m < K.

    Returns:
      loss [*batch], nats, = -estimate; Aux. Population: no bound; its bias is O(K^-(m+1)), of
      either sign. Gradients are unbiased for the gradient of its expectation.

    Raises:
      ValueError: as `elbo`; K <= m (K - 1 <= m for score_loo).
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return loss_of_bound(key, problem, functools.partial(bounds.jackknife, order=order), estimator)


def tvo(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    partition: int | Sequence[float] = 5,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative thermodynamic variational objective (Masrani et al. 2019): `bounds.tvo`.

    The gradient is that of the self-normalized estimate itself, by any estimator here; the paper's
    covariance estimator leaves out the dependence of the sampling on q.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population (K -> inf): a lower bound on log p(x). Finite
      K: biased by O(1/K); gradients are unbiased for the gradient of its expectation.

    Raises:
      ValueError: as `elbo`; a partition that does not rise from 0 to 1.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    bound = functools.partial(bounds.tvo, partition=partition)
    return loss_of_bound(key, problem, bound, estimator)


def from_bound(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    bound: Bound,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Minus a user's own function of log-weights, by any estimator but ovis, which is for the IWAE
    bound only, and enumerate, which is for means over draws only.

    Args:
      bound: function of log-weights [K, *batch], nats -> [*batch], to be maximized. dreg needs
        continuous first derivatives: a bound whose derivative jumps returns its value through
        `bounds.once_differentiable`, so that dreg is refused. score_loo calls it on K - 1 draws.
      others: as in `elbo`.

    Returns:
      loss [*batch] = -bound; Aux. Value and gradient are unbiased for the expected bound of K
      draws, except for stl (unless the bound is linear in log_w), the wake estimators,
      gumbel_softmax and straight_through.

    Raises:
      ValueError: as `elbo`; a bound that does not map [K, *batch] to [*batch].
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return loss_of_bound(key, problem, bound, estimator, FOR_IWAE)
