"""SUMO: log p(x) without bias, by Russian roulette over IWAE bounds (Luo et al. 2020).

Its price is its variance. For many draws the increments L_{k+1} - L_k are uncorrelated, with the
mean square Var[w / p(x)] / (k (k + 1)). Each adds that times 1 / P(T >= k) - 1 to the variance:
about Var[w / p(x)] / k up to the knee at 80 terms, and a ninth more with every term beyond it. The
variance of at most 81 draws is about three times Var[w / p(x)]; without a limit on the draws it is
**infinite**, and values thousands of nats away occur. No other law of T has both a finite variance
and a finite mean, since sum_k 1/k is infinite. Maximizing the estimate is stable where minimizing
log p(x) is not (their section 3.4).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_count, typed_key
from elbo_lab.losses.common import FIXED_DRAWS, Aux, batch_shape, loss_of_bound
from elbo_lab.losses.debiased import (
    WeightSum,
    add_sums,
    iwae_increment,
    roulette_limit,
    running_sums,
)
from elbo_lab.losses.estimators import Estimator
from elbo_lab.losses.log_means import LARGE, as_column, over_batch, to_finite
from elbo_lab.losses.weights import Problem, log_weights


def draw_terms(key: Array, shape: tuple[int, ...] = ()) -> Array:
    """T, the number of terms of the roulette, with P(T >= k) = `bounds.roulette_survival`(k): an
    integer of at least 1, as float32.
    """
    uniform = 1 - jax.random.uniform(key, shape)  # in (0, 1]
    knee = float(bounds.ROULETTE_KNEE)
    harmonic = jnp.floor(1 / uniform)
    # Beyond the knee: 0.9^(T - knee) / knee >= u.
    beyond = knee + jnp.floor(jnp.log(jnp.minimum(uniform * knee, 1)) / jnp.log(0.9))
    return jnp.where(uniform * knee > 1, harmonic, beyond)


def sumo(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    num_samples: int = 32,
    estimator: str | Estimator = "reparam",
    vectorized: bool = False,
) -> tuple[Array, Aux]:
    """Negative SUMO of at most K draws: `bounds.sumo` with T drawn for each example.

    A compiled program has fixed shapes, so all K draws are made whatever T is, and the roulette
    stops at K - 1 terms: the estimate is unbiased for the IWAE bound of K draws, not for log p(x).
    `sumo_log_px` has no such limit, and no gradient.

    Args:
      num_samples: K, the greatest number of draws.
      others: as in `iwae`.

    Returns:
      loss [*batch], nats, = -estimate; Aux. Population: the IWAE-K bound, a lower bound on log
      p(x). Value and gradient are unbiased for it, with a variance that grows as log K up to
      K = 81, and as 1.1^K beyond.

    Raises:
      ValueError: as `elbo`; estimator score_loo.
    """
    draws_key, terms_key = jax.random.split(typed_key(key))
    problem = Problem(posterior, prior, log_likelihood, num_samples, vectorized)
    terms = draw_terms(terms_key, batch_shape(jax.random.key(0), problem))

    def bound(log_w: Array) -> Array:
        return bounds.sumo(log_w, terms)

    return loss_of_bound(draws_key, problem, bound, estimator, FIXED_DRAWS)


def sumo_log_px(
    key: Array,
    posterior: Any,
    prior: Any,
    log_likelihood: Callable[[Any], Array],
    *,
    chunk: int = 16,
    vectorized: bool = False,
) -> Array:
    """Unbiased estimate of log p(x), by SUMO with as many draws as the roulette asks for.

    Draws come in chunks until every example has its terms: 6 on average for one example, up to
    hundreds for a batch. Evaluation only: the loop has no reverse-mode derivative.

    Args:
      chunk: draws made together.
      others: as in `iwae`.

    Returns:
      [*batch], nats. Unbiased for log p(x) where E|log w| is finite. The variance is infinite (see
      the module's docstring): means of many estimates converge slowly, and their standard errors
      are too small. Where the first draws have zero weight it may be infinite, as `bounds.sumo`.

    Raises:
      ValueError: see `log_weights`.
    """
    check_count("chunk", chunk)
    draws_key, terms_key = jax.random.split(typed_key(key))
    problem = Problem(posterior, prior, log_likelihood, chunk, vectorized)
    terms = draw_terms(terms_key, batch_shape(jax.random.key(0), problem))

    def draw(index: Array | int) -> Array:
        return log_weights(jax.random.fold_in(draws_key, index), *problem).log_w

    def needs_draws(carry: tuple[Array, Sums]) -> Array:
        index, _ = carry
        num_draws = index * chunk
        return jnp.any(num_draws.astype(terms.dtype) < terms + 1)

    def add(carry: tuple[Array, Sums]) -> tuple[Array, Sums]:
        index, sums = carry
        return index + 1, _add_chunk(sums, draw(index), index * chunk, terms)

    # The first chunk is added before the loop, so that the carry has the log-weights' type and, in
    # `jax.shard_map`, varies over the same devices.
    first = draw(0)
    terms = over_batch("terms", terms, first)
    sums = _add_chunk(_no_draws(first[0]), first, 0, terms)
    _, sums = jax.lax.while_loop(needs_draws, add, (1, sums))
    return sums.value + roulette_limit(sums.used, sums.first_two)


class Sums(NamedTuple):
    """State of `sumo_log_px` after some draws; all arrays are [*batch]."""

    value: Array  # the finite terms of the estimate
    weights: WeightSum  # the sum of all weights
    used: Array  # the greatest of the first T + 1 log-weights
    first_two: Array  # the greatest of the first two


def _no_draws(like: Array) -> Sums:
    """The state before any draws; the sum of weights is negligible beside any weight."""
    zero = jnp.zeros_like(like)
    no_weight = WeightSum(top=zero - 2 * LARGE, total=zero + 1)
    return Sums(value=zero, weights=no_weight, used=zero - jnp.inf, first_two=zero - jnp.inf)


def _add_chunk(sums: Sums, log_w: Array, num_draws: Array | int, terms: Array) -> Sums:
    """The state after C more draws, whose log-weights are [C, *batch]."""
    count = (num_draws + 1 + jnp.arange(log_w.shape[0])).astype(log_w.dtype)
    count = as_column(count, log_w.ndim)
    finite = to_finite(log_w)
    # Sums of the weights up to and including each draw, and before it, [C, *batch].
    start = jax.tree.map(lambda leaf: leaf[None], sums.weights)
    up_to = add_sums(start, running_sums(finite))
    before = jax.tree.map(lambda s, leaf: jnp.concatenate([s, leaf[:-1]]), start, up_to)
    # Draw k + 1 adds L_{k+1} - L_k. The second draw adds L_2, since P(terms >= 1) = 1.
    term = jnp.maximum(count - 1, 1)
    increment = iwae_increment(finite, before, term)
    second = up_to.top + jnp.log(up_to.total) - jnp.log(count)
    is_taken = count - 1 <= terms[None]
    survival = bounds.roulette_survival(jnp.where(is_taken, term, 1))
    added = jnp.where(count == 2, second, increment / survival)
    added = jnp.where(is_taken & (count >= 2), added, 0)

    def greatest(mask: Array) -> Array:
        return jnp.max(jnp.where(mask, log_w, -jnp.inf), axis=0)

    return Sums(
        value=sums.value + jnp.sum(added, axis=0),
        weights=jax.tree.map(lambda leaf: leaf[-1], up_to),
        used=jnp.maximum(sums.used, greatest(is_taken)),
        first_two=jnp.maximum(sums.first_two, greatest(count <= 2)),
    )
