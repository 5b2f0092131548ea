"""What NumPyro's distributions lack: hierarchies, and a fast Bernoulli over pixels.

A distribution, anywhere in this project, is an object with `sample(key, sample_shape)` and
`log_prob(z)`; NumPyro's are the rule. Batch dimensions of a draw trail its sample dimensions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.custom_derivatives import SymbolicZero
from numpyro.distributions import constraints


class Distribution(Protocol):
    """What `elbo_lab.losses` asks of a posterior; of a prior it asks `log_prob` alone."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws [*sample_shape, *batch, ...]."""

    def log_prob(self, value: Any) -> Array:
        """Log density of values [*any, *batch, ...], nats, [*any, *batch]."""


@jax.custom_jvp
def bernoulli_log_prob(logits: Array, value: Array) -> Array:
    """sum_d log Bernoulli(value_d; sigmoid(logits_d)) over the last axis (textbook 13.16, 13.17).

    x l - max(l, 0) - log(1 + exp(-|l|)), for any finite logit. Two things make it fast: the
    logarithms of a few pixels are taken as one, of their product, which costs no accuracy beyond
    that of the sum over pixels (each factor lies in [1, 2]); and its derivative is given, as
    x - sigmoid(l), instead of being derived from the formula.

    Args:
      logits: [*batch, D].
      value: [*batch, D], 0 or 1 (broadcastable against the logits).

    Returns:
      [*batch], nats.
    """
    size = max(logits.shape[-1], value.shape[-1])
    logits = jnp.broadcast_to(logits, (*logits.shape[:-1], size))
    group = max(g for g in range(1, 9) if size % g == 0)  # a product of 8 is at most 2^8
    factors = 1 + jnp.exp(-jnp.abs(logits))
    products = jnp.prod(factors.reshape(*logits.shape[:-1], group, size // group), axis=-2)
    linear = jnp.sum(value * logits - jnp.maximum(logits, 0), axis=-1)
    return linear - jnp.sum(jnp.log(products), axis=-1)


@functools.partial(bernoulli_log_prob.defjvp, symbolic_zeros=True)
def _bernoulli_log_prob_jvp(primals, tangents):
    logits, value = primals
    logits_dot, value_dot = tangents
    out = bernoulli_log_prob(logits, value)
    out_dot = jnp.zeros_like(out)
    # Symbolic zeros: nothing is computed for a constant, and integer images have no derivative.
    if not isinstance(logits_dot, SymbolicZero):
        out_dot += jnp.sum((value - jax.nn.sigmoid(logits)) * logits_dot, axis=-1)
    if not isinstance(value_dot, SymbolicZero):
        out_dot += jnp.sum(logits * value_dot, axis=-1)
    return out, out_dot


class BernoulliVector(dist.Distribution):
    """Independent Bernoulli variables over the last axis, by logits [*batch, D].

    The same distribution as NumPyro's `BernoulliLogits(logits).to_event(1)`, with
    `bernoulli_log_prob` as its log-probability.
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (*sample_shape, *self.logits.shape)
        return jax.random.bernoulli(key, self.mean, shape).astype(self.logits.dtype)

    def log_prob(self, value: Array) -> Array:
        return bernoulli_log_prob(self.logits, value)

    @property
    def mean(self) -> Array:
        return jax.nn.sigmoid(self.logits)

    @property
    def variance(self) -> Array:
        return self.mean * (1 - self.mean)


class Chain:
    """A hierarchy of stochastic layers: z = (z_1, ..., z_n), a tuple ordered from the data up.

    log p(z) = log first(z_first) + sum_i log conditionals_i(z_{i-1})(z_i).

    Upwards (an inference network), z_1 ~ first and z_i ~ conditionals[i-2](z_{i-1}). Downwards
    (a prior), z_n ~ first and z_{i-1} is drawn given z_i; the tuple keeps its order.

    Args:
      first: distribution of the first layer drawn, batch shape [*batch] or ().
      conditionals: functions from one layer's value [*any, L_i] to the next one's distribution,
        batch shape [*any], in the order of drawing.
      downwards: whether the first layer drawn is z_n (a prior) rather than z_1.
    """

    def __init__(
        self,
        first: Distribution,
        conditionals: Sequence[Callable[[Array], Distribution]],
        downwards: bool = False,
    ):
        self.first = first
        self.conditionals = tuple(conditionals)
        self.downwards = downwards

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, ...]:
        """Draws: a tuple of [*sample_shape, *batch, L_i], ordered from the data up."""
        keys = jax.random.split(key, len(self.conditionals) + 1)
        z = [self.first.sample(keys[0], sample_shape)]
        for layer_key, conditional in zip(keys[1:], self.conditionals, strict=True):
            z.append(conditional(z[-1]).sample(layer_key))
        return tuple(reversed(z)) if self.downwards else tuple(z)

    def log_prob(self, value: tuple[Array, ...]) -> Array:
        """Log density of a tuple of values, nats, [*any, *batch]."""
        drawn = tuple(reversed(value)) if self.downwards else tuple(value)
        layers = self._layers(drawn)
        return sum(layer.log_prob(z) for layer, z in zip(layers, drawn, strict=True))

    def layers(self, value: tuple[Array, ...]) -> tuple[Distribution, ...]:
        """Each layer's distribution given the layer before it in `value`, from the data up."""
        if self.downwards:
            return tuple(reversed(self._layers(tuple(reversed(value)))))
        return self._layers(value)

    def _layers(self, drawn: tuple[Array, ...]) -> tuple[Distribution, ...]:
        given = (
            conditional(z) for conditional, z in zip(self.conditionals, drawn[:-1], strict=True)
        )
        return (self.first, *given)
