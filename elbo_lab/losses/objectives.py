"""Objectives that are one function of log-weights: pure functions of a key, distributions and a
log-likelihood, for one example or a batch. No reduction over the batch happens inside.

    loss, aux = iwae(key, posterior, prior, log_likelihood, num_samples=5)

`loss` [*batch] is to be minimized, and its value is minus the bound in nats (plus the bound for the
upper bound `cubo`); `aux` carries the bound and its terms. Keys come first, are typed, and are
consumed once. `catalogue.py` lists all objectives, these and those of the neighbouring files.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.divergences import kl_divergence
from elbo_lab.losses.estimators import ESTIMATORS, Bound, Estimator, Weigh, log_w_of
from elbo_lab.losses.weights import LogWeights, Problem, check_count, densities, sample

KL_MODES = ("mc", "analytic")

# Estimators by what they ask for. OVIS is the IWAE bound's alone.
ANY_BOUND = tuple(name for name in ESTIMATORS if name != "ovis")
# No log q enters the log-weights that are estimated: nothing there to leave out or to weigh anew.
WITHOUT_LOG_Q = ("reparam", "score", "score_loo", "vimco")
# What the two phases of wake-sleep weigh is w itself.
NOT_WAKE = tuple(name for name in ANY_BOUND if not name.startswith("wake"))
# Bounds that K - 1 draws cannot have.
FIXED_DRAWS = tuple(name for name in ANY_BOUND if name != "score_loo")


class Aux(NamedTuple):
    """What an objective computed beside its loss; nats."""

    bound: Array  # [*batch], the quantity that is maximized, = -loss (cubo: minimized, = loss)
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
      kl: "mc" or "analytic". Neither has the lower variance in general: near convergence the
        Monte Carlo form's errors cancel (its variance vanishes where q is the exact posterior).
      estimator: a name in `ESTIMATORS`, or a function of the same type. kl="analytic" leaves no
        log q to weigh, and takes reparam, score, score_loo and vimco.
      vectorized: whether the functions take all draws at once; see `log_weights`.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: the bound is at most log p(x). Finite K:
      unbiased, value and gradient (but for the wake estimators, which follow no bound).

    Raises:
      ValueError: unknown kl or estimator; no closed form known; see `log_weights`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    if kl == "mc":
        return of_bound(key, problem, bounds.elbo, estimator)
    return kl_form(key, problem, 1.0, kl, estimator)


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
      beta: weight of the KL, >= 0, may be traced. 1 gives the ELBO.
      others: as in `elbo`; kl="mc" estimates the KL from the same draws.

    Returns:
      loss [*batch], nats, = -bound; Aux. Population: for beta >= 1 at most the ELBO, so a lower
      bound on log p(x); for beta < 1 it may exceed log p(x). Finite K: unbiased, value and
      gradient.

    Raises:
      ValueError: as `elbo`; a wake estimator, which would leave beta out.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return kl_form(key, problem, beta, kl, estimator)


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
      estimator but stl and the wake estimators.

    Raises:
      ValueError: as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return of_bound(key, problem, bounds.iwae, estimator, tuple(ESTIMATORS))


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
    check_count("num_samples", num_samples)  # Before it is multiplied: 1 * True is an integer.
    bound = functools.partial(bounds.miwae, num_outer=num_outer)
    problem = Problem(posterior, prior, log_likelihood, num_outer * num_samples, vectorized)
    return of_bound(key, problem, bound, estimator, FIXED_DRAWS)


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
    return of_bound(key, problem, functools.partial(bounds.ciwae, beta=beta), estimator)


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
    -inf (a Python float) is VR-max.

    Returns:
      loss [*batch], nats, = -bound; Aux. The loss is maximized or minimized alike for either sign
      of alpha, as in the paper. Population (K -> inf): a lower bound on log p(x) for alpha > 0, an
      upper one for alpha < 0. Finite K: biased for that (see `bounds.renyi`); gradients are
      unbiased for the gradient of its expectation.

    Raises:
      ValueError: as `elbo`; estimator dreg with alpha = -inf.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    bound = functools.partial(bounds.renyi, alpha=alpha)
    return of_bound(key, problem, bound, estimator)


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
    return of_bound(key, problem, functools.partial(bounds.jackknife, order=order), estimator)


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
    return of_bound(key, problem, bound, estimator)


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
    """Minus a user's own function of log-weights, by any estimator.

    Args:
      bound: function of log-weights [K, *batch], nats -> [*batch], to be maximized. dreg needs
        continuous first derivatives; score_loo calls it on K - 1 draws.
      others: as in `elbo`.

    Returns:
      loss [*batch] = -bound; Aux.

    Raises:
      ValueError: as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return of_bound(key, problem, bound, estimator, tuple(ESTIMATORS))


