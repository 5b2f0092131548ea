"""Fully connected networks (Flax linen), and blocks that other networks share."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.models.networks.heads import Head, outputs

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
}

# The standard deviation sigma > 0 of q as a function of a linear layer's output s (textbook 13.10
# and the remark below it).
SCALES: dict[str, Callable[[Array], Array]] = {
    "log_std": jnp.exp,
    "log_var": lambda s: jnp.exp(0.5 * s),
    "softplus_var": lambda s: jnp.sqrt(jax.nn.softplus(s)),
}

GLOROT = nn.initializers.glorot_uniform()


def drawn_alike(key: Array, params: Any) -> Any:
    """Parameters whose weight matrices [inputs, outputs] are all drawn anew by the same key.

    As in the public code of Burda et al. (2016): all matrices are filled from the same stream of
    numbers, each at its Glorot scale.
    """
    return jax.tree.map(
        lambda p: GLOROT(jax.random.clone(key), p.shape, p.dtype) if p.ndim == 2 else p, params
    )


# Initializations: (key, parameters that Flax drew layer by layer) -> parameters.
INITS: dict[str, Callable[[Array, Any], Any]] = {
    "glorot": lambda key, params: params,
    "glorot_same_key": drawn_alike,
}


def dense(features: int, name: str) -> nn.Dense:
    """Linear layer, Glorot-uniform weights, zero bias."""
    return nn.Dense(features, kernel_init=GLOROT, name=name)


def linear(head: Head, size: int | None = None) -> nn.Dense:
    """Linear layer of a head: Glorot-uniform or zero weights, its bias at the head's start.

    Args:
      head: that is not shared.
      size: its outputs, if the head states none.
    """
    kernel = nn.initializers.zeros_init() if head.zero_weights else GLOROT
    start = nn.initializers.constant(head.start)
    return nn.Dense(head.size or size, kernel_init=kernel, bias_init=start, name=head.name)


class MLP(nn.Module):
    """Fully connected hidden layers: [*batch, D] -> [*batch, hidden_dims[-1]]."""

    hidden_dims: Sequence[int]
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.hidden_dims):
            x = ACTIVATIONS[self.activation](dense(width, f"hidden_{i}")(x))
        return x


def by_rows(call: Callable) -> Callable:
    """Calls a network of rows [rows, D] on any leading dimensions [*batch, D], and restores them.

    Matrix products of rank 2 are faster than those of [K, B, D] (by a quarter at K = 50 on a CPU).
    """

    def flattened(self, x: Array):
        rows = x.reshape(-1, x.shape[-1])
        return jax.tree.map(lambda y: y.reshape(*x.shape[:-1], *y.shape[1:]), call(self, rows))

    return flattened


def gaussian_outputs(
    h: Array, features: int, scale: str, heads: Sequence[Head]
) -> tuple[Array, ...]:
    """The parameters of a Gaussian by linear heads, inside an `@nn.compact` call.

    Args:
      h: features of a network, [*batch, any].
      features: L.
      scale: one of SCALES.
      heads: further outputs, each with a size.

    Returns:
      mean and standard deviation, each [*batch, L], then [*batch, size] for each of the heads.
    """
    mean, raw_scale = dense(features, "mean")(h), dense(features, "scale")(h)
    return mean, SCALES[scale](raw_scale), *(linear(head)(h) for head in heads)


class GaussianMLP(nn.Module):
    """MLP with linear heads, the parameters of a Gaussian (textbook 13.6 to 13.10).

    [*batch, D] -> mean and standard deviation, each [*batch, features], and what the further heads
    give, [*batch, size] each (`models.posteriors`).
    """

    features: int
    hidden_dims: Sequence[int]
    activation: str = "tanh"
    scale: str = "log_std"
    heads: Sequence[Head] = ()

    @nn.compact
    @by_rows
    def __call__(self, x: Array) -> tuple[Array, ...]:
        h = MLP(self.hidden_dims, self.activation, name="trunk")(x)
        return gaussian_outputs(h, self.features, self.scale, self.heads)


class DecoderMLP(nn.Module):
    """MLP with linear heads, the outputs that define p(x|z) (textbook 13.17).

    [*batch, L] -> for each head [*batch, size], size being data_dim if the head states none, or
    [*batch, 1] if it is shared.
    """

    data_dim: int
    hidden_dims: Sequence[int]
    heads: Sequence[Head]
    activation: str = "tanh"

    @nn.compact
    @by_rows
    def __call__(self, z: Array) -> tuple[Array, ...]:
        h = MLP(self.hidden_dims, self.activation, name="trunk")(z)

        def layer(head: Head) -> Array:
            return linear(head, self.data_dim)(h)

        return outputs(self, self.heads, layer, len(z))


class CriticMLP(nn.Module):
    """MLP and a linear layer to one number: [*batch, D] -> [*batch, 1]."""

    hidden_dims: Sequence[int]
    activation: str = "tanh"

    @nn.compact
    @by_rows
    def __call__(self, x: Array) -> Array:
        h = MLP(self.hidden_dims, self.activation, name="trunk")(x)
        return dense(1, "value")(h)


def gaussian(mean: Array, scale: Array) -> dist.Distribution:
    """Diagonal Gaussian with event [L], from mean and standard deviation [*batch, L]."""
    return dist.Normal(mean, scale).to_event(1)
