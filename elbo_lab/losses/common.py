"""Parts that objectives share: an estimator's surrogate of a bound, and `Aux`."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_broadcasts
from elbo_lab.losses.divergences import kl_divergence
from elbo_lab.losses.estimators import ESTIMATORS, Bound, Estimator, Weigh, log_w_of
from elbo_lab.losses.posteriors import check_fixed_support
from elbo_lab.losses.weights import LogWeights, Problem, densities, in_base_form, sample

KL_MODES = ("mc", "analytic")

# Choices of estimators for kinds of objectives. OVIS is defined for the IWAE bound only, and the
# sum over all values of z for means over draws.
FOR_IWAE = tuple(name for name in ESTIMATORS if name != "enumerate")
ANY_BOUND = tuple(name for name in FOR_IWAE if name != "ovis")
FOR_MEAN = (*ANY_BOUND, "enumerate")
# For log-weights without log q: stl, dreg and the wake estimators change how log q is weighed.
WITHOUT_LOG_Q = (
    *("reparam", "score", "score_loo", "vimco", "enumerate"),
    *("arm", "disarm", "rebar", "gumbel_softmax", "straight_through"),
)
# For terms beside the log-weights that are functions of the draws.
BY_DRAWS = ("reparam",)
# For log-weights other than log w: the wake estimators always weigh by w.
NOT_WAKE = tuple(name for name in ANY_BOUND if not name.startswith("wake"))
WEIGHTED_MEAN = (*NOT_WAKE, "enumerate")
# For bounds that are not defined for K - 1 draws, as score_loo needs.
FIXED_DRAWS = tuple(name for name in ANY_BOUND if name != "score_loo")


class Aux(NamedTuple):
    """Terms that an objective computes beside its loss, in nats."""

    bound: Array  # [*batch], the quantity that is maximized, = -loss (cubo: minimized, = loss)
    kl: Array  # [*batch], KL(q(z|x) || p(z)): closed form, or mean_k log_qz_x - log_pz
    log_w: Array  # [K, *batch] ([M*K, *batch] with outer repeats), log-weights
    log_px_z: Array  # as log_w, log p(x|z)
    log_pz: Array  # as log_w, log p(z)
    log_qz_x: Array  # as log_w, log q(z|x)
    # [*batch], the value that the estimator differentiates for q, held fixed: the f that a baseline
    # predicts. None where q follows no bound (wake_sleep, rws with a sleep phase).
    learning_signal: Array | None = None


def loss_of_bound(
    key: Array,
    problem: Problem,
    bound: Bound,
    estimator: str | Estimator,
    choices: Sequence[str] = ANY_BOUND,
) -> tuple[Array, Aux]:
    """Minus a bound of log w, by an estimator among the choices."""
    loss, draws = estimate(key, problem, bound, log_w_of, estimator, choices)
    return loss, make_aux(-loss, draws, surrogate=loss)


def loss_with_kl(
    key: Array, problem: Problem, beta: Array | float, kl: str, estimator: str | Estimator
) -> tuple[Array, Aux]:
    """-1/K sum_k log p(x|z_k) + beta KL; the KL is estimated from the same draws (kl="mc") or in
    closed form (kl="analytic").
    """
    check_kl_mode(kl)
    if kl == "analytic":
        surrogate, draws, divergence = reconstruction_and_kl(key, problem, kl, estimator)
        loss = surrogate + weight_like(surrogate, "The weight of the KL", beta) * divergence
        return loss, make_aux(-loss, draws, divergence, surrogate)

    def weigh(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
        weight = weight_like(log_px_z[0], "The weight of the KL", beta)
        weight = jnp.broadcast_to(weight, log_px_z.shape)
        return log_px_z + weight * log_pz - weight * log_qz_x  # beta = 1: log w, bit for bit

    loss, draws = estimate(key, problem, bounds.elbo, weigh, estimator, WEIGHTED_MEAN)
    return loss, make_aux(-loss, draws, surrogate=loss)


def check_kl_mode(kl: str) -> None:
    """Raises ValueError unless `kl` is one of KL_MODES."""
    if kl not in KL_MODES:
        raise ValueError(f"kl must be one of {', '.join(KL_MODES)}; got {kl!r}.")


def reconstruction_and_kl(
    key: Array,
    problem: Problem,
    kl: str,
    estimator: str | Estimator,
    choices: Sequence[str] = WITHOUT_LOG_Q,
) -> tuple[Array, LogWeights, Array]:
    """-1/K sum_k log p(x|z_k), [*batch], its draws, and KL(q(z|x) || p(z)), [*batch], nats, for
    objectives that take a function of the KL.

    kl="analytic": the closed form.
    kl="mc": 1/K sum_k log q(z_k|x) - log p(z_k), unbiased. Its gradient is that of the draws as
      they are, and the estimator must be reparam.
    """
    check_kl_mode(kl)
    if kl == "mc":
        surrogate, draws = reconstruction(key, problem, estimator, BY_DRAWS)
        return surrogate, draws, jnp.mean(draws.log_qz_x - draws.log_pz, axis=0)
    divergence = kl_divergence(problem.posterior, problem.prior)
    surrogate, draws = reconstruction(key, problem, estimator, choices)
    return surrogate, draws, checked_kl(divergence, surrogate)


def checked_kl(divergence: Array, loss: Array) -> Array:
    """A closed-form KL in the loss's type, checked because `KL_REGISTRY` has users' functions.

    Raises:
      ValueError: if it is not [*batch], as the loss is.
    """
    if jnp.shape(divergence) != loss.shape:
        raise ValueError(
            f"The closed-form KL must have one value per example, shape {loss.shape}; got "
            f"{jnp.shape(divergence)}. Sum it over latent dimensions."
        )
    return divergence.astype(loss.dtype)


def weight_like(loss: Array, name: str, value: Array | float) -> Array:
    """The caller's weight, a scalar or [*batch], in the loss's type.

    Raises:
      ValueError: if it has another shape.
    """
    check_broadcasts(name, value, loss.shape)
    return jnp.asarray(value, loss.dtype)


def reconstruction(
    key: Array,
    problem: Problem,
    estimator: str | Estimator,
    choices: Sequence[str] = WITHOUT_LOG_Q,
) -> tuple[Array, LogWeights]:
    """-1/K sum_k log p(x|z_k), [*batch], nats, for objectives whose other terms need no draws."""

    def weigh(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
        del log_pz, log_qz_x
        return log_px_z

    return estimate(key, problem, bounds.elbo, weigh, estimator, choices)


def estimate(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    estimator: str | Estimator,
    choices: Sequence[str],
) -> tuple[Array, LogWeights]:
    """The surrogate of minus the bound, [*batch], and its draws.

    Args:
      choices: names in `ESTIMATORS` that are accepted, given as names or as functions. A user's own
        estimator is always accepted.
    """
    name = _name_of(estimator)
    is_users_own = callable(estimator) and name is None
    if not is_users_own and name not in choices:
        here = " here" if name in ESTIMATORS else ""
        raise ValueError(f"estimator must be one of {', '.join(choices)}{here}; got {name!r}.")
    function = estimator if callable(estimator) else ESTIMATORS[name]
    base_problem, forward = in_base_form(problem)
    loss, draws = function(key, base_problem, bound, weigh)
    if jnp.shape(loss) != draws.log_w.shape[1:]:
        raise ValueError(
            f"estimator must return a surrogate of shape {draws.log_w.shape[1:]}, one value per "
            f"example; got {jnp.shape(loss)}."
        )
    draws = draws._replace(z=forward(draws.z))
    if name in ESTIMATORS and name != "reparam":
        first_draw = jax.tree.map(lambda leaf: leaf[0], draws.z)
        message = (
            f'estimator="{name}" needs a posterior whose support does not depend on parameters '
            "that are differentiated; use reparam, which follows a moving support."
        )
        loss = check_fixed_support(problem.posterior, first_draw, loss, message)
    return loss, draws


def _name_of(estimator: str | Estimator) -> str | None:
    """The estimator's name in `ESTIMATORS`; None for a user's own function.

    `functools.partial(score, baseline=b)` has the name of score.
    """
    if not callable(estimator):
        return estimator
    is_partial = isinstance(estimator, functools.partial)
    function = estimator.func if is_partial else estimator
    return next((name for name, known in ESTIMATORS.items() if known is function), None)


def make_aux(
    bound: Array, draws: LogWeights, kl: Array | None = None, surrogate: Array | None = None
) -> Aux:
    """`Aux` of the draws.

    Args:
      bound: [*batch], the quantity that is maximized.
      draws: of the estimator.
      kl: [*batch], in closed form; None: the Monte Carlo estimate from the draws.
      surrogate: [*batch], of the estimator that q follows, whose value is minus the learning
        signal; None: q follows none.
    """
    if kl is None:
        kl = jnp.mean(draws.log_qz_x - draws.log_pz, axis=0)
    signal = None if surrogate is None else -jax.lax.stop_gradient(surrogate)
    return Aux(bound, kl, draws.log_w, draws.log_px_z, draws.log_pz, draws.log_qz_x, signal)


def batch_shape(key: Array, problem: Problem) -> tuple[int, ...]:
    """The problem's batch shape; nothing is computed."""
    draws = jax.eval_shape(lambda key: densities(problem, sample(key, problem)), key)
    return draws.log_w.shape[1:]
