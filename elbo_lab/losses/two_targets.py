"""Objectives with different targets for the two networks.

The generation network's loss is evaluated with the draws and q held fixed, the inference network's
with p held fixed, so that each gradient reaches its own network only. That takes a second backward
pass. The *value* of the objective is the generation network's loss (the inference network's for
`cubo`, the upper bound). It is not the function that has these gradients, so second derivatives are
refused.
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
    loss_of_bound,
    make_aux,
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
      *batch]. A lower bound on log p(x); its gradient is the generation network's.

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
    log 1/K sum_k w_k, the inference network descends KL(q(z|x) || p(z|x)), i.e. ascends the ELBO
    (textbook 13.11 to 13.15).

    Args: as `iwae`; `estimator` is that of the inference network's gradient.

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
    the IWAE bound of the same draws. If p has no parameters, as in the paper, q alone is trained.

    Args:
      power: n >= 1, may be traced; infinite: the greatest log-weight.
      others: as in `iwae`.

    Returns:
      loss [*batch], nats, = **plus** the bound; Aux, whose `bound` is minimized, as an upper bound
      on log p(x). Population (K -> inf): an upper bound. Finite K: biased downwards, and may lie
      below log p(x). Descending it is sound only if K is large for the spread of the weights: at
      K = 1 it descends the ELBO, and if one draw outweighs all others q can diverge from the
      posterior.

    Raises:
      ValueError: as `elbo`; a wake estimator.
    """
    problem = traced_once(Problem(posterior, prior, log_likelihood, num_samples, vectorized))
    bound = functools.partial(bounds.cubo, power=power)
    minus_bound, draws = estimate(key, freeze_model(problem), bound, log_w_of, estimator, NOT_WAKE)
    generation_loss = _generation_loss(problem, draws, bounds.iwae)
    loss = with_gradient_of(-minus_bound, generation_loss - minus_bound)
    return loss, make_aux(loss, draws, surrogate=minus_bound)


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
      phase: "wake", "sleep" or "both", the inference network's target.
      inference: x [*batch, ...] -> q(z|x); needed for sleep.
      generation: z [*batch, ...] -> p(x|z), with `sample`; needed for sleep.
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
        return loss_of_bound(key, problem, bounds.iwae, "wake")
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
    inference_loss, draws = estimate(
        key, frozen_model, inference_bound, log_w_of, estimator, choices
    )
    generation_loss = _generation_loss(problem, draws, generation_bound)
    loss = with_gradient_of(generation_loss, generation_loss + inference_loss)
    return loss, make_aux(-loss, draws, surrogate=inference_loss)


def _generation_loss(problem: Problem, draws: LogWeights, bound: Bound) -> Array:
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
    """The generation network ascends the bound, the inference network log q(z|x) of a dream per
    example; with the wake phase, the mean of both phases.
    """
    if inference is None or generation is None:
        raise ValueError(
            "The sleep phase needs inference (x -> q(z|x)) and generation (z -> p(x|z)), to sample "
            "examples from the model and to infer their z."
        )
    draws_key, z_key, x_key = jax.random.split(typed_key(key), 3)
    base_problem, forward = in_base_form(problem)
    y = jax.lax.stop_gradient(sample(draws_key, base_problem))
    draws = densities(base_problem, y)
    held = jax.lax.stop_gradient(draws.log_qz_x)
    generation_loss = -evaluate(bound, log_w_of(draws.log_px_z, draws.log_pz, held))
    batch = generation_loss.shape
    # A dream per example.
    z = jax.lax.stop_gradient(one_per_example(problem.prior, z_key, batch))
    x = jax.lax.stop_gradient(sample_from(generation(z), x_key, ()))
    (x,) = to_common_float(x)
    log_q_dream = inference(x).log_prob(z)
    if log_q_dream.shape != batch:
        raise ValueError(
            f"inference must give log q(z|x) of shape {batch} for dreams of that batch shape; got "
            f"{log_q_dream.shape}."
        )
    inference_loss = -log_q_dream.astype(generation_loss.dtype)
    if with_wake:
        inference_loss = (wake_surrogate(draws) + inference_loss) / 2
    loss = with_gradient_of(generation_loss, generation_loss + inference_loss)
    draws = draws._replace(z=forward(y))
    return loss, make_aux(-loss, draws)
