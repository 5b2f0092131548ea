"""Gradient estimators that differentiate through the draws: reparam, stl, dreg, wake_dreg.

Conventions and weights: see `estimators.py`. The posterior's draws must be differentiable by its
parameters. Second derivatives are right for reparam only; the other estimators refuse them. Only
reparam allows the support of q to move with its parameters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import bounds
from elbo_lab.losses.derivatives import (
    derivative,
    diagonal_hessian,
    evaluate,
    once_differentiable,
    scale_gradient,
    with_gradient_of,
)
from elbo_lab.losses.posteriors import (
    Layered,
    check_draws,
    is_reparameterizable,
    sampler_with_density,
)
from elbo_lab.losses.weights import (
    LogWeights,
    Problem,
    densities,
    freeze_model,
    frozen,
    sample,
    sampled_densities,
    traced_once,
)

Weigh = Callable[[Array, Array, Array], Array]
Bound = Callable[[Array], Array]
# (draws held fixed, v) -> the weight of each draw's path, [K, *batch].
PathWeight = Callable[[LogWeights, Array], Array]


def log_w_of(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
    """log w = log p(x|z) + log p(z) - log q(z|x)."""
    return log_px_z + log_pz - log_qz_x


def reparam(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reparameterized gradient: differentiates f through the draws z = g(phi, eps) as they are
    (textbook 13.25, 13.26; Kingma and Welling 2014).

    Unbiased for the gradient of E[f(log_w)] for every bound, and for its Hessian where the bound's
    derivative does not jump. For the IWAE bound the signal-to-noise ratio of the inference
    network's gradient falls as 1/sqrt(K) (Rainforth et al. 2018). If the posterior knows the
    density of its own draw, that density is used, and its log_prob is not called.

    Args, Returns: see `estimators.py`; the surrogate is -f, [*batch], nats.

    Raises:
      ValueError: if the posterior is not reparameterizable.
    """
    draws = sampled_densities(key, problem)
    loss = -evaluate(bound, weighed(weigh, draws))
    return _checked("reparam", problem, draws, loss), draws


def stl(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Sticking the landing: reparam without its score term, log q's parameters held fixed (Roeder
    et al. 2017).

    Unbiased for bounds that are linear in log_w (ELBO and beta-VAE, IWAE at K = 1), with no
    variance where q is the exact posterior. **Biased for every other bound**, the IWAE bound at
    K > 1 too (Tucker et al. 2019), and a nonlinear function of one log-weight; use dreg there. The
    support of q must not depend on its parameters. First derivatives only.

    Raises:
      ValueError: if the posterior is not reparameterizable.
    """
    draws = densities(problem, sample(key, problem), freeze_posterior=True)
    loss = once_differentiable(-evaluate(bound, weighed(weigh, draws)))
    return _checked("stl", problem, draws, loss), draws


def dreg(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Doubly reparameterized gradient (Tucker et al. 2019, for the IWAE bound; here for any bound).

    The expectation of the score term is reparameterized too: the path of a draw has the weight
    v - h, and no score term is left.

    Unbiased for every bound with absolutely continuous first derivatives, where the support of q
    does not depend on its parameters. First derivatives only. For the IWAE bound the path weights
    are w^2, and the signal-to-noise ratio does not fall with K. The networks are evaluated once,
    and for the IWAE bound and the ELBO differentiated once. For other bounds the path weight is not
    a bounded multiple of v, and the generation network is differentiated once more, by z.

    Raises:
      ValueError: if the posterior is not reparameterizable; if the bound's derivative jumps
        (`vr_max`).
    """

    def slope(draws: LogWeights) -> Array:
        # Derivative of the log-weights by log q: -1 for log w, -beta for the beta-VAE's.
        def by_log_q(log_qz_x: Array) -> Array:
            return weigh(draws.log_px_z, draws.log_pz, log_qz_x)

        return jax.jvp(by_log_q, (draws.log_qz_x,), (jnp.ones_like(draws.log_qz_x),))[1]

    def weight(draws: LogWeights, v: Array) -> Array:
        return v + slope(draws) * diagonal_hessian(bound, weighed(weigh, draws))

    def iwae_ratio(draws: LogWeights, v: Array) -> Array:
        return 1 + slope(draws) * (1 - v)  # h = v (1 - v)

    def elbo_ratio(draws: LogWeights, v: Array) -> Array:
        return jnp.ones_like(v)  # h = 0

    if bound is bounds.iwae:
        return _one_surrogate("dreg", key, problem, bound, weigh, iwae_ratio)
    if bound is bounds.elbo:
        return _one_surrogate("dreg", key, problem, bound, weigh, elbo_ratio)
    return _two_surrogates("dreg", key, problem, bound, weigh, weigh, weight)


