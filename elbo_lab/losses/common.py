"""What objectives are made of: an estimator's surrogate of a bound, and the `Aux` beside it."""

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


def of_bound(
    key: Array,
    problem: Problem,
    bound: Bound,
    estimator: str | Estimator,
    choices: Sequence[str] = ANY_BOUND,
) -> tuple[Array, Aux]:
    """Minus a bound of log w, by an estimator among the choices."""
    loss, draws = estimate(key, problem, bound, log_w_of, estimator, choices)
    return loss, make_aux(-loss, draws)


def kl_form(
    key: Array, problem: Problem, beta: Array | float, kl: str, estimator: str | Estimator
) -> tuple[Array, Aux]:
    """-1/K sum_k log p(x|z_k) + beta KL, the KL from the same draws or in closed form."""
    if kl not in KL_MODES:
        raise ValueError(f"kl must be one of {', '.join(KL_MODES)}; got {kl!r}.")
    if kl == "analytic":
        divergence = kl_divergence(problem.posterior, problem.prior)
        surrogate, draws = reconstruction(key, problem, estimator)
        divergence = checked_kl(divergence, surrogate)
        loss = surrogate + weight_like(surrogate, "The weight of the KL", beta) * divergence
        return loss, make_aux(-loss, draws, divergence)

    def weigh(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
        weight = weight_like(log_px_z[0], "The weight of the KL", beta)
        weight = jnp.broadcast_to(weight, log_px_z.shape)
        return log_px_z + weight * log_pz - weight * log_qz_x  # beta = 1: log w, bit for bit

    loss, draws = estimate(key, problem, bounds.elbo, weigh, estimator, NOT_WAKE)
    return loss, make_aux(-loss, draws)


def checked_kl(divergence: Array, loss: Array) -> Array:
    """A closed-form KL, which may be the caller's, in the loss's type.

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
    """A weight of the caller's, a scalar or [*batch], in the loss's type.

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
    """The estimator's surrogate; of those in `ESTIMATORS`, by name or as functions, only those
    among the choices.
    """
    name = estimator
    if callable(estimator):
        # functools.partial(score, baseline=b) is score.
        bare = getattr(estimator, "func", estimator)
        name = next((known for known in ESTIMATORS if ESTIMATORS[known] is bare), None)
    if name not in choices and not (name is None and callable(estimator)):
        known = "" if name not in ESTIMATORS else " here"
        raise ValueError(f"estimator must be one of {', '.join(choices)}{known}; got {name!r}.")
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
        one = jax.tree.map(lambda leaf: leaf[0], draws.z)
        message = _MOVING_SUPPORT.format(name=name)
        loss = check_fixed_support(problem.posterior, one, loss, message)
    return loss, draws


_MOVING_SUPPORT = (
    'estimator="{name}" needs a posterior whose support does not depend on parameters that are '
    "differentiated; use reparam, which follows a moving support."
)


def make_aux(bound: Array, draws: LogWeights, kl: Array | None = None) -> Aux:
    """Aux of draws; the KL from them if it is not given."""
    if kl is None:
        kl = jnp.mean(draws.log_qz_x - draws.log_pz, axis=0)
    return Aux(bound, kl, draws.log_w, draws.log_px_z, draws.log_pz, draws.log_qz_x)


def batch_shape(key: Array, problem: Problem) -> tuple[int, ...]:
    """The problem's [*batch], without computing anything."""
    draws = jax.eval_shape(lambda key: densities(problem, sample(key, problem)), key)
    return draws.log_w.shape[1:]