def of_bound(
    key: Array,
    problem: Problem,
    bound: Bound,
    estimator: str | Estimator,
    able: Sequence[str] = ANY_BOUND,
) -> tuple[Array, Aux]:
    """Minus a bound of log w, by an estimator among those that are able to."""
    loss, draws = estimate(key, problem, bound, log_w_of, estimator, able)
    return loss, make_aux(-loss, draws)


def kl_form(
    key: Array, problem: Problem, beta: Array | float, kl: str, estimator: str | Estimator
) -> tuple[Array, Aux]:
    """-1/K sum_k log p(x|z_k) + beta KL, the KL from the same draws or in closed form."""
    if kl not in KL_MODES:
        raise ValueError(f"kl must be one of {', '.join(KL_MODES)}; got {kl!r}.")
    if kl == "analytic":
        divergence = kl_divergence(problem.posterior, problem.prior)  # [*batch]
        surrogate, draws = reconstruction(key, problem, estimator)
        if jnp.shape(divergence) != surrogate.shape:
            raise ValueError(
                f"The closed-form KL must have one value per example, shape {surrogate.shape}; got "
                f"{jnp.shape(divergence)}. Sum it over latent dimensions."
            )
        loss = surrogate + beta * divergence
        return loss, make_aux(-loss, draws, divergence)

    def weigh(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
        return log_px_z + beta * log_pz - beta * log_qz_x  # beta = 1: log w, bit for bit

    loss, draws = estimate(key, problem, bounds.elbo, weigh, estimator, NOT_WAKE)
    return loss, make_aux(-loss, draws)


def reconstruction(
    key: Array,
    problem: Problem,
    estimator: str | Estimator,
    able: Sequence[str] = WITHOUT_LOG_Q,
) -> tuple[Array, LogWeights]:
    """-1/K sum_k log p(x|z_k), [*batch], nats, for objectives whose other terms need no draws."""

    def weigh(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
        del log_pz, log_qz_x
        return log_px_z

    return estimate(key, problem, bounds.elbo, weigh, estimator, able)


def estimate(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    estimator: str | Estimator,
    able: Sequence[str],
) -> tuple[Array, LogWeights]:
    """The estimator's surrogate; of those in `ESTIMATORS`, by name or as functions, only those that
    are able to.
    """
    name = estimator
    if callable(estimator):
        bare = getattr(estimator, "func", estimator)  # Of functools.partial(score, baseline=b).
        name = next((known for known in ESTIMATORS if ESTIMATORS[known] is bare), None)
        if name is None:
            return estimator(key, problem, bound, weigh)
    if name not in able:
        known = "" if name not in ESTIMATORS else " here"
        raise ValueError(f"estimator must be one of {', '.join(able)}{known}; got {name!r}.")
    function = estimator if callable(estimator) else ESTIMATORS[name]
    return function(key, problem, bound, weigh)


def make_aux(bound: Array, draws: LogWeights, kl: Array | None = None) -> Aux:
    """Aux of draws; the KL from them if it is not given."""
    if kl is None:
        kl = jnp.mean(draws.log_qz_x - draws.log_pz, axis=0)
    return Aux(bound, kl, draws.log_w, draws.log_px_z, draws.log_pz, draws.log_qz_x)


def batch_shape(key: Array, problem: Problem) -> tuple[int, ...]:
    """The problem's [*batch], without computing anything."""
    draws = jax.eval_shape(lambda key: densities(problem, sample(key, problem)), key)
    return draws.log_w.shape[1:]
