"""Objectives whose two networks follow different targets.

The generation network's part is evaluated with the draws and q held fixed, the inference network's
with p held fixed, so that each gradient reaches its own network alone. That is a second backward
pass. The *value* of the loss is the generation network's (the inference network's for `cubo`, the
upper bound). No loss has these gradients, so that second derivatives are refused.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_count, typed_key
from elbo_lab.losses.arrays import to_common_float
from elbo_lab.losses.common import (
    ANY_BOUND,
    FIXED_DRAWS,
    NOT_WAKE,
    Aux,
    estimate,
    make_aux,
    of_bound,
)
from elbo_lab.losses.derivatives import evaluate, with_gradient_of
from elbo_lab.losses.estimators import Bound, Estimator, log_w_of
from elbo_lab.losses.posteriors import one_per_example, sample_from
from elbo_lab.losses.score_estimators import wake_surrogate
from elbo_lab.losses.weights import (
    LogWeights,
    Problem,
    densities,
    freeze_model,
    in_base_form,
    sample,
    traced_once,
)

RWS_PHASES = ("wake", "sleep", "both")


def piwae(
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
    """Partially importance-weighted autoencoder (Rainforth et al. 2018, section 4): the generation
    network ascends the IWAE bound of all M K draws, the inference network MIWAE(M, K).

    Args:
      num_outer: M, repeats in the inference network's bound.
      num_samples: K, draws inside each of its logarithms.
      estimator: of the inference network's gradient, a name in `ESTIMATORS` or a function.
      others: as in `elbo`.

    Returns:
      loss [*batch], nats, = minus the IWAE bound of M K draws; Aux with log-weights [M * K,
      *batch]. A lower bound on log p(x), of which the loss's gradient is one part.

    Raises:
      ValueError: as `miwae`.
    """
    check_count("num_outer", num_outer)
    check_count("num_samples", num_samples)
    problem = Problem(posterior, prior, log_likelihood, num_outer * num_samples, vectorized)
    bound = functools.partial(bounds.miwae, num_outer=num_outer)
    return _two_targets(key, problem, bounds.iwae, bound, estimator, FIXED_DRAWS)


def iwae_elbo(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """The lecture notes' pair: the generation network ascends the importance-weighted likelihood
    log 1/K sum_k w_k, the inference network descends KL(q(z|x) || p(z|x)), which is to ascend the
    ELBO (textbook 13.11 to 13.15).

    Args: as `iwae`; `estimator` is of the inference network's gradient.

    Returns:
      loss [*batch], nats, = minus the IWAE bound; Aux. A lower bound on log p(x).

    Raises:
      ValueError: as `elbo`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return _two_targets(key, problem, bounds.iwae, bounds.elbo, estimator, ANY_BOUND)


