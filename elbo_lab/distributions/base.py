"""The protocol of distributions, and hierarchies of stochastic layers.

A distribution, anywhere in this project, is an object with `sample(key, sample_shape)` and
`log_prob(z)`, usually one of NumPyro's. Batch dimensions of a draw trail its sample dimensions.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import chex
import jax
from jax import Array

from elbo_lab.losses.posteriors import Layered, sample_from


class Distribution(Protocol):
    """Methods that `elbo_lab.losses` needs of a posterior; a prior needs `log_prob` only."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws [*sample_shape, *batch, ...]."""

    def log_prob(self, value: Any) -> Array:
        """Log density of values [*any, *batch, ...], nats, [*any, *batch]."""


class Chain(Layered):
    """A hierarchy of stochastic layers: z = (z_1, ..., z_n), a tuple ordered from the data up.

    log p(z) = log first(z_first) + sum_i log conditionals_i(z_{i-1})(z_i).

    Upwards (an inference network), z_1 ~ first and z_i ~ conditionals[i-2](z_{i-1}). Downwards
    (a prior), z_n ~ first and z_{i-1} is drawn given z_i; the tuple keeps its order.

    Args:
      first: distribution of the first layer drawn, batch shape [*batch] or ().
      conditionals: functions from one layer's value [*any, L_i] to the next one's distribution,
        batch shape [*any], in the order of drawing.
      downwards: True if the first layer drawn is z_n (a prior), False if it is z_1.
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
        z = [sample_from(self.first, keys[0], sample_shape)]
        for layer_key, conditional in zip(keys[1:], self.conditionals, strict=True):
            z.append(sample_from(conditional(z[-1]), layer_key, ()))
        return tuple(reversed(z)) if self.downwards else tuple(z)

    def log_prob(self, value: tuple[Array, ...]) -> Array:
        """Log density of a tuple of values, nats, [*any, *batch]."""
        drawn = tuple(reversed(value)) if self.downwards else tuple(value)
        layers = self._layers(drawn)
        log_probs = [layer.log_prob(z) for layer, z in zip(layers, drawn, strict=True)]
        # A layer with batch instead of event dimensions would be broadcast silently.
        chex.assert_equal_rank(log_probs)
        return sum(log_probs)

    def layers(self, value: tuple[Array, ...]) -> tuple[Distribution, ...]:
        """Each layer's distribution given the layer before it in `value`, from the data up."""
        if self.downwards:
            return tuple(reversed(self._layers(tuple(reversed(value)))))
        return self._layers(value)

    def _layers(self, drawn: tuple[Array, ...]) -> tuple[Distribution, ...]:
        """Each layer's distribution, in the order of drawing."""
        pairs = zip(self.conditionals, drawn[:-1], strict=True)
        return (self.first, *(conditional(z) for conditional, z in pairs))
