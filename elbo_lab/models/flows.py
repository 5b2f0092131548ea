"""Flows whose maps are networks: q(z|x) by inverse autoregressive steps, p(z) by steps of choice.

Every step starts as the identity, up to the gate of the inverse autoregressive one, and the order
of the values is reversed between two steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.distributions.flows import (
    Bijection,
    affine_coupling,
    autoregressive,
    inverted,
    reverse,
    spline_coupling,
)
from elbo_lab.models.base import Params
from elbo_lab.models.networks import MADE, MLP

# Start of the gates of inverse autoregressive steps before the sigmoid: nearly open (Kingma et al.
# 2016, section 4, "+1 or +2").
_GATE = 2.0
# Bounds of log scales. Without them one step of training may overflow exp.
_MOST_LOG_SCALE = 3.0
# Bins and range of rational-quadratic splines. Nearly all mass of N(0, I) lies inside.
_BINS, _BOUND = 8, 5.0


class Step(NamedTuple):
    """One map of a flow, as pure functions."""

    init: Callable[[Array], Params]
    """key -> parameters."""

    bijection: Callable[..., Bijection]
    """(parameters, context [*batch, H] or None) -> the map."""


def init(step: Step, depth: int, key: Array) -> Params:
    """The parameters of `depth` steps in turn."""
    keys = jax.random.split(key, depth)
    return {_name(i): step.init(step_key) for i, step_key in enumerate(keys)}


def bijections(
    step: Step, params: Params, contexts: Sequence[Array | None]
) -> tuple[Bijection, ...]:
    """The maps of a flow, in the order of application: steps with reversals between them.

    Args:
      step: the kind of all steps.
      params: as `init` gives them.
      contexts: of each step.
    """
    maps = []
    for i, context in enumerate(contexts):
        maps += [reverse()] if i else []
        maps.append(step.bijection(params[_name(i)], context))
    return tuple(maps)


def iaf(size: int, hidden_dims: Sequence[int], activation: str) -> Step:
    """The gated inverse autoregressive step, z = s y + (1 - s) m, s = sigmoid(gate), with m and the
    gate from a masked network of y and the context (Kingma et al. 2016, equation 14).

    Args:
      size: L.
      hidden_dims: of the masked network; the context has hidden_dims[0] values.
      activation: of its hidden layers.
    """
    network = MADE(hidden_dims, (0.0, _GATE), activation)

    def start(key: Array) -> Params:
        return network.init(key, jnp.zeros(size), jnp.zeros(hidden_dims[0]))["params"]

    def bijection(params: Params, context: Array | None) -> Bijection:
        def conditioner(y: Array) -> tuple[Array, Array]:
            mean, gate = network.apply({"params": params}, y, context)
            return jax.nn.sigmoid(-gate) * mean, jax.nn.log_sigmoid(gate)

        return autoregressive(conditioner)

    return Step(start, bijection)


def maf(size: int, hidden_dims: Sequence[int], activation: str) -> Step:
    """The masked autoregressive step, y = exp(a) z + m with a and m from a masked network of z: one
    pass for the density of z, L passes in turn for a draw (Papamakarios et al. 2017, equation 4).
    """
    network = MADE(hidden_dims, (0.0, 0.0), activation)

    def start(key: Array) -> Params:
        return network.init(key, jnp.zeros(size))["params"]

    def bijection(params: Params, context: Array | None) -> Bijection:
        def conditioner(z: Array) -> tuple[Array, Array]:
            shift, raw = network.apply({"params": params}, z, context)
            return shift, bounded(raw)

        return inverted(autoregressive(conditioner))

    return Step(start, bijection)


def affine(size: int, hidden_dims: Sequence[int], activation: str, context_size: int = 0) -> Step:
    """The affine coupling of the last L - L // 2 values by the first, and by a context of
    `context_size` values if there is one (Dinh et al. 2017).
    """
    second = size - size // 2
    network = _Conditioner(hidden_dims, 2 * second, activation)

    def bijection(params: Params, context: Array | None) -> Bijection:
        def conditioner(first: Array) -> tuple[Array, Array]:
            inputs = [first]
            if context is not None:
                inputs.append(jnp.broadcast_to(context, (*first.shape[:-1], context_size)))
            outputs = network.apply({"params": params}, jnp.concatenate(inputs, axis=-1))
            shift, raw = jnp.split(outputs, 2, axis=-1)
            return shift, bounded(raw)

        return affine_coupling(conditioner, size)

    return Step(_start(network, size // 2 + context_size), bijection)


def spline(size: int, hidden_dims: Sequence[int], activation: str) -> Step:
    """The coupling of the last L - L // 2 values by the first through rational-quadratic splines of
    8 bins on [-5, 5] (Durkan et al. 2019).
    """
    second, numbers = size - size // 2, 3 * _BINS - 1
    network = _Conditioner(hidden_dims, second * numbers, activation)

    def bijection(params: Params, context: Array | None) -> Bijection:
        def conditioner(first: Array) -> Array:
            outputs = network.apply({"params": params}, first)
            return outputs.reshape(*outputs.shape[:-1], second, numbers)

        return spline_coupling(conditioner, size, _BINS, _BOUND)

    return Step(_start(network, size // 2), bijection)


def bounded(raw: Array) -> Array:
    """A log scale in (-3, 3); near 0 the raw output itself."""
    return _MOST_LOG_SCALE * jnp.tanh(raw / _MOST_LOG_SCALE)


# Steps of --prior=flow, the default first.
PRIOR_STEPS: dict[str, Callable[[int, Sequence[int], str], Step]] = {
    "maf": maf,
    "affine": affine,
    "spline": spline,
}


class _Conditioner(nn.Module):
    """MLP [*any, inputs] -> [*any, outputs] whose outputs start at zero."""

    hidden_dims: Sequence[int]
    outputs: int
    activation: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # L = 1 has no inputs: a zero in their place leaves the biases, which do not depend on it.
        rows = (
            x.reshape(-1, x.shape[-1]) if x.shape[-1] else jnp.zeros((math.prod(x.shape[:-1]), 1))
        )
        rows = MLP(self.hidden_dims, self.activation, name="trunk")(rows)
        zeros = nn.initializers.zeros_init()
        y = nn.Dense(self.outputs, kernel_init=zeros, name="outputs")(rows)
        return y.reshape(*x.shape[:-1], self.outputs)


def _start(network: _Conditioner, inputs: int) -> Callable[[Array], Any]:
    return lambda key: network.init(key, jnp.zeros(inputs))["params"]


def _name(i: int) -> str:
    return f"step_{i + 1}"
