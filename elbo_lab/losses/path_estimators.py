"""Gradient estimators that differentiate through the draws: reparam, stl, dreg, wake_dreg.

Conventions and weights: see `estimators.py`. The posterior's draws must be differentiable by its
parameters. Of these only reparam's second derivatives are right, so that the others refuse them,
and only reparam allows the support of q to move with its parameters.
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
# The weight of each path, [K, *batch], of held draws and v.
PathWeight = Callable[[LogWeights, Array], Array]


def log_w_of(log_px_z: Array, log_pz: Array, log_qz_x: Array) -> Array:
    """log w = log p(x|z) + log p(z) - log q(z|x)."""
    return log_px_z + log_pz - log_qz_x


def reparam(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reparameterized gradient: differentiates f through the draws z = g(phi, eps) as they are
    (textbook 13.25, 13.26; Kingma and Welling 2014).

    Unbiased for the gradient of E[f(log_w)] for every bound, and for its Hessian where the bound's
    derivative does not jump. For the IWAE bound the signal-to-noise ratio of the inference
    network's gradient falls as 1/sqrt(K) (Rainforth et al. 2018). Where the posterior knows the
    density of its own draw, that is used, and log q is asked of no z.

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
    """Doubly reparameterized gradient (Tucker et al. 2019, for the IWAE bound; here for any): the
    score term's expectation is itself reparameterized, so that paths weigh v - h and no score term
    is left.

    Unbiased for every bound with absolutely continuous first derivatives, where the support of q
    does not depend on its parameters. First derivatives only. For the IWAE bound the path weights
    are w^2, and the signal-to-noise ratio does not fall with K. The networks are evaluated once,
    and for the IWAE bound and the ELBO differentiated once; for other bounds the path weights are
    no bounded multiple of v, and the generation network is differentiated once more, by z.

    Raises:
      ValueError: if the posterior is not reparameterizable; for bounds that say that their
        derivative jumps (`vr_max`).
    """

    def slope(draws: LogWeights) -> Array:
        # How log q enters the log-weights: -1 for log_w itself, -beta for the beta-VAE's.
        def by_log_q(log_qz_x: Array) -> Array:
            return weigh(draws.log_px_z, draws.log_pz, log_qz_x)

        return jax.jvp(by_log_q, (draws.log_qz_x,), (jnp.ones_like(draws.log_qz_x),))[1]

    def weight(draws: LogWeights, v: Array) -> Array:
        return v + slope(draws) * diagonal_hessian(bound, weighed(weigh, draws))

    # Weight over v, where h is v times something bounded: h = v (1 - v) for the IWAE bound.
    if bound is bounds.iwae:
        ratio = lambda draws, v: 1 + slope(draws) * (1 - v)  # noqa: E731
    elif bound is bounds.elbo:
        ratio = lambda draws, v: jnp.ones_like(v)  # noqa: E731
    else:
        return _two_surrogates("dreg", key, problem, bound, weigh, weigh, weight)
    return _one_surrogate("dreg", key, problem, bound, weigh, ratio)


def wake_dreg(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Reweighted wake-sleep's wake-phase update of the inference network, doubly reparameterized:
    paths weigh w - w^2 (Tucker et al. 2019, eq. 12).

    The same expectation as `wake`, with less variance, where the support of q does not depend on
    its parameters. K = 1 leaves the inference network alone. First derivatives only. For bounds
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
    """-f, whose gradient weighs the path of draw k by ratio(draws, v)_k v_k instead of v_k."""
    problem = traced_once(problem)
    z = sample(key, problem)
    held = jax.lax.stop_gradient(densities(problem, z, freeze_posterior=True))
    v = derivative(bound, weighed(weigh, held))
    ratios = jax.lax.stop_gradient(ratio(held, v))
    # The value of z is what it was, so that the compiled program merges the two evaluations.
    scaled = jax.tree.map(lambda leaf: scale_gradient(leaf, _trailing(ratios, leaf)), z)
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
    """-f, whose gradient is that of f at held draws for prior and likelihood, and weight(draws,
    v)_k d path_k / dz_k through the draws for q: no weight is divided by another.
    """
    problem = traced_once(problem)
    z = sample(key, problem)
    draws = densities(problem, jax.lax.stop_gradient(z), freeze_posterior=True)
    held = jax.lax.stop_gradient(draws)
    loss = -evaluate(bound, weighed(weigh, draws))
    weights = jax.lax.stop_gradient(weight(held, derivative(bound, weighed(weigh, held))))
    moved = densities(freeze_model(problem), z, freeze_posterior=True)
    paths = frozen(lambda moved: weighed(path, moved))(moved)
    surrogate = loss - jnp.sum(weights * paths, axis=0)
    return _checked(name, problem, moved, with_gradient_of(loss, surrogate)), draws


def _trailing(ratio: Array, leaf: Array) -> Array:
    ratio = ratio.reshape(*ratio.shape, *(1,) * (leaf.ndim - ratio.ndim))
    return jnp.broadcast_to(ratio, leaf.shape).astype(leaf.dtype)


def _checked(name: str, problem: Problem, draws: LogWeights, loss: Array) -> Array:
    """The loss, refused where the draws cannot be differentiated: by the posterior's type, or where
    the loss is differentiated by parameters that the draws do not follow.
    """
    posterior, z = problem.posterior, draws.z
    message = (
        f'estimator="{name}" needs a posterior whose draws can be differentiated; '
        f"those of {type(posterior).__name__} cannot. Estimators that work for it: score, "
        "score_loo, vimco, ovis, wake."
    )
    one = jax.tree.map(lambda leaf: leaf[0], z)
    if not is_reparameterizable(posterior, one):
        raise ValueError(message)
    message += (
        " (Its draws have no derivative by parameters of its log_prob. If that is meant, let it "
        "say so by an attribute reparameterized = True.)"
    )
    if name == "reparam" and sampler_with_density(posterior) is not None:
        return check_draws(posterior, loss, z, draws.log_qz_x, message)
    # Each layer by itself: some may be held fixed, or have no parameters, while others move.
    is_layered = isinstance(posterior, Layered)
    layers = zip(posterior.layers(one), one, strict=True) if is_layered else [(posterior, one)]
    for layer, draw in layers:
        _, parameters = jax.closure_convert(layer.log_prob, draw)
        loss = check_draws(posterior, loss, draw, parameters, message)
    return loss
