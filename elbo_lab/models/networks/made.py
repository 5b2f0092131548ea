"""Masked fully connected networks: output i depends on inputs before i alone (MADE, Germain et al.
2015).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.models.networks.mlp import ACTIVATIONS, GLOROT


class MADE(nn.Module):
    """Values [*any, L] -> `num_outputs` arrays [*any, L]; output i of each depends on the values
    1, ..., i - 1, and on the whole context.

    The outputs' weights start at zero, and the outputs at `starts`.

    Args:
      hidden_dims: widths of the hidden layers, at least one.
      starts: the start of each output's bias; their number is that of the outputs.
      activation: one of ACTIVATIONS.
    """

    hidden_dims: Sequence[int]
    starts: Sequence[float]
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> tuple[Array, ...]:
        """The outputs.

        Args:
          x: [*any, *batch, L].
          context: [*batch, hidden_dims[0]], added to the first hidden layer before its activation.
        """
        size = x.shape[-1]
        order = np.arange(1, size + 1)
        rows, degrees = x.reshape(-1, size), order
        for i, width in enumerate(self.hidden_dims):
            # A unit of degree d sees the values 1, ..., d. Those of degree 0 see the context alone.
            own = np.arange(width) * size // width  # spread evenly over 0, ..., L - 1
            rows = masked_dense(self, f"hidden_{i}", rows, degrees[:, None] <= own[None])
            if i == 0 and context is not None:
                features = rows.reshape(*x.shape[:-1], width) + context
                rows = features.reshape(-1, width)
            rows, degrees = ACTIVATIONS[self.activation](rows), own
        outputs = []
        for i, start in enumerate(self.starts):
            mask = degrees[:, None] < order[None]
            output = masked_dense(self, f"output_{i}", rows, mask, nn.initializers.zeros_init())
            outputs.append((output + start).reshape(x.shape))
        return tuple(outputs)


def masked_dense(
    module: nn.Module,
    name: str,
    rows: Array,
    mask: np.ndarray,
    kernel_init: nn.initializers.Initializer = GLOROT,
) -> Array:
    """A linear layer of `module`, rows [rows, inputs] -> [rows, outputs], its weights multiplied by
    a constant mask [inputs, outputs]; inside an `@nn.compact` call.
    """
    kernel = module.param(f"{name}_kernel", kernel_init, mask.shape)
    bias = module.param(f"{name}_bias", nn.initializers.zeros_init(), mask.shape[1:])
    return rows @ (kernel * jnp.asarray(mask, kernel.dtype)) + bias
