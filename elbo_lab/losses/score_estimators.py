"""Gradient estimators whose draws need no derivative: score function, VIMCO, OVIS, wake.

Conventions and weights: see `estimators.py`. The support of q must not depend on its parameters
(a probability that becomes zero has no score). Second derivatives are refused, since those of the
surrogates are not the Hessian.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.arguments import check_broadcasts
from elbo_lab.losses.derivatives import derivative, evaluate, with_gradient_of
from elbo_lab.losses.path_estimators import Bound, Weigh, weighed
from elbo_lab.losses.weights import LogWeights, Problem, densities, sample


def score(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    baseline: Array | float | None = None,
) -> tuple[Array, LogWeights]:
    """Score-function gradient (REINFORCE): (f - baseline) sum_k d log q(z_k) for the sampling, and
    -v_k d log q(z_k) for log q inside the log-weights. Draws need no derivative.

    Unbiased for every bound and any baseline that does not depend on the draws, if the support of q
    does not depend on its parameters. First derivatives only.

    Args:
      baseline: subtracted from f, [*batch] or a scalar, nats, e.g. a running mean or the output of
        a network that the caller trains to predict `Aux.learning_signal` (NVIL, Mnih and Gregor
        2014). Not differentiated here. To pass it, give the objective functools.partial(score,
        baseline=b) as its `estimator`.

    Raises:
      ValueError: if the baseline has another shape.
    """

    def learning_signal(f: Array, log_w: Array) -> Array:
        if baseline is None:
            return jnp.broadcast_to(f, log_w.shape)
        check_broadcasts("baseline", baseline, f.shape)
        return jnp.broadcast_to(f - jnp.asarray(baseline, f.dtype), log_w.shape)

    return _scored(key, problem, bound, weigh, learning_signal)


def score_loo(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Score-function gradient whose baseline for draw k is f of the K - 1 other draws (Kool et al.
    2019 for the ELBO).

    Unbiased, as `score`. The bound must be defined for K - 1 draws too.

    Raises:
      ValueError: K = 1, or a bound that is not defined for K - 1 draws (MIWAE, SUMO).
    """
    _check_several("score_loo", problem)

    def learning_signal(f: Array, log_w: Array) -> Array:
        number = log_w.shape[0] - 1
        try:
            jax.eval_shape(lambda log_w: evaluate(bound, log_w[:-1]), log_w)
        except ValueError as error:
            raise ValueError(
                f'estimator="score_loo" leaves out one draw, and needs a bound of K - 1 = {number} '
                f"log-weights too, which raised: {error} Use vimco."
            ) from error
        return jnp.broadcast_to(f, log_w.shape) - jax.vmap(bound)(_without_each(log_w))

    return _scored(key, problem, bound, weigh, learning_signal)


