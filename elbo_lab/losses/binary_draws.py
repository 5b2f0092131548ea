"""Draws of binary latents as functions of uniform noise, for estimators that use the noise again.

A posterior is a vector of independent Bernoulli variables, or a hierarchy of such layers. With
u ~ U(0, 1) a draw is z = 1[u < sigmoid(logits)]: for `BernoulliVector` and a `Chain` of them the
draw of `sample` by the same key.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses.arguments import typed_key
from elbo_lab.losses.arrays import to_common_float, to_common_rank
from elbo_lab.losses.laws import bernoulli_logits, innermost, law_of
from elbo_lab.losses.posteriors import Layered, sum_trailing
from elbo_lab.losses.weights import Prior, Problem, over_draws, sample

# (logits, u) -> draws, elementwise, [K, *batch, ...] each: booleans, or relaxed ones in (0, 1).
Rule = Callable[[Array, Array], Array]


def hard(logits: Array, u: Array) -> Array:
    """Binary draws, 1[u < sigmoid(logits)], as booleans."""
    return u < jax.nn.sigmoid(logits)


def uniform_noise(key: Array, problem: Problem) -> tuple[Array, ...]:
    """Noise u ~ U(0, 1) of each layer, [K, *batch, ...], in the type of the layer's logits."""
    key, zeros = typed_key(key), _zeros(problem)
    keys = jax.random.split(key, len(zeros)) if _is_layered(problem) else [key]
    logits = jax.eval_shape(lambda: layer_logits(problem, zeros))
    return tuple(
        jax.random.uniform(layer_key, layer.shape, layer.dtype)
        for layer_key, layer in zip(keys, logits, strict=True)
    )


def draw(
    problem: Problem, u: tuple[Array, ...], rule: Rule, first: tuple[Array, ...] = ()
) -> tuple[Array, ...]:
    """Draws of each layer given the layer before it, [K, *batch, ...].

    Binary draws have the type of the posterior's own draws; relaxed ones too if it is floating.

    Args:
      problem: its posterior's layers are drawn.
      u: noise of each layer, [K, *batch, ...].
      rule: gives the draws of a layer from its logits and noise.
      first: draws of the first layers, taken as they are.
    """
    # The values of the layers that are not drawn yet have no part in the logits of the next one.
    z = [*first, *_zeros(problem)[len(first) :]]
    for i in range(len(first), len(u)):
        drawn = rule(layer_logits(problem, tuple(z))[i], u[i])
        is_castable = drawn.dtype == bool or jnp.issubdtype(z[i].dtype, jnp.floating)
        z[i] = drawn.astype(z[i].dtype) if is_castable else drawn
    return tuple(z)


def layer_logits(problem: Problem, z: tuple[Array, ...]) -> tuple[Array, ...]:
    """Logits of each layer given the draws of the layer before it, [K, *batch, ...]."""

    def logits_of(z: Any) -> tuple[Array, ...]:
        return tuple(map(bernoulli_logits, _layers(problem, z)))

    logits = over_draws(problem, logits_of)(in_form(problem, z))
    return tuple(
        jnp.broadcast_to(layer, drawn.shape) for layer, drawn in zip(logits, z, strict=True)
    )


def in_form(problem: Problem, z: tuple[Array, ...]) -> Any:
    """Draws of each layer in the form that the problem's functions take: an array for one layer."""
    return z if _is_layered(problem) else z[0]


def check_binary(name: str, problem: Problem, several_layers: bool = True) -> None:
    """Raises ValueError unless the posterior is one of binary layers, drawn from the data up.

    Args:
      name: the estimator.
      problem: its posterior is checked.
      several_layers: False if the estimator is for one layer alone.
    """
    needs = f'estimator="{name}" needs a posterior of independent Bernoulli variables'
    if _is_layered(problem) and not several_layers:
        raise ValueError(f"{needs} in one layer; got a hierarchy.")
    if getattr(problem.posterior, "downwards", False):
        raise ValueError(f"{needs} in layers drawn from the data up; got layers drawn downwards.")

    def check(z: Any) -> tuple[()]:
        for layer in _layers(problem, z):
            if bernoulli_logits(layer) is None:
                raise ValueError(f"{needs}; got {type(innermost(layer)).__name__}.")
        return ()

    jax.eval_shape(over_draws(problem, check), in_form(problem, _zeros(problem)))


def between_binary_values(problem: Problem) -> Problem:
    """The problem with log masses of Bernoulli variables that are linear between 0 and 1.

    The libraries' own may be -inf there. Priors that are not of Bernoulli variables stay as they
    are.
    """
    posterior, prior = (_linear(q) for q in (problem.posterior, problem.prior))
    return problem._replace(posterior=posterior, prior=prior)


def _is_layered(problem: Problem) -> bool:
    return isinstance(problem.posterior, Layered)


def _layers(problem: Problem, z: Any) -> tuple[Any, ...]:
    return problem.posterior.layers(z) if _is_layered(problem) else (problem.posterior,)


def _zeros(problem: Problem) -> tuple[Array, ...]:
    """Zeros with the shapes and types of each layer's K draws."""
    shapes = jax.eval_shape(lambda: sample(jax.random.key(0), problem))
    shapes = shapes if _is_layered(problem) else (shapes,)
    return tuple(jnp.zeros(shape.shape, shape.dtype) for shape in shapes)


def _linear(distribution: Any) -> Prior:
    def log_prob(z: Any) -> Array:
        if isinstance(distribution, Layered):
            return sum(map(_linear_log_mass, distribution.layers(z), z))
        return _linear_log_mass(distribution, z)

    return Prior(log_prob)


def _linear_log_mass(distribution: Any, z: Array) -> Array:
    logits = bernoulli_logits(distribution)
    if logits is None:
        return distribution.log_prob(z)
    logits, z = to_common_rank(*to_common_float(logits, z))
    return sum_trailing(z * logits - jax.nn.softplus(logits), law_of(distribution).factor_ndims)