def wake_dreg(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reweighted wake-sleep's wake-phase update of the inference network, doubly reparameterized:
    paths weigh w - w^2 (Tucker et al. 2019, eq. 12).

    It has the expectation of `wake` and less variance, if the support of q does not depend on its
    parameters. K = 1 does not change the inference network. First derivatives only. For bounds
    other than the IWAE bound the generation network is differentiated once more, by z.

    Raises:
      ValueError: if the posterior is not reparameterizable.
    """
    if bound is bounds.iwae and weigh is log_w_of:  # v = w
        return _one_surrogate("wake_dreg", key, problem, bound, weigh, lambda draws, v: 1 - v)

    def weight(draws: LogWeights, v: Array) -> Array:
        del v  # It may be zero where w is not.
        w = derivative(bounds.iwae, draws.log_w)
        return w - w**2

    return _two_surrogates("wake_dreg", key, problem, bound, weigh, log_w_of, weight)


def weighed(weigh: Weigh, draws: LogWeights) -> Array:
    """The log-weights that the bound sees, [K, *batch]."""
    return weigh(draws.log_px_z, draws.log_pz, draws.log_qz_x)


def _one_surrogate(
    name: str, key: Array, problem: Problem, bound: Bound, weigh: Weigh, ratio: PathWeight
) -> tuple[Array, LogWeights]:
    """-f and the draws; its gradient has the path weights ratio(draws, v)_k v_k instead of v_k."""
    problem = traced_once(problem)
    z = sample(key, problem)
    held = jax.lax.stop_gradient(densities(problem, z, freeze_posterior=True))
    v = derivative(bound, weighed(weigh, held))
    ratios = jax.lax.stop_gradient(ratio(held, v))
    # The values of z are unchanged, so that the compiled program merges the two evaluations.
    scaled = jax.tree.map(lambda leaf: scale_gradient(leaf, _like_leaf(ratios, leaf)), z)
    draws = densities(problem, scaled, freeze_posterior=True)
    loss = once_differentiable(-evaluate(bound, weighed(weigh, draws)))
    return _checked(name, problem, draws, loss), draws


def _two_surrogates(
    name: str,
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    path: Weigh,
    weight: PathWeight,
) -> tuple[Array, LogWeights]:
    """-f and the draws; its gradient is computed in two parts.

    For prior and likelihood it is the gradient at draws held fixed. For q it is the sum of
    weight(draws, v)_k d path_k / dz_k through the draws: no weight is divided by v, as a ratio for
    `_one_surrogate` would be.
    """
    problem = traced_once(problem)
    z = sample(key, problem)
    draws = densities(problem, jax.lax.stop_gradient(z), freeze_posterior=True)
    held = jax.lax.stop_gradient(draws)
    loss = -evaluate(bound, weighed(weigh, draws))
    weights = jax.lax.stop_gradient(weight(held, derivative(bound, weighed(weigh, held))))
    moved = densities(freeze_model(problem), z, freeze_posterior=True)
    paths = frozen(lambda draws: weighed(path, draws))(moved)
    surrogate = loss - jnp.sum(weights * paths, axis=0)
    return _checked(name, problem, moved, with_gradient_of(loss, surrogate)), draws


def _like_leaf(ratio: Array, leaf: Array) -> Array:
    """A ratio per draw, [K, *batch], repeated over the event dimensions of a leaf of the draws."""
    ratio = jnp.expand_dims(ratio, range(ratio.ndim, leaf.ndim))
    return jnp.broadcast_to(ratio, leaf.shape).astype(leaf.dtype)


def _checked(name: str, problem: Problem, draws: LogWeights, loss: Array) -> Array:
    """The loss, checked for draws without a derivative.

    Raises ValueError at once if the posterior's type has none, and otherwise when the loss is
    differentiated by parameters that log q depends on and the draws do not.
    """
    posterior, z = problem.posterior, draws.z
    message = (
        f'estimator="{name}" needs a posterior whose draws can be differentiated; '
        f"those of {type(posterior).__name__} cannot. Estimators that work for it: score, "
        "score_loo, vimco, ovis, wake."
    )
    first_draw = jax.tree.map(lambda leaf: leaf[0], z)
    if not is_reparameterizable(posterior, first_draw):
        raise ValueError(message)
    message += (
        " (Its draws have no derivative by parameters of its log_prob. If that is intended, give "
        "it an attribute reparameterized = True.)"
    )
    if name == "reparam" and sampler_with_density(posterior) is not None:
        return check_draws(posterior, loss, z, draws.log_qz_x, message)
    # Each layer is checked by itself: some may be held fixed or have no parameters.
    if isinstance(posterior, Layered):
        layers = zip(posterior.layers(first_draw), first_draw, strict=True)
    else:
        layers = [(posterior, first_draw)]
    for layer, draw in layers:
        _, parameters = jax.closure_convert(layer.log_prob, draw)
        loss = check_draws(posterior, loss, draw, parameters, message)
    return loss
