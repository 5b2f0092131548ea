"""What a network of z puts out for p(x|z), whatever the network is made of."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class Head(NamedTuple):
    """One output of a network: a number for each coordinate of x, or one number for all."""

    name: str  # the name among the parameters of its layer, or of the number
    start: float = 0.0  # where its bias starts, or the number
    zero_weights: bool = False  # whether its weights start at zero: at first the output is its bias
    shared: bool = False  # one learned number for all coordinates and all z, and no layer


def outputs(
    module: nn.Module, heads: Sequence[Head], layer: Callable[[Head], Array], rows: int
) -> tuple[Array, ...]:
    """The outputs of all heads, inside the `@nn.compact` call of `module`.

    Args:
      module: the network, which holds the numbers that are shared.
      heads: in the order in which the outputs are returned.
      layer: head -> its output [rows, D], by a layer of the head's name.
      rows: the number of rows of z.

    Returns:
      For each head [rows, D], or [rows, 1] if it is shared.
    """

    def output(head: Head) -> Array:
        if not head.shared:
            return layer(head)
        number = module.param(head.name, nn.initializers.constant(head.start), (1,))
        return jnp.broadcast_to(number, (rows, 1))

    return tuple(output(head) for head in heads)
