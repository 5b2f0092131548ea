"""Networks of texts: stacked gated convolutions (Dauphin et al. 2017), and decoders to characters.

A gated convolution is a linear one times the sigmoid of another of the same shape, their equation
(1), h = (X W + b) sigmoid(X V + c). Layers add it to their input.

The causal decoder is computed for whole texts, or position by position as a sampler needs it:
`start`, then `position` for each of them. Between these a state holds what later positions see.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from elbo_lab.models.networks.heads import Head
from elbo_lab.models.networks.mlp import ACTIVATIONS, GLOROT, by_rows, dense, gaussian_outputs
from elbo_lab.models.networks.pixels import moved_on

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
        """Features h, and features [rows, 2 width] of a condition that all positions share.

        A causal one takes positions in parts: `before` has the features of the positions before
        those of h, [rows, kernel_size - 1, width]; None: there are none.
        """
        width, size = h.shape[-1], self.kernel_size
        kernel = self.param("kernel", GLOROT, (size, width, 2 * width))
        bias = self.param("bias", nn.initializers.zeros_init(), (2 * width,))
        # The positions under the kernel, side by side: one matrix product is the fastest on a CPU.
        if before is None:
            left = size - 1 if self.causal else size // 2
            padded = jnp.pad(h, ((0, 0), (left, size - 1 - left), (0, 0)))
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


class CausalState(NamedTuple):
    """What a causal decoder keeps between positions."""

    conditions: list[Array]  # what z adds to each layer, [rows, 2 width]
    latents: Array  # what z adds to the logits' features, [rows, width]
    is_seen: Array | None  # [rows, T]; None: all tokens are seen
    before: list[Array]  # each layer's inputs at the positions before, [rows, kernel - 1, width]


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
        # Position t sees the token before it; the first one sees none.
        vectors = jnp.pad(self._embedded(tokens, is_seen), ((0, 0), (1, 0), (0, 0)))[:, :-1]
        h = self.features(vectors + self.positions)
        for layer, condition in zip(self.layer, self.conditions, strict=True):
            h = layer(h, condition(z))
        return self._outputs(h, self.latents(z))

    def start(self, z: Array, is_seen: Array | None = None) -> CausalState:
        """The state before the first position."""
        before = jnp.zeros((len(z), self.kernel_size - 1, self.width))
        conditions = [condition(z) for condition in self.conditions]
        return CausalState(conditions, self.latents(z), is_seen, self.layers * [before])

    def position(
        self, state: CausalState, tokens: Array, t: Array | int
    ) -> tuple[Array, CausalState]:
        """The logits [rows, 1, levels] of token t, and the state before the next position.

        Args:
          state: before position t.
          tokens: [rows, T]; those before t matter alone.
          t: an integer [].
        """
        last = jnp.maximum(t - 1, 0)
        token = lax.dynamic_slice_in_dim(tokens, last, 1, axis=1)
        is_seen = jnp.broadcast_to(t > 0, token.shape)
        if state.is_seen is not None:
            is_seen &= lax.dynamic_slice_in_dim(state.is_seen, last, 1, axis=1)
        vectors = self._embedded(token, is_seen)
        h = self.features(vectors + lax.dynamic_slice_in_dim(self.positions, t, 1))
        after = []
        for layer, condition, before in zip(
            self.layer, state.conditions, state.before, strict=True
        ):
            after.append(moved_on(before, h, axis=1))
            h = layer(h, condition, before)
        return self._outputs(h, state.latents), state._replace(before=after)

    def _embedded(self, tokens: Array, is_seen: Array | None) -> Array:
        vectors = self.tokens[tokens]
        return vectors if is_seen is None else jnp.where(is_seen[..., None], vectors, 0)

    def _outputs(self, h: Array, latents: Array) -> Array:
        """Logits [rows, positions, levels] of features [rows, positions, width]."""
        rows, length, width = h.shape
        y = self.logits((h + latents[:, None]).reshape(rows * length, width))
        return y.reshape(rows, length, self.levels)
