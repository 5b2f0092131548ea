"""Gradient estimators: rules for differentiating a bound f(log_w).

An estimator draws z_1..z_K ~ q(z|x), forms log-weights and returns a scalar per example that is
differentiated in place of -f. Its *value* is always -f. One implementation serves every bound:

    surrogate, draws = ESTIMATORS[name](key, problem, bound, weigh)

`bound` maps log-weights [K, *batch] to [*batch] (`bounds.py`), and `weigh` maps log p(x|z), log
p(z) and log q(z|x), [K, *batch] each, to the log-weights that the bound sees (`log_w_of` for
ordinary bounds). With v = df / d log_w and h the diagonal of f's Hessian:

    estimator    prior, likelihood   draws of q (path)   log q (score)
    reparam      v                   v                   -v
    stl          v                   v                   -
    dreg         v                   v - h               -
    score        v                   -                   f - baseline - v
    vimco        v                   -                   f - f(log_w_k replaced) - v
    ovis         v                   -                   see there
    wake         v                   -                   w
    wake_dreg    v                   w - w^2             -

Each entry weighs d log_w_k / dz through the draw or d log q(z_k) / d phi, in ascent direction.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.weights import LogWeights, Problem, densities, is_reparameterizable, sample

Weigh = Callable[[Array, Array, Array], Array]
Bound = Callable[[Array], Array]
Estimator = Callable[[Array, Problem, Bound, Weigh], tuple[Array, LogWeights]]


def log_w_of(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
    """log w = log p(x|z) + log p(z) - log q(z|x)."""
    return log_px_z + log_pz - log_qz_x


def derivative(bound: Bound, log_w: Array) -> Array:
    """v = df / d log_w, [K, *batch]: the weight of each draw in the gradient of f."""
    return jax.grad(lambda log_w: jnp.sum(bound(log_w)))(log_w)


def diagonal_hessian(bound: Bound, log_w: Array) -> Array:
    """h_k = d^2 f / d log_w_k^2, [K, *batch], by K forward derivatives of v."""
    number = log_w.shape[0]

    def entry(k: Array) -> Array:
        along = (jnp.arange(number) == k).reshape(-1, *(1,) * (log_w.ndim - 1))
        along = along * jnp.ones_like(log_w)  # Of its sharding too.
        slope = jax.jvp(functools.partial(derivative, bound), (log_w,), (along,))[1]
        return jnp.sum(slope * along, axis=0)

    if number <= HESSIAN_ROWS:
        return jax.vmap(entry)(jnp.arange(number))
    return jax.lax.map(entry, jnp.arange(number), batch_size=HESSIAN_ROWS)


# Rows of the Hessian that are computed together: memory is this times the log-weights'.
HESSIAN_ROWS = 128


def path_weight(bound: Bound, log_w: Array) -> Array:
    """v - h, [K, *batch]: what doubly reparameterized gradients weigh each path with. For the IWAE
    bound these are the squared normalized weights (Tucker et al. 2019, eq. 8).
    """
    return derivative(bound, log_w) - diagonal_hessian(bound, log_w)


def reparam(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reparameterized gradient: differentiates f through the draws z = g(phi, eps) as they are
    (textbook 13.25, 13.26; Kingma and Welling 2014).

    Unbiased for the gradient of E[f(log_w)] for every bound. For the IWAE bound the signal-to-noise
    ratio of the inference network's gradient falls as 1/sqrt(K) (Rainforth et al. 2018).

    Args, Returns: see the module's docstring; the surrogate is -f, [*batch], nats.

    Raises:
      ValueError: if the posterior is not reparameterizable.
    """
    draws = densities(problem, _differentiable_sample(key, problem, "reparam"))
    return -bound(_weighed(weigh, draws)), draws


def stl(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Sticking the landing: reparam without its score term, log q's parameters held fixed (Roeder
    et al. 2017).

    Unbiased for bounds that are linear in log_w (ELBO, beta-VAE), with no variance where q is the
    exact posterior. **Biased for every other bound at K > 1**, the IWAE bound too (Tucker et al.
    2019); use dreg there.

    Raises:
      ValueError: if the posterior is not reparameterizable.
    """
    draws = densities(problem, _differentiable_sample(key, problem, "stl"), freeze_posterior=True)
    return -bound(_weighed(weigh, draws)), draws


def dreg(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Doubly reparameterized gradient (Tucker et al. 2019, for the IWAE bound; here for any): the
    score term's expectation is itself reparameterized, so that paths weigh v - h and no score term
    is left.

    Unbiased for every bound with absolutely continuous first derivatives. For the IWAE bound the
    path weights are w^2, and the signal-to-noise ratio does not fall with K. Costs no second pass
    through the networks: the compiled program evaluates them once.

    Raises:
      ValueError: if the posterior is not reparameterizable; for `vr_max`, whose derivative jumps.
    """
    if _is_vr_max(bound):
        raise ValueError(
            'estimator="dreg" needs a bound with a continuous derivative, and that of the greatest '
            f"log-weight (alpha = -inf) jumps; use {_names(set(ESTIMATORS) - {'dreg'})}."
        )

    def weight(draws: LogWeights, log_w: Array, v: Array) -> Array:
        # How log q enters the log-weights: -1 for log_w itself, -beta for the beta-VAE's.
        parts = draws.log_px_z, draws.log_pz
        ones = jnp.ones_like(draws.log_qz_x)
        slope = jax.jvp(functools.partial(weigh, *parts), (draws.log_qz_x,), (ones,))[1]
        return v + slope * diagonal_hessian(bound, log_w)

    return _doubly_reparameterized(key, problem, bound, weigh, weight, "dreg")


