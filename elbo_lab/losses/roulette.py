"""SUMO: log p(x) without bias, by Russian roulette over IWAE bounds (Luo et al. 2020).

Its price is its variance. For many draws the increments L_{k+1} - L_k are uncorrelated, with the
mean square Var[w / p(x)] / (k (k + 1)), and each adds that times 1 / P(T >= k) - 1: some Var[w /
p(x)] / k up to the knee at 80 terms, and a ninth more with every term beyond it. The variance of at
most 81 draws is some three times Var[w / p(x)], and that of the whole is **infinite**: values
thousands of nats away occur. No other law of T has both a finite variance and a finite mean, since
sum_k 1/k is infinite. Maximizing the estimate is stable where minimizing log p(x) is not (their
section 3.4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_count, typed_key
from elbo_lab.losses.common import FIXED_DRAWS, Aux, batch_shape, of_bound
from elbo_lab.losses.estimators import Estimator
from elbo_lab.losses.weights import Problem, log_weights


def draw_terms(key: Array, shape: tuple[int, ...] = ()) -> Array:
    """T, the terms that the roulette allows: P(T >= k) = `bounds.roulette_survival`(k). Integers of
    at least 1, as float32.
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
    """Negative SUMO of at most K draws: `bounds.sumo` with T drawn by key, for each example.

    A compiled program has one shape, so that all K draws are made whatever T is, and the roulette
    is cut at K - 1 terms: the estimate is unbiased for the IWAE bound of K draws, not for log p(x).
    `sumo_log_px` has no such end, and no gradient.

    Args:
      num_samples: K, the most draws.
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

    return of_bound(draws_key, problem, bound, estimator, FIXED_DRAWS)


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
      [*batch], nats. Unbiased for log p(x) where E|log w| is finite; of infinite variance (see the
      module's docstring), so that means of many converge slowly and their standard errors say too
      little. Where the first draws have zero weight it may be infinite, as `bounds.sumo`.

    Raises:
      ValueError: see `log_weights`.
    """
    check_count("chunk", chunk)
    draws_key, terms_key = jax.random.split(typed_key(key))
    problem = Problem(posterior, prior, log_likelihood, chunk, vectorized)
    terms = draw_terms(terms_key, batch_shape(jax.random.key(0), problem))

    def more(carry) -> Array:
        done = carry[0] * chunk
        return jnp.any(done < terms + 1)

    def fold(carry):
        index, total, last, log_sum, zeros = carry
        log_w = log_weights(jax.random.fold_in(draws_key, index), *problem).log_w
        running = jnp.logaddexp(log_sum, jax.lax.cumlogsumexp(log_w, axis=0))  # [C, *batch]
        count = index * chunk + jnp.arange(1.0, chunk + 1).reshape(-1, *(1,) * len(terms.shape))
        # Up to the first draw of positive weight, L_count is -t for t to infinity, here zero.
        leading = jnp.isneginf(running)
        values = jnp.where(leading, 0, running - jnp.log(count))  # L_count
        zeros += jnp.sum(leading, axis=0)
        before = jnp.concatenate([last[None], values[:-1]])
        # The first draw's term is L_1 itself, of survival probability one.
        difference = jnp.where(count == 1, values, values - before)
        survival = bounds.roulette_survival(jnp.maximum(count - 1, 1))
        total += jnp.sum(jnp.where(count - 1 <= terms, difference / survival, 0), axis=0)
        return index + 1, total, values[-1], running[-1], zeros

    zero = jnp.zeros(terms.shape)
    start = 0, zero, zero, zero - jnp.inf, zero
    _, total, _, _, zeros = jax.lax.while_loop(more, fold, start)
    return total + bounds.roulette_limit(zeros, terms)
