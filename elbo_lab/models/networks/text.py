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
    def __call__(
        self, h: Array, condition: Array | None = None, before: Array | None = None
    ) -> Array:
        """The features after the layer.

        Args:
          h: features of all positions, or of those after `before`.
          condition: features [rows, 2 width] that all positions share.
          before: features of the positions before h, [rows, kernel_size - 1, width], of a causal
            layer that is computed in steps; None: there are none.
        """
        width, size = h.shape[-1], self.kernel_size
        kernel = self.param("kernel", GLOROT, (size, width, 2 * width))
        bias = self.param("bias", nn.initializers.zeros_init(), (2 * width,))
        # The positions under the kernel, side by side: one matrix product is the fastest on a CPU.
        if before is None:
            first = size - 1 if self.causal else size // 2
            padded = jnp.pad(h, ((0, 0), (first, size - 1 - first), (0, 0)))
        else:
            padded = jnp.concatenate([before, h], axis=1)
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
    length: int
    embedding_dim: int
    width: int
    layers: int
    kernel_size: int

    def setup(self):
        start = nn.initializers.normal(_EMBEDDING_SCALE)
        self.tokens = self.param("tokens", start, (self.levels, self.embedding_dim))
        self.positions = self.param("positions", start, (self.length, self.embedding_dim))
        self.features = dense(self.width, "features")
        self.layer = [GatedConvolution(self.kernel_size, causal=True) for _ in range(self.layers)]
        self.conditions = [
            nn.Dense(2 * self.width, use_bias=False, name=f"latents_{i}")
            for i in range(self.layers)
        ]
        self.latents = nn.Dense(self.width, use_bias=False)
        self.logits = dense(self.levels, "logits")

    def __call__(self, tokens: Array, z: Array, is_seen: Array | None = None) -> Array:
        rows, length = tokens.shape
        vectors = self.tokens[tokens]
        if is_seen is not None:
            vectors = jnp.where(is_seen[..., None], vectors, 0)
        # Position t sees the token before it; the first one sees none.
        vectors = jnp.pad(vectors, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        h = self.features(vectors + self.positions)
        for layer, condition in zip(self.layer, self.conditions, strict=True):
            h = layer(h, condition(z))
        h = h + self.latents(z)[:, None]
        h = h.reshape(rows * length, self.width)
        return self.logits(h).reshape(rows, length, self.levels)

    def start(self, rows: int) -> list[Array]:
        """The state before the first position: features of each layer's input at the positions
        before, [rows, kernel_size - 1, width].
        """
        return [jnp.zeros((rows, self.kernel_size - 1, self.width)) for _ in range(self.layers)]

    def step(
        self, state: list[Array], tokens: Array, z: Array, position: Array
    ) -> tuple[Array, list[Array]]:
        """The logits [rows, levels] of one position, and the state before the next one.

        Args:
          state: before the position.
          tokens: [rows, T]; those before the position matter alone.
          z: [rows, L].
          position: [], an integer.
        """
        last = lax.dynamic_slice_in_dim(tokens, jnp.maximum(position - 1, 0), 1, axis=1)
        vectors = jnp.where(position > 0, self.tokens[last], 0)
        h = self.features(vectors + lax.dynamic_slice_in_dim(self.positions, position, 1))
        after = []
        for layer, condition, before in zip(self.layer, self.conditions, state, strict=True):
            after.append(jnp.concatenate([before, h], axis=1)[:, 1:])
            h = layer(h, condition(z), before)
        return self.logits(h[:, 0] + self.latents(z)), after
