"""Gated masked convolutions: networks whose output at a value depends on earlier values alone.

van den Oord et al. 2016b, "Conditional image generation with PixelCNN decoders". Values are ordered
by row, column and channel. Two stacks of convolutions see what is earlier: the vertical one all
rows above, the horizontal one the left of its row and the vertical one's features; together they
have no blind spot. Kernels are cropped to what they may see, which is faster than a mask over a
whole kernel. Only the channels of the pixel itself need a mask. A label adds a bias of its class to
the features of each gate (their equation 4).

A network is computed for whole images, or in steps, row by row and pixel by pixel, as a sampler
needs it: `start`, then `new_row` for each row and `pixel` for each of its pixels. Between steps a
state holds the features that later pixels see, so that nothing is computed twice.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.data.dataset import Spec
from elbo_lab.models.networks.convolutions import convolve
from elbo_lab.models.networks.mlp import GLOROT, dense
from elbo_lab.models.networks.pixels import (
    grid,
    label_rows,
    moved_on,
    neighbours,
    row_of,
)

# Features of one stack that are computed at once: those of all layers fit a CPU's cache.
CACHED = 2**17


def channel_mask(inputs: int, features: int, channels: int, strict: bool) -> np.ndarray:
    """Mask of a pixel's features: 1 where an output feature may see an input feature, else 0.

    Features are split evenly into one group for each channel of the pixel, in the channels' order.

    Args:
      inputs: number of input features, at least `channels`.
      features: number of output features, at least `channels`.
      channels: C.
      strict: True: a group sees the groups before it (mask A, for inputs that are the pixel
        itself); False: its own group as well (mask B).

    Returns:
      [inputs, features], float32.
    """
    source = np.arange(inputs)[:, None] * channels // inputs
    target = np.arange(features)[None, :] * channels // features
    return (source < target if strict else source <= target).astype(np.float32)


def gate(x: Array) -> Array:
    """tanh(a) sigmoid(b), with a and b the halves of the last axis."""
    a, b = jnp.split(x, 2, axis=-1)
    # sigmoid(b) = (1 + tanh(b / 2)) / 2; tanh costs the least on a CPU.
    return jnp.tanh(a) * (0.5 + 0.5 * jnp.tanh(0.5 * b))


def gradient_batch(spec: Spec, width: int) -> int:
    """Examples whose gradient a step on a CPU computes at once.

    There a step of a PixelCNN is bound by memory: in parts of which each layer's features have the
    size of a cache it takes two thirds of the time (docs/performance.md).
    """
    height, columns, _ = grid(spec.shape)
    return max(1, CACHED // (height * columns * width))


class Masked1x1(nn.Module):
    """Linear layer of each pixel, its weights multiplied by a constant mask.

    [rows, H, W, inputs] -> [rows, H, W, features].
    """

    features: int
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        # Rank 2, in which a matrix product is fastest.
        mask = channel_mask(inputs, self.features, self.channels, strict=False)
        y = x.reshape(-1, inputs) @ (kernel * mask) + bias
        return y.reshape(*x.shape[:-1], self.features)


class Above(nn.Module):
    """Convolution over the rows above, of an image (`first`) or of features that see those rows.

    [rows, H, W, inputs] -> [rows, H, W, features]; `radius` rows above, and as many columns on
    either side. Features see their own row too, since it holds what is above it. In steps H is 1,
    and `before` has the rows above, [rows, radius, W, inputs].
    """

    features: int
    radius: int
    first: bool

    @nn.compact
    def __call__(self, x: Array, before: Array | None = None) -> Array:
        r = self.radius
        own_rows = 0 if self.first else 1
        shape = (r + own_rows, 2 * r + 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        up = r if before is None else 0
        x = x if before is None else jnp.concatenate([before, x], axis=1)
        return convolve(x, kernel, ((up, own_rows - 1), (r, r))) + bias


class Left(nn.Module):
    """Convolution over the pixels to the left and the pixel itself, as far as the mask allows.

    [rows, H, W, inputs] -> [rows, H, W, parts * width], for any H. Each part of the output features
    has one group for each channel. In steps W is 1, and `before` has the pixels to the left,
    [rows, H, radius, inputs].
    """

    width: int
    radius: int
    channels: int
    first: bool
    parts: int = 2

    @nn.compact
    def __call__(self, x: Array, before: Array | None = None) -> Array:
        inputs, parts = x.shape[-1], self.parts
        shape = (1, self.radius + 1, inputs, parts * self.width)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (parts * self.width,))
        mask = np.ones(shape, np.float32)
        mask[0, -1] = np.tile(channel_mask(inputs, self.width, self.channels, self.first), parts)
        left = self.radius if before is None else 0
        x = x if before is None else jnp.concatenate([before, x], axis=2)
        return convolve(x, kernel * mask, ((0, 0), (left, 0))) + bias


class GatedLayer(nn.Module):
    """One layer of both stacks (van den Oord et al. 2016b, figure 2).

    What the gates see beside x, called the label in the methods below, are one-hot labels, or
    features of each pixel, [rows, H, W, any]. `condition` names it in the parameters.
    """

    width: int
    radius: int
    channels: int
    first: bool
    condition: str = "label"
    sees_label: bool = True  # False: the gates see x alone

    def setup(self):
        self.above = Above(2 * self.width, self.radius, self.first)
        self.across = dense(2 * self.width, "across")
        self.left = Left(self.width, self.radius, self.channels, self.first)
        self.out = Masked1x1(self.width, self.channels)
        # They have parameters only where they are called, with labels.
        self.label_above = class_biases(2 * self.width, f"{self.condition}_above")
        self.label_left = class_biases(2 * self.width, f"{self.condition}_left")

    def vertical(
        self, v: Array, label: Array | None, before: Array | None = None
    ) -> tuple[Array, Array]:
        """The vertical stack's features, and their contribution to the horizontal stack."""
        features = self.above(v, before)
        if label is not None and self.sees_label:
            features = features + self.label_above(label)
        return gate(features), self.across(features)

    def horizontal(
        self,
        h: Array,
        from_above: Array | None,
        label: Array | None,
        before: Array | None = None,
    ) -> Array:
        """The horizontal stack's features; all layers but the first add them to their input."""
        features = self.left(h, before)
        if from_above is not None:
            features = features + from_above
        if label is not None and self.sees_label:
            features = features + self.label_left(label)
        update = self.out(gate(features))
        return update if self.first else h + update


