"""Networks of texts: stacked gated convolutions (Dauphin et al. 2017), and decoders to characters.

A gated convolution is a linear one times the sigmoid of another of the same shape, their equation
(1), h = (X W + b) sigmoid(X V + c). Layers add it to their input.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from elbo_lab.models.networks.heads import Head
from elbo_lab.models.networks.mlp import ACTIVATIONS, GLOROT, by_rows, dense, gaussian_outputs

# Standard deviation of the initial embeddings.
_EMBEDDING_SCALE = 0.1


class GatedConvolution(nn.Module):
    """h + (h W + b) sigmoid(h V + c) with W and V convolutions over the positions.

    [rows, T, width] -> [rows, T, width]. A causal one sees a position and those before it, any
    other one as many on either side.

    Args:
      kernel_size: positions that it sees; odd.
      causal: True: all of them but the position itself are before it.
    """

    kernel_size: int
    causal: bool

    @nn.compact
    def __call__(self, h: Array, condition: Array | None = None) -> Array:
        """Features h, and features [rows, 2 width] of a condition that all positions share."""
        width, size = h.shape[-1], self.kernel_size
        before = size - 1 if self.causal else size // 2
        kernel = self.param("kernel", GLOROT, (size, width, 2 * width))
        bias = self.param("bias", nn.initializers.zeros_init(), (2 * width,))
        # The positions under the kernel, side by side: one matrix product is the fastest on a CPU.
        padded = jnp.pad(h, ((0, 0), (before, size - 1 - before), (0, 0)))
        length = h.shape[1]
        columns = [lax.slice_in_dim(padded, i, i + length, axis=1) for i in range(size)]
        windows = jnp.concatenate(columns, axis=-1).reshape(-1, size * width)
        features = (windows @ kernel.reshape(size * width, 2 * width) + bias).reshape(
            -1, length, 2 * width
        )
        if condition is not None:
            features = features + condition[:, None]
        linear, gate = jnp.split(features, 2, axis=-1)
        return h + linear * nn.sigmoid(gate)


class Embedding(nn.Module):
    """A learned vector of each token plus one of each position, as features of the width.

    Tokens [rows, T] -> [rows, T, width].
    """

    levels: int
    embedding_dim: int
    width: int

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        start = nn.initializers.normal(_EMBEDDING_SCALE)
        table = self.param("tokens", start, (self.levels, self.embedding_dim))
        places = self.param("positions", start, (tokens.shape[-1], self.embedding_dim))
        return dense(self.width, "features")(table[tokens] + places)


class TextEncoder(nn.Module):
    """Embedding, gated convolutions, the mean over the positions, and the heads of a Gaussian.

    Tokens [*batch, T] -> mean and standard deviation of z, each [*batch, latent_dim].
    """

    levels: int
    latent_dim: int
    embedding_dim: int
    width: int
    layers: int
    kernel_size: int
    scale: str

    @nn.compact
    @by_rows
    def __call__(self, tokens: Array) -> tuple[Array, ...]:
        h = Embedding(self.levels, self.embedding_dim, self.width, name="embedding")(tokens)
        for i in range(self.layers):
            h = GatedConvolution(self.kernel_size, causal=False, name=f"layer_{i}")(h)
        heads: Sequence[Head] = ()
        return gaussian_outputs(jnp.mean(h, axis=1), self.latent_dim, self.scale, heads)


class PositionwiseDecoder(nn.Module):
    """A layer of its own for each position, then one layer for all of them.

    z [*batch, L] -> logits [*batch, length, levels].
    """

    levels: int
    length: int
    width: int
    activation: str = "tanh"

    @nn.compact
    @by_rows
    def __call__(self, z: Array) -> Array:
        h = dense(self.length * self.width, "positions")(z)
        h = ACTIVATIONS[self.activation](h).reshape(-1, self.width)
        return dense(self.levels, "logits")(h).reshape(-1, self.length, self.levels)


class CausalDecoder(nn.Module):
    """Causal gated convolutions over the tokens before a position, each given z.

    z adds features to the linear part and the gate of every layer, and to the logits' features.
    Tokens [rows, T], z [rows, L], is_seen [rows, T] or None -> logits [rows, T, levels]; the logits
    at t depend on the tokens before t. Tokens that are not seen have the embedding zero.
    """

    levels: int
    embedding_dim: int
    width: int
    layers: int
    kernel_size: int

    @nn.compact
    def __call__(self, tokens: Array, z: Array, is_seen: Array | None = None) -> Array:
        start = nn.initializers.normal(_EMBEDDING_SCALE)
        rows, length = tokens.shape
        table = self.param("tokens", start, (self.levels, self.embedding_dim))
        places = self.param("positions", start, (length, self.embedding_dim))
        vectors = table[tokens]
        if is_seen is not None:
            vectors = jnp.where(is_seen[..., None], vectors, 0)
        # Position t sees the token before it; the first one sees none.
        vectors = jnp.pad(vectors, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        h = dense(self.width, "features")(vectors + places)
        for i in range(self.layers):
            condition = nn.Dense(2 * self.width, use_bias=False, name=f"latents_{i}")(z)
            layer = GatedConvolution(self.kernel_size, causal=True, name=f"layer_{i}")
            h = layer(h, condition)
        h = h + nn.Dense(self.width, use_bias=False, name="latents")(z)[:, None]
        h = h.reshape(rows * length, self.width)
        return dense(self.levels, "logits")(h).reshape(rows, length, self.levels)
