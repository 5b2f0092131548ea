"""Heads: the outputs of a network of z that p(x|z) is made of, for every kind of network."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class Head(NamedTuple):
    """One output of a network: a number for each coordinate of x, several, or one for all."""

    name: str  # of its layer, or of its number, among the parameters
    start: float = 0.0  # initial value of its bias, or of its number
    zero_weights: bool = False  # True: its weights start at zero, and its output at its bias
    shared: bool = False  # True: one learned number for all coordinates and all z, and no layer
    # Numbers in all; None: one for each coordinate. For images a multiple of the number of pixels:
    # all numbers of the first pixel come first.
    size: int | None = None


def outputs(
    module: nn.Module, heads: Sequence[Head], layer: Callable[[Head], Array], rows: int
) -> tuple[Array, ...]:
    """The outputs of all heads, inside the `@nn.compact` call of `module`.

    Args:
      module: the network; the numbers of shared heads are its parameters.
      heads: in the order in which the outputs are returned.
      layer: head -> its output [rows, size], by a layer with the head's name.
      rows: the number of rows of z.

    Returns:
      For each head [rows, size], size being D if the head states none, or [rows, 1] if it is
      shared.
    """

    def output(head: Head) -> Array:
        if not head.shared:
            return layer(head)
        number = module.param(head.name, nn.initializers.constant(head.start), (1,))
        return jnp.broadcast_to(number, (rows, 1))

    return tuple(output(head) for head in heads)