def class_biases(features: int, name: str) -> nn.Dense:
    """One vector of features for each class: one-hot labels [..., C] -> [..., features]."""
    return nn.Dense(features, use_bias=False, kernel_init=GLOROT, name=name)


class GatedState(NamedTuple):
    """What a gated PixelCNN keeps between pixels; N examples."""

    rows: list[Array]  # of layers after the first: vertical features above, [N, radius, W, width]
    above: list[Array | None]  # of each layer: what the vertical stack adds, [N, 1, W, 2 * width]
    left: list[Array]  # of layers after the first: features to the left, [N, 1, radius, width]


class RasterNetwork(nn.Module):
    """What a network of values in raster order is whatever lies between its inputs and outputs:
    values [*any, D] -> logits [*any, D], or [*any, D, levels] for levels > 2.

    The inputs are images scaled to [-1, 1], or learned embeddings of tokens; the logits come from
    two 1 x 1 layers. A shape of one axis is a single row, which has no rows above.

    Args:
      spec: kind "image" or "token", one to three axes: (W,), (H, W) or (H, W, C).
      width: features of a layer, at least C.
      layers: their number.
      kernel_size: of the layers after the first, odd.
      first_kernel_size: of the first layer, odd.
      output_width: features between the two 1 x 1 layers at the end, at least C.
      embedding_dim: of a token's embedding.
    """

    spec: Spec
    width: int
    layers: int
    kernel_size: int = 3
    first_kernel_size: int = 7
    output_width: int = 32
    embedding_dim: int = 16

    def setup(self):
        channels, levels = self._grid[2], self.spec.levels
        if self.spec.kind == "token":
            self.embedding = nn.Embed(levels, self.embedding_dim)
        self.hidden = Masked1x1(self.output_width, channels)
        self.logits = Masked1x1(channels * (1 if levels == 2 else levels), channels)

    @property
    def _grid(self) -> tuple[int, int, int]:
        return grid(self.spec.shape)

    def _inputs(self, x: Array) -> Array:
        """Values [*any, D'] of whole rows as inputs [rows, H', W, inputs]."""
        _, width, channels = self._grid
        height = x.shape[-1] // (width * channels)
        values = self.embedding(x) if self.spec.kind == "token" else 2 * x - 1
        return values.reshape(math.prod(x.shape[:-1]), height, width, -1)

    def _outputs(self, features: Array, x: Array) -> Array:
        """Logits of features [rows, H', W', F]: [*any, D'], or [*any, D', levels] for levels > 2,
        for x [*any, D].
        """
        outputs = self.logits(nn.relu(self.hidden(nn.relu(features))))
        levels = () if self.spec.levels == 2 else (self.spec.levels,)
        return outputs.reshape(*x.shape[:-1], -1, *levels)


