"""Gradient estimators that relax binary draws: Gumbel-softmax, straight-through, REBAR.

With u ~ U(0, 1) and the temperature t, the relaxation of the draw 1[u < sigmoid(logits)] is the
binary Concrete draw

    y = sigmoid((logits - log(u / (1 - u))) / t),     1[y > 1/2] = 1[u < sigmoid(logits)],

(Maddison, Mnih and Teh 2017; Jang, Gu and Poole 2017), which has a derivative by the logits.

The log-weights at y are those of the discrete model, with log p(x|z), log p(z) and log q(z|x)
computed at z = y: log q(y|x) is sum_l y_l log q_l(1) + (1 - y_l) log q_l(0), which is a mass where
y is binary, and is not the density of y. So the function f alone is relaxed: at binary z it is the
bound's, p(z) needs no relaxed counterpart, and REBAR, whose control variate is f at y, is unbiased
whatever f is between the binary points. Prior and likelihood must take values between 0 and 1, and
have a derivative there.

The loss has f's value at the binary draws, and prior and likelihood follow it there without bias:
y serves the inference network alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.losses import binary_draws
from elbo_lab.losses.antithetic_estimators import replaced_each
from elbo_lab.losses.derivatives import (
    derivative,
    evaluate,
    once_differentiable,
    scale_gradient,
    with_gradient_of,
)
from elbo_lab.losses.log_means import is_known
from elbo_lab.losses.path_estimators import Bound, Weigh, weighed
from elbo_lab.losses.weights import (
    LogWeights,
    Problem,
    densities,
    freeze_model,
    traced_once,
)

TEMPERATURE = 0.5


def gumbel_softmax(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    temperature: Array | float = TEMPERATURE,
) -> tuple[Array, LogWeights]:
    """Gumbel-softmax gradient: the inference network follows f at relaxed draws, through the draws
    and through log q (Maddison, Mnih and Teh 2017; Jang, Gu and Poole 2017).

    **Biased** for the inference network, the less the lower the temperature, while the variance
    rises as it falls (docs/bounds.md has numbers). In a hierarchy, a relaxed layer is drawn given
    relaxed ones. Densities are evaluated 2 K times. First derivatives only.

    Args:
      temperature: of the relaxation, > 0. To set it, give the objective
        functools.partial(gumbel_softmax, temperature=t) as its `estimator`.

    Raises:
      ValueError: a temperature that is not positive; a posterior that is not of independent
        Bernoulli variables, in one layer or in a hierarchy that is drawn from the data up.
    """
    _check_temperature(temperature)
    binary_draws.check_binary("gumbel_softmax", problem)
    problem = traced_once(problem)
    u = binary_draws.uniform_noise(key, problem)
    loss, draws = _loss_at_binary_draws(problem, u, bound, weigh)

    def relax(logits: Array, u: Array) -> Array:
        return relaxed(logits, u, temperature)

    y = binary_draws.draw(problem, u, relax)
    relaxed_problem = freeze_model(binary_draws.between_binary_values(problem))
    moved = densities(relaxed_problem, binary_draws.in_form(problem, y))
    return with_gradient_of(loss, loss - evaluate(bound, weighed(weigh, moved))), draws


def straight_through(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    temperature: Array | float = TEMPERATURE,
) -> tuple[Array, LogWeights]:
    """Straight-through Gumbel-softmax gradient: draws are binary, and have the derivative of their
    relaxation (Jang, Gu and Poole 2017, section 2.2; Bengio, Leonard and Courville 2013).

    **Biased** for the inference network at every temperature (docs/bounds.md has numbers).
    Densities are evaluated K times. First derivatives only.

    Args:
      temperature: as in `gumbel_softmax`.

    Raises:
      ValueError: as `gumbel_softmax`.
    """
    _check_temperature(temperature)
    binary_draws.check_binary("straight_through", problem)
    u = binary_draws.uniform_noise(key, problem)

    def rule(logits: Array, u: Array) -> Array:
        binary = binary_draws.hard(logits, u).astype(logits.dtype)
        return with_gradient_of(binary, relaxed(logits, u, temperature))

    z = binary_draws.draw(problem, u, rule)
    draws = densities(problem, binary_draws.in_form(problem, z))
    return once_differentiable(-evaluate(bound, weighed(weigh, draws))), draws


def rebar(
    key: Array,
    problem: Problem,
    bound: Bound,
    weigh: Weigh,
    temperature: Array | float = TEMPERATURE,
) -> tuple[Array, LogWeights]:
    """REBAR gradient: the score function's, with f at relaxed draws as its control variate (Tucker,
    Mnih, Maddison, Lawson and Sohl-Dickstein 2017), of scale 1 and fixed temperature.

    One draw is relaxed at a time, the other K - 1 are held binary. With f(y_k) the bound where y_k
    stands for z_k, the inference network follows

        sum_k (f - f(y_k) + df / d log q(z_k)) d log q(z_k) + df(y_k) / dy_k (dy_k - dy'_k),

    where y'_k is a relaxed draw given z_k. Their noise is tied (the paper's appendix), so that both
    have the same value. They differ in their derivative by the logits: that of the logistic
    variable g in y = sigmoid(g / t) is 1 for y, and q(z) (1 - exp(-|g|)) for y'. From
    df / d log q(z_k) its value for equal weights is subtracted, a constant, which changes no
    expectation.

    Unbiased for every bound and temperature, and any K. Densities are evaluated 2 K times. First
    derivatives only.

    Args:
      temperature: as in `gumbel_softmax`.

    Raises:
      ValueError: as `gumbel_softmax`; a hierarchy.
    """
    _check_temperature(temperature)
    binary_draws.check_binary("rebar", problem, several_layers=False)
    problem = traced_once(problem)
    u = binary_draws.uniform_noise(key, problem)
    loss, draws = _loss_at_binary_draws(problem, u, bound, weigh)
    held = jax.lax.stop_gradient(draws)

    def relax(logits: Array, u: Array) -> Array:
        g = logits - _logit(u)
        mass = jax.nn.sigmoid(jnp.where(g > 0, logits, -logits))  # q(z)
        ratio = 1 + mass * jnp.expm1(-jnp.abs(g))
        return relaxed(scale_gradient(logits, jax.lax.stop_gradient(ratio)), u, temperature)

    y = binary_draws.in_form(problem, binary_draws.draw(problem, u, relax))
    relaxed_problem = freeze_model(binary_draws.between_binary_values(problem))
    moved = replaced_each(held, densities(relaxed_problem, y, freeze_posterior=True))
    f_at_y = jax.vmap(lambda row: evaluate(bound, weighed(weigh, row)))(moved)  # [K, *batch]
    f = evaluate(bound, weighed(weigh, held))
    signal = jax.lax.stop_gradient(f[None] - f_at_y + _centred_slope(bound, weigh, held))
    score_part = jnp.sum(signal * draws.log_qz_x + f_at_y, axis=0)
    return with_gradient_of(loss, loss - score_part), draws


def relaxed(logits: Array, u: Array, temperature: Array | float) -> Array:
    """Binary Concrete draws y in (0, 1) by noise u ~ U(0, 1), elementwise."""
    return jax.nn.sigmoid((logits - _logit(u)) / jnp.asarray(temperature, logits.dtype))


def _logit(u: Array) -> Array:
    """log(u / (1 - u)) of noise in [0, 1); finite at 0."""
    u = jnp.maximum(u, jnp.finfo(u.dtype).tiny)
    return jnp.log(u) - jnp.log1p(-u)


def _loss_at_binary_draws(
    problem: Problem, u: tuple[Array, ...], bound: Bound, weigh: Weigh
) -> tuple[Array, LogWeights]:
    """-f with the gradient of prior and likelihood alone, [*batch], and its draws."""
    z = jax.lax.stop_gradient(binary_draws.draw(problem, u, binary_draws.hard))
    draws = densities(problem, binary_draws.in_form(problem, z))
    held = jax.lax.stop_gradient(draws.log_qz_x)
    return -evaluate(bound, weigh(draws.log_px_z, draws.log_pz, held)), draws


def _centred_slope(bound: Bound, weigh: Weigh, draws: LogWeights) -> Array:
    """df / d log q(z_k) minus its value where all v_k are 1 / K, [K, *batch]."""

    def by_log_q(log_qz_x: Array) -> Array:
        return weigh(draws.log_px_z, draws.log_pz, log_qz_x)

    log_w, slope = jax.jvp(by_log_q, (draws.log_qz_x,), (jnp.ones_like(draws.log_qz_x),))
    return slope * (derivative(bound, log_w) - 1 / log_w.shape[0])


def _check_temperature(temperature: Array | float) -> None:
    if np.shape(temperature) != () or (is_known(temperature) and not temperature > 0):
        raise ValueError(f"temperature must be one number above 0; got {temperature}.")