def cubo(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    power: Array | float = 2.0,
    num_samples: int = 5,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Chi upper bound (Dieng et al. 2017), `bounds.cubo`: q descends it.

    A generation network that descended an upper bound would make its data unlikely, so it ascends
    the IWAE bound of the same draws. Where p has no parameters, as in the paper, that is nothing.

    Args:
      power: n >= 1, may be traced; infinite: the greatest log-weight.
      others: as in `iwae`.

    Returns:
      loss [*batch], nats, = **plus** the bound; Aux, whose `bound` is minimized, as an upper bound
      on log p(x). Population (K -> inf): an upper bound. Finite K: biased downwards, and may lie
      below log p(x). Descending it is sound only where K is large for the spread of the weights: at
      K = 1 it is to descend the ELBO, and where one draw outweighs all others q can run away from
      the posterior.

    Raises:
      ValueError: as `elbo`; a wake estimator.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    bound = functools.partial(bounds.cubo, power=power)
    problem = traced_once(problem)
    minus_bound, draws = estimate(key, freeze_model(problem), bound, log_w_of, estimator, NOT_WAKE)
    by_p = _generation_part(problem, draws, bounds.iwae)
    loss = with_gradient_of(-minus_bound, by_p - minus_bound)
    return loss, make_aux(loss, draws)


def rws(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 5,
    phase: str = "wake",
    inference: Callable[[Array], Any] | None = None,
    generation: Callable[[Any], Any] | None = None,
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Reweighted wake-sleep (Bornschein and Bengio 2015): the generation network ascends the IWAE
    bound, and the inference network

      phase="wake":   sum_k w_k log q(z_k|x), w the normalized weights (their eq. 6);
      phase="sleep":  log q(z|x) of a dream z ~ p(z), x ~ p(x|z) (their eq. 7), one per example;
      phase="both":   the mean of the two.

    phase="wake" is `iwae` with estimator="wake", of which estimator="wake_dreg" is the doubly
    reparameterized form.

    Args:
      phase: of the inference network.
      inference: x [*batch, ...] -> q(z|x); sleep needs it, to see what it dreams.
      generation: z [*batch, ...] -> p(x|z), with `sample`; sleep needs it.
      others: as in `iwae`. Draws need no derivative.

    Returns:
      loss [*batch], nats, = minus the IWAE bound, a lower bound on log p(x); Aux.

    Raises:
      ValueError: unknown phase; no inference or generation for sleep; see `log_weights`.
    """
    if phase not in RWS_PHASES:
        raise ValueError(f"phase must be one of {', '.join(RWS_PHASES)}; got {phase!r}.")
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    if phase == "wake":
        return of_bound(key, problem, bounds.iwae, "wake")
    return _with_sleep(key, problem, bounds.iwae, inference, generation, phase == "both")


def wake_sleep(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 1,
    inference: Callable[[Array], Any] | None = None,
    generation: Callable[[Any], Any] | None = None,
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Wake-sleep (Hinton et al. 1995): awake, the generation network ascends the ELBO; asleep, the
    inference network ascends log q(z|x) of a dream z ~ p(z), x ~ p(x|z), one per example.

    Args: as `rws` with phase="sleep".

    Returns:
      loss [*batch], nats, = minus the ELBO; Aux. The inference network follows no bound.

    Raises:
      ValueError: no inference or generation; see `log_weights`.
    """
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    return _with_sleep(key, problem, bounds.elbo, inference, generation, with_wake=False)


def _two_targets(
    key: Array,
    problem: Problem,
    generation_bound: Bound,
    inference_bound: Bound,
    estimator: str | Estimator,
    choices: tuple[str, ...],
) -> tuple[Array, Aux]:
    problem = traced_once(problem)
    frozen_model = freeze_model(problem)
    by_q, draws = estimate(key, frozen_model, inference_bound, log_w_of, estimator, choices)
    by_p = _generation_part(problem, draws, generation_bound)
    loss = with_gradient_of(by_p, by_p + by_q)
    return loss, make_aux(-loss, draws)


def _generation_part(problem: Problem, draws: LogWeights, bound: Bound) -> Array:
    """-f, differentiated by the parameters of prior and log_likelihood alone."""
    held = jax.lax.stop_gradient(draws)
    return -evaluate(bound, densities(problem, held.z, log_qz_x=held.log_qz_x).log_w)


def _with_sleep(
    key: Array,
    problem: Problem,
    bound: Bound,
    inference: Callable[[Array], Any] | None,
    generation: Callable[[Any], Any] | None,
    with_wake: bool,
) -> tuple[Array, Aux]:
    if inference is None or generation is None:
        raise ValueError(
            "The sleep phase needs inference (x -> q(z|x)) and generation (z -> p(x|z)), to dream "
            "examples and to recognize them."
        )
    draws_key, *dream_keys = jax.random.split(typed_key(key), 3)
    base_problem, forward = in_base_form(problem)
    y = jax.lax.stop_gradient(sample(draws_key, base_problem))
    draws = densities(base_problem, y)
    held = jax.lax.stop_gradient(draws.log_qz_x)
    by_p = -evaluate(bound, log_w_of(draws.log_px_z, draws.log_pz, held))
    by_q = _sleep(dream_keys, problem.prior, inference, generation, by_p)
    if with_wake:
        by_q = (wake_surrogate(draws) + by_q) / 2
    loss = with_gradient_of(by_p, by_p + by_q)
    draws = draws._replace(z=forward(y))
    return loss, make_aux(-loss, draws)


def _sleep(keys, prior: Any, inference, generation, loss: Array) -> Array:
    """-log q(z|x) of a dream per example, nats, of the loss's shape and type."""
    z = jax.lax.stop_gradient(one_per_example(prior, keys[0], loss.shape))
    x = jax.lax.stop_gradient(sample_from(generation(z), keys[1], ()))
    log_qz_x = inference(*to_common_float(x)).log_prob(z)
    if log_qz_x.shape != loss.shape:
        raise ValueError(
            f"inference must give log q(z|x) of shape {loss.shape} for dreams of that batch shape; "
            f"got {log_qz_x.shape}."
        )
    return -log_qz_x.astype(loss.dtype)
