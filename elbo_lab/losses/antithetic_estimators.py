"""Gradient estimators that pair each binary draw with one of opposite noise: ARM and DisARM.

A layer of z_k is 1[u_k < sigmoid(logits)], and that of its partner z~_k 1[1 - u_k <
sigmoid(logits)], u ~ U(0, 1). Layers before it are z_k's, and layers after it are drawn given the
partner by z_k's noise. Let s_k be the weight of d log q(z_k) in the gradient of E[f],

    s_k = f + df / d log q(z_k)     (f - v_k, where f is a function of log w),

and s~_k the same with z_k replaced by its partner, the other draws held. The gradient by each
logit of the layer that drew z_k is

    arm     1/2 (s_k - s~_k) (1 - 2 u_k)
    disarm  1/2 (s_k - s~_k) (z_k - z~_k) sigmoid(|logit|)

with less variance for disarm: it is arm's expectation given z_k and z~_k. The part of df / d log
q(z_k) is differenced too, so that it is zero for the ELBO, and the whole gradient is zero where q
is the exact posterior.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses import binary_draws
from elbo_lab.losses.derivatives import evaluate, with_gradient_of
from elbo_lab.losses.path_estimators import Bound, Weigh
from elbo_lab.losses.posteriors import sum_trailing
from elbo_lab.losses.weights import LogWeights, Problem, densities, traced_once

# (logits, u, z, partner) of a layer -> the factor of (s_k - s~_k) / 2, all [K, *batch, ...].
PairWeight = Callable[[Array, Array, Array, Array], Array]


def arm(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """Augment-REINFORCE-merge gradient (Yin and Zhou 2019); see the module's docstring.

    Unbiased for every bound and any K. Prior and likelihood follow f of the K draws, whose value
    the loss has; the partners serve the inference network alone. Densities are evaluated K + K n
    times for n layers, f and its derivative K + K n times on K log-weights each. First derivatives
    only.

    Raises:
      ValueError: a posterior that is not of independent Bernoulli variables, in one layer or in a
        hierarchy that is drawn from the data up.
    """

    def weight(logits: Array, u: Array, z: Array, partner: Array) -> Array:
        del logits, z, partner
        return 1 - 2 * u

    return _antithetic("arm", key, problem, bound, weigh, weight)


def disarm(key: Array, problem: Problem, bound: Bound, weigh: Weigh) -> tuple[Array, LogWeights]:
    """DisARM gradient (Dong, Mnih and Tucker 2020; Yin, Ho, Yan, Qian and Zhou 2022): `arm`,
    with the noise integrated out given each pair of draws.

    Unbiased for every bound and any K, with less variance than `arm` at the same cost.

    Raises:
      ValueError: as `arm`.
    """

    def weight(logits: Array, u: Array, z: Array, partner: Array) -> Array:
        difference = z.astype(u.dtype) - partner.astype(u.dtype)
        return difference * jax.nn.sigmoid(jnp.abs(logits))

    return _antithetic("disarm", key, problem, bound, weigh, weight)


def _antithetic(
    name: str, key: Array, problem: Problem, bound: Bound, weigh: Weigh, weight: PairWeight
) -> tuple[Array, LogWeights]:
    """-f and the draws; its gradient by the logits is that of the pairs."""
    binary_draws.check_binary(name, problem)
    problem = traced_once(problem)
    u = binary_draws.uniform_noise(key, problem)
    z = jax.lax.stop_gradient(binary_draws.draw(problem, u, binary_draws.hard))
    logits = binary_draws.layer_logits(problem, z)
    draws = densities(problem, binary_draws.in_form(problem, z))
    held = jax.lax.stop_gradient(draws)
    s = score_weights(bound, weigh, held)
    score_part = jnp.zeros_like(s[0])
    for i, layer in enumerate(jax.lax.stop_gradient(logits)):
        opposite = (*u[:i], 1 - u[i], *u[i + 1 :])
        partner = jax.lax.stop_gradient(
            binary_draws.draw(problem, opposite, binary_draws.hard, first=z[:i])
        )
        others = densities(problem, binary_draws.in_form(problem, partner))
        difference = s - _partners_score_weights(bound, weigh, held, jax.lax.stop_gradient(others))
        pair = weight(layer, u[i], z[i], partner[i])
        difference = jnp.expand_dims(difference, range(difference.ndim, pair.ndim))
        terms = (difference.astype(pair.dtype) / 2 * pair) * logits[i]
        terms = sum_trailing(terms, terms.ndim - s.ndim).astype(s.dtype)
        score_part = score_part + jnp.sum(terms, axis=0)
    loss = -evaluate(bound, weigh(draws.log_px_z, draws.log_pz, held.log_qz_x))
    return with_gradient_of(loss, loss - score_part), draws


def score_weights(bound: Bound, weigh: Weigh, draws: LogWeights) -> Array:
    """f + df / d log q(z_k), [K, *batch]: the weight of d log q(z_k) in the gradient of E[f]."""

    def of_log_q(log_qz_x: Array) -> tuple[Array, Array]:
        f = evaluate(bound, weigh(draws.log_px_z, draws.log_pz, log_qz_x))
        return jnp.sum(f), f

    slope, f = jax.grad(of_log_q, has_aux=True)(draws.log_qz_x)
    return f[None] + slope


def replaced_each(draws: LogWeights, others: LogWeights) -> LogWeights:
    """K sets of K log densities, [K, K, *batch]; set k has the densities of draw k replaced by
    those of `others`. Without z.
    """

    def replaced(own: Array, other: Array) -> Array:
        is_k = is_own(own)
        rows = jnp.broadcast_to(own[None], is_k.shape)
        return jnp.where(is_k, jnp.broadcast_to(other[None], is_k.shape), rows)

    parts = (replaced(own, other) for own, other in zip(draws[:4], others[:4], strict=True))
    return LogWeights(*parts, z=())


def is_own(values: Array) -> Array:
    """True at [k, k] of an array [K, K, *batch], for values [K, *batch]."""
    number = values.shape[0]
    own = jnp.expand_dims(jnp.eye(number, dtype=bool), range(2, values.ndim + 1))
    rows = jnp.broadcast_to(values[None], (number, *values.shape))
    return own & jnp.ones_like(rows, dtype=bool)  # ones_like keeps the sharding of the values.


def _partners_score_weights(
    bound: Bound, weigh: Weigh, draws: LogWeights, partners: LogWeights
) -> Array:
    """s~, [K, *batch]: `score_weights` of each draw's partner among the other draws."""
    rows = jax.vmap(lambda row: score_weights(bound, weigh, row))(replaced_each(draws, partners))
    return jnp.sum(jnp.where(is_own(draws.log_w), rows, jnp.zeros_like(rows)), axis=1)