def wake_dreg(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reweighted wake-sleep's wake-phase update of the inference network, doubly reparameterized:
    paths weigh w - w^2 (Tucker et al. 2019, eq. 12).

    The same expectation as `wake`, with less variance. K = 1 leaves the inference network alone.

    Raises:
      ValueError: if the posterior is not reparameterizable.
    """

    def weight(draws: LogWeights, log_w: Array, v: Array) -> Array:
        w = derivative(bounds.iwae, draws.log_w)
        return w - w**2

    return _doubly_reparameterized(key, problem, bound, weigh, weight, "wake_dreg")


def score(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    baseline: Array | float | None = None,
) -> tuple[Array, LogWeights]:
    """Score-function gradient (REINFORCE): (f - baseline) sum_k d log q(z_k) for the sampling, and
    -v_k d log q(z_k) for log q inside the log-weights. Draws need no derivative.

    Unbiased for every bound, whatever the baseline, as long as it does not depend on the draws.

    Args:
      baseline: subtracted from f, [*batch] or a scalar, nats; the caller's, who may keep a running
        mean or train a network for it. Not differentiated here. Pass it by functools.partial(score,
        baseline=b) as the objective's `estimator`.
    """

    def learning_signal(f: Array, log_w: Array) -> Array:
        centred = f if baseline is None else f - baseline
        return jnp.broadcast_to(centred, log_w.shape)

    return _scored(key, problem, bound, weigh, learning_signal)


def score_loo(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Score-function gradient whose baseline for draw k is f of the K - 1 other draws (Kool et al.
    2019 for the ELBO).

    Unbiased. For bounds that are defined for any number of draws.

    Raises:
      ValueError: K = 1, or a bound that K - 1 draws cannot have (MIWAE, SUMO).
    """
    _check_several("score_loo", problem)

    def learning_signal(f: Array, log_w: Array) -> Array:
        try:
            return f - jax.vmap(bound)(_others(log_w))
        except ValueError as error:
            raise ValueError(
                'estimator="score_loo" needs a bound that can leave out one draw; use vimco. '
                f"({error})"
            ) from error

    return _scored(key, problem, bound, weigh, learning_signal)


def vimco(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """VIMCO: the baseline for draw k is f with log_w_k replaced by the mean of the other
    log-weights (Mnih and Rezende 2016, eq. 7 to 9).

    Unbiased for every bound; draws need no derivative. f is evaluated K times, on K numbers each.

    Raises:
      ValueError: K = 1.
    """
    _check_several("vimco", problem)

    def learning_signal(f: Array, log_w: Array) -> Array:
        number = log_w.shape[0]
        own = jnp.eye(number, dtype=bool).reshape(number, number, *(1,) * (log_w.ndim - 1))
        others = jnp.where(own, 0, log_w[None])  # [K, K, *batch]
        mean = jnp.sum(others, axis=1, keepdims=True) / (number - 1)
        return f - jax.vmap(bound)(jnp.where(own, mean, log_w[None]))

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
    sizes; gamma = 1, the authors' default, meant for large ones, is biased.

    Raises:
      ValueError: K = 1, or a bound other than the IWAE bound.
    """
    if bound is not bounds.iwae:
        raise ValueError('estimator="ovis" is defined for the IWAE bound alone.')
    _check_several("ovis", problem)

    def learning_signal(f: Array, log_w: Array) -> Array:
        v, number = derivative(bound, log_w), log_w.shape[0]
        # log Z - log Z_{-k} - log(1 - 1/K), by the others' sum where 1 - v would cancel.
        by_others = jax.nn.logsumexp(log_w, axis=0) - jax.nn.logsumexp(_others(log_w), axis=1)
        rest = jnp.where(v < 0.5, -jnp.log1p(-jnp.minimum(v, 0.5)), by_others)
        # v is subtracted again by log q's own place in log_w.
        return rest + gamma * (v + jnp.log1p(-1 / number))

    return _scored(key, problem, bound, weigh, learning_signal)


def wake(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reweighted wake-sleep's wake phase (Bornschein and Bengio 2015, eq. 4 and 6): the generation
    network follows f, the inference network sum_k w_k d log q(z_k), w the normalized weights.

    The second is not the gradient of a bound: it estimates minus the gradient of KL(p(z|x) ||
    q(z|x)), with a bias that vanishes as K grows. Draws need no derivative. K = 1 gives the
    inference network no signal on average.
    """
    draws = densities(problem, jax.lax.stop_gradient(sample(key, problem)))
    held = jax.lax.stop_gradient(draws.log_qz_x)
    value = -bound(weigh(draws.log_px_z, draws.log_pz, held))
    w = derivative(bounds.iwae, jax.lax.stop_gradient(draws.log_w))
    return with_gradient_of(value, value - _inner(w, draws.log_qz_x)), draws


ESTIMATORS: dict[str, Estimator] = {
    "reparam": reparam,
    "stl": stl,
    "dreg": dreg,
    "score": score,
    "score_loo": score_loo,
    "vimco": vimco,
    "ovis": ovis,
    "wake": wake,
    "wake_dreg": wake_dreg,
}

# Estimators that differentiate through the draws, and so need a reparameterizable posterior.
PATH_ESTIMATORS = frozenset({"reparam", "stl", "dreg", "wake_dreg"})
# Estimators that compare draws, and so need at least two.
COMPARING_ESTIMATORS = frozenset({"score_loo", "vimco", "ovis"})


def _doubly_reparameterized(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    weight: Callable[[LogWeights, Array, Array], Array],
    name: str,
) -> tuple[Array, LogWeights]:
    """-f, whose gradient weighs the path of draw k by weight(draws, log_w, v)_k instead of v_k."""
    z = _differentiable_sample(key, problem, name)
    draws = jax.lax.stop_gradient(densities(problem, z, freeze_posterior=True))
    log_w = _weighed(weigh, draws)
    v = derivative(bound, log_w)
    # Where v is zero, no cotangent arrives that could be scaled; w and h are zero there too.
    ratio = jnp.where(v == 0, 0, weight(draws, log_w, v) / jnp.where(v == 0, 1, v))
    # The value of z is what it was, so that the compiled program merges the two evaluations.
    scaled = jax.tree.map(lambda leaf: _scale_gradient(leaf, _trailing(ratio, leaf)), z)
    draws = densities(problem, scaled, freeze_posterior=True)
    return -bound(_weighed(weigh, draws)), draws


def _scored(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    learning_signal: Callable[[Array, Array], Array],
) -> tuple[Array, LogWeights]:
    """-f, whose gradient has learning_signal(f, log_w)_k d log q(z_k) for sampling draw k."""
    draws = densities(problem, jax.lax.stop_gradient(sample(key, problem)))
    log_w = _weighed(weigh, draws)
    f = bound(log_w)
    signal = learning_signal(*jax.lax.stop_gradient((f, log_w)))
    return with_gradient_of(-f, -f - _inner(signal, draws.log_qz_x)), draws


def _weighed(weigh: Weigh, draws: LogWeights) -> Array:
    return weigh(draws.log_px_z, draws.log_pz, draws.log_qz_x)


def _others(log_w: Array) -> Array:
    """[K, K - 1, *batch], whose row k lacks log_w_k."""
    k = jnp.arange(log_w.shape[0])
    return log_w[(k[:, None] + k[None, 1:]) % len(k)]


def _inner(weights: Array, log_qz_x: Array) -> Array:
    return jnp.sum(jax.lax.stop_gradient(weights) * log_qz_x, axis=0)


@jax.custom_jvp
def with_gradient_of(value: Array, surrogate: Array) -> Array:
    """`value`, with the derivative of `surrogate`: no arithmetic between them could cost digits, or
    make NaNs of infinities.
    """
    del surrogate
    return value


@with_gradient_of.defjvp
def _(primals, tangents):
    return primals[0], tangents[1]


@jax.custom_jvp
def _scale_gradient(z: Array, ratio: Array) -> Array:
    """z, whose derivative is multiplied by `ratio`."""
    del ratio
    return z


@_scale_gradient.defjvp
def _(primals, tangents):
    return primals[0], tangents[0] * primals[1]


def _trailing(ratio: Array, leaf: Array) -> Array:
    ratio = ratio.reshape(*ratio.shape, *(1,) * (leaf.ndim - ratio.ndim))
    return jnp.broadcast_to(ratio, leaf.shape).astype(leaf.dtype)


def _differentiable_sample(key: Array, problem: Problem, name: str):
    z = sample(key, problem)
    if not is_reparameterizable(problem.posterior, z):
        raise ValueError(
            f'estimator="{name}" needs a posterior whose draws can be differentiated; '
            f"{type(problem.posterior).__name__} has none such. Estimators that work for it: "
            f"{_names(set(ESTIMATORS) - PATH_ESTIMATORS)}."
        )
    return z


def _check_several(name: str, problem: Problem) -> None:
    if problem.num_samples < 2:
        others = _names(set(ESTIMATORS) - COMPARING_ESTIMATORS)
        raise ValueError(
            f'estimator="{name}" compares draws, and needs num_samples of at least 2; got '
            f"{problem.num_samples}. For one draw use {others}."
        )


def _is_vr_max(bound: Bound) -> bool:
    if isinstance(bound, functools.partial):
        alpha = bound.keywords.get("alpha")
        return bound.func is bounds.renyi and isinstance(alpha, float) and alpha == -jnp.inf
    return bound is bounds.vr_max


def _names(names) -> str:
    return ", ".join(name for name in ESTIMATORS if name in names)