def vimco(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """VIMCO: the baseline for draw k is f with log_w_k replaced by the mean of the other
    log-weights (Mnih and Rezende 2016, eq. 7 to 9).

    Unbiased for every bound, as `score`; draws need no derivative. f is evaluated K times, on K
    log-weights each.

    Raises:
      ValueError: K = 1.
    """
    _check_several("vimco", problem)

    def learning_signal(f: Array, log_w: Array) -> Array:
        number = log_w.shape[0]
        rows = jnp.broadcast_to(log_w[None], (number, *log_w.shape))  # [K, K, *batch]
        is_k = jnp.expand_dims(jnp.eye(number, dtype=bool), range(2, rows.ndim))
        is_k = is_k & jnp.ones_like(rows, dtype=bool)  # ones_like keeps the sharding of log_w.
        without_k = jnp.where(is_k, jnp.zeros_like(rows), rows)
        mean = jnp.sum(without_k, axis=1, keepdims=True) / (number - 1)
        replaced = jnp.where(is_k, jnp.broadcast_to(mean, rows.shape), rows)
        return jnp.broadcast_to(f, log_w.shape) - jax.vmap(bound)(replaced)

    return _scored(key, problem, bound, weigh, learning_signal)


def ovis(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    gamma: float = 0.0,
) -> tuple[Array, LogWeights]:
    """OVIS~, the score-function gradient of the IWAE bound with the asymptotically optimal control
    variate log Z_{-k} - gamma v_k + (1 - gamma) log(1 - 1/K) (Lievin et al. 2020, eq. 17).

    The weight of d log q(z_k) is -log(1 - v_k) - v_k + gamma [v_k + log(1 - 1/K)]. gamma = 0 is
    unbiased (the control variate does not depend on z_k) and meant for small effective sample
    sizes. Any gamma > 0 is biased, since v_k depends on z_k: gamma = 1, the authors' default, is
    meant for large effective sample sizes.

    Raises:
      ValueError: K = 1, or a bound other than the IWAE bound.
    """
    if bound is not bounds.iwae:
        raise ValueError('estimator="ovis" is defined for the IWAE bound alone.')
    _check_several("ovis", problem)

    def learning_signal(f: Array, log_w: Array) -> Array:
        v, number = derivative(bound, log_w), log_w.shape[0]
        # -log(1 - v_k), for large v_k from the sums of weights: 1 - v_k would lose digits.
        log_sum = jax.nn.logsumexp(log_w, axis=0, keepdims=True)
        by_sums = log_sum - jax.nn.logsumexp(_without_each(log_w), axis=1)
        increase = jnp.where(v < 0.5, -jnp.log1p(-jnp.minimum(v, 0.5)), by_sums)
        # The -v of the weight comes from log q inside log_w, not from here.
        return increase + gamma * (v + jnp.log1p(-1 / number))

    return _scored(key, problem, bound, weigh, learning_signal)


def wake(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reweighted wake-sleep's wake phase (Bornschein and Bengio 2015, eq. 4 and 6): the generation
    network follows f, the inference network sum_k w_k d log q(z_k), w the normalized weights.

    The inference network's update is not the gradient of a bound: it estimates minus the gradient
    of KL(p(z|x) || q(z|x)), with a bias that vanishes as K grows. With K = 1 its expectation is
    zero. Draws need no derivative. First derivatives only.
    """
    draws = densities(problem, jax.lax.stop_gradient(sample(key, problem)))
    held = jax.lax.stop_gradient(draws.log_qz_x)
    value = -evaluate(bound, weigh(draws.log_px_z, draws.log_pz, held))
    return with_gradient_of(value, value + wake_surrogate(draws)), draws


def wake_surrogate(draws: LogWeights) -> Array:
    """-sum_k w_k log q(z_k|x), [*batch]; its gradient is the wake phase's update of q, negated."""
    w = derivative(bounds.iwae, jax.lax.stop_gradient(draws.log_w))
    return -_weighted_sum(w, draws.log_qz_x)


def _scored(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    learning_signal: Callable[[Array, Array], Array],
) -> tuple[Array, LogWeights]:
    """-f and the draws; sampling draw k contributes learning_signal(f, log_w)_k d log q(z_k)."""
    draws = densities(problem, jax.lax.stop_gradient(sample(key, problem)))
    log_w = weighed(weigh, draws)
    f = evaluate(bound, log_w)
    signal = learning_signal(*jax.lax.stop_gradient((f, log_w)))
    return with_gradient_of(-f, -f - _weighted_sum(signal, draws.log_qz_x)), draws


def _without_each(log_w: Array) -> Array:
    """Log-weights [K, K - 1, *batch]; row k has all but log_w_k."""
    k = jnp.arange(log_w.shape[0])
    return log_w[(k[:, None] + k[None, 1:]) % len(k)]


def _weighted_sum(weights: Array, log_qz_x: Array) -> Array:
    return jnp.sum(jax.lax.stop_gradient(weights) * log_qz_x, axis=0)


def _check_several(name: str, problem: Problem) -> None:
    if problem.num_samples < 2:
        raise ValueError(
            f'estimator="{name}" compares draws, and needs num_samples of at least 2; got '
            f"{problem.num_samples}. For one draw use reparam, stl, dreg, score, wake, wake_dreg."
        )