class GatedPixelCNN(RasterNetwork):
    """Gated PixelCNN: values [*any, D] -> logits [*any, D], or [*any, D, levels] for levels > 2.

    The logits at d are those of x_d given x_1, ..., x_{d-1}, and given the label if there is one.
    Labels are one-hot, [*batch, C], and are broadcast against the leading axes of x.

    Args:
      width: features of each stack; the others are those of `RasterNetwork`.
    """

    # What the gates see beside x, in the names of the parameters.
    _CONDITION = "label"

    def setup(self):
        super().setup()
        self.gated = [
            GatedLayer(
                self.width,
                radius,
                self._grid[2],
                first=i == 0,
                condition=self._CONDITION,
                sees_label=self._sees_label(i),
            )
            for i, radius in enumerate(self._radii)
        ]

    @property
    def _radii(self) -> tuple[int, ...]:
        """The radius of each layer's kernel."""
        return (self.first_kernel_size // 2, *(self.layers - 1) * [self.kernel_size // 2])

    def _sees_label(self, layer: int) -> bool:
        """True if the gates of the layer see the label."""
        return True

    def _condition(
        self,
        label: Array | None,
        x: Array,
        row: Array | int | None = None,
        column: Array | int | None = None,
    ) -> Array | None:
        """What the gates see beside x, [rows, 1, 1, C], at all pixels, of a row, or at a pixel."""
        return label_rows(label, x)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        label, inputs = self._condition(label, x), self._inputs(x)
        v = h = inputs
        for layer in self.gated:
            from_above = None
            if self._grid[0] > 1:
                v, from_above = layer.vertical(v, label)
            h = layer.horizontal(h, from_above, label)
        return self._outputs(h, x)

    def start(self, x: Array) -> GatedState:
        """The state before the first row of images x [*any, D], whose values do not matter."""
        num_rows, columns = self._grid[:2]
        later = [layer.radius for layer in self.gated[1:]]

        def zeros(*shape: int) -> Array:
            return jnp.zeros((math.prod(x.shape[:-1]), *shape))

        left = [zeros(1, radius, self.width) for radius in later]
        if num_rows == 1:
            return GatedState([], [None] * self.layers, left)
        rows = [zeros(radius, columns, self.width) for radius in later]
        return GatedState(rows, [zeros(1, columns, 2 * self.width)] * self.layers, left)

    def new_row(
        self, state: GatedState, x: Array, row: Array | int, label: Array | None = None
    ) -> GatedState:
        """The state before the first pixel of a row: the vertical stack's features of that row.

        Args:
          state: after the last pixel of the row above, or `start`.
          x: [*any, D]; the values of the rows above matter alone.
          row: its index, an integer [].
          label: one-hot, [*batch, C], or None.
        """
        state = state._replace(left=jax.tree.map(jnp.zeros_like, state.left))
        if self._grid[0] == 1:
            return state
        image_rows, v = neighbours(self._inputs(x), row, self.gated[0].radius, axis=1)
        label, rows, above = self._condition(label, x, row), [], []
        for layer, before in zip(self.gated, [image_rows, *state.rows], strict=True):
            if not layer.first:
                rows.append(moved_on(before, v, axis=1))
            v, from_above = layer.vertical(v, label, before)
            above.append(from_above)
        return state._replace(rows=rows, above=above)

    def pixel(
        self,
        state: GatedState,
        x: Array,
        row: Array | int,
        column: Array | int,
        label: Array | None = None,
    ) -> tuple[Array, GatedState]:
        """The logits of a pixel's values, and the state before the next pixel.

        That state is right if all values before the pixel's last one are known.

        Args:
          state: before the pixel.
          x: [*any, D]; values earlier than the one that logits are of matter alone.
          row, column: of the pixel, integers [].
          label: one-hot, [*batch, C], or None.

        Returns:
          Logits [*any, C] or [*any, C, levels], C the channels; the state.
        """
        inputs = self._inputs(row_of(x, row, self._grid))
        pixels, h = neighbours(inputs, column, self.gated[0].radius, axis=2)
        label, left = self._condition(label, x, row, column), []
        all_before = [pixels, *state.left]
        for layer, from_above, before in zip(self.gated, state.above, all_before, strict=True):
            if from_above is not None:
                from_above = jax.lax.dynamic_slice_in_dim(from_above, column, 1, axis=2)
            if not layer.first:
                left.append(moved_on(before, h, axis=2))
            h = layer.horizontal(h, from_above, label, before)
        return self._outputs(h, x), state._replace(left=left)
