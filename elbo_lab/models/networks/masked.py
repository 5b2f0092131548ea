"""Gated masked convolutions: networks whose output at a value depends on earlier values alone.

van den Oord et al. 2016b, "Conditional image generation with PixelCNN decoders". Values are ordered
by row, column and channel. Two stacks of convolutions see what is earlier: the vertical one all
rows above, the horizontal one the left of its row and the vertical one's features; together they
have no blind spot. Kernels are cropped to what they may see, which is faster than a mask over a
whole kernel. Only the channels of the pixel itself need a mask. A label adds a bias of its class to
the features of each gate (their equation 4).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from elbo_lab.data.dataset import Spec
from elbo_lab.models.networks.convolutions import convolve
from elbo_lab.models.networks.mlp import GLOROT, dense


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
    either side. Features see their own row too, since it holds what is above it.
    """

    features: int
    radius: int
    first: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        r = self.radius
        own_rows = 0 if self.first else 1
        shape = (r + own_rows, 2 * r + 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return convolve(x, kernel, ((r, own_rows - 1), (r, r))) + bias


class Left(nn.Module):
    """Convolution over the pixels to the left and the pixel itself, as far as the mask allows.

    [rows, H, W, inputs] -> [rows, H, W, 2 * width], for any H. Each half of the output features has
    one group for each channel.
    """

    width: int
    radius: int
    channels: int
    first: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        shape = (1, self.radius + 1, inputs, 2 * self.width)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (2 * self.width,))
        mask = np.ones(shape, np.float32)
        mask[0, -1] = np.tile(channel_mask(inputs, self.width, self.channels, self.first), 2)
        return convolve(x, kernel * mask, ((0, 0), (self.radius, 0))) + bias


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

    def setup(self):
        self.above = Above(2 * self.width, self.radius, self.first)
        self.across = dense(2 * self.width, "across")
        self.left = Left(self.width, self.radius, self.channels, self.first)
        self.out = Masked1x1(self.width, self.channels)
        # They have parameters only where they are called, with labels.
        self.label_above = class_biases(2 * self.width, f"{self.condition}_above")
        self.label_left = class_biases(2 * self.width, f"{self.condition}_left")

    def vertical(self, v: Array, label: Array | None) -> tuple[Array, Array]:
        """The vertical stack's features, and their contribution to the horizontal stack."""
        features = self.above(v)
        if label is not None:
            features = features + self.label_above(label)
        return gate(features), self.across(features)

    def horizontal(self, h: Array, from_above: Array | None, label: Array | None) -> Array:
        """The horizontal stack's features; all layers but the first add them to their input."""
        features = self.left(h)
        if from_above is not None:
            features = features + from_above
        if label is not None:
            features = features + self.label_left(label)
        update = self.out(gate(features))
        return update if self.first else h + update


def class_biases(features: int, name: str) -> nn.Dense:
    """One vector of features for each class: one-hot labels [..., C] -> [..., features]."""
    return nn.Dense(features, use_bias=False, kernel_init=GLOROT, name=name)


class GatedPixelCNN(nn.Module):
    """Gated PixelCNN: values [*any, D] -> logits [*any, D], or [*any, D, levels] for levels > 2.

    The logits at d are those of x_d given x_1, ..., x_{d-1}, and given the label if there is one. A
    shape of one axis is a single row, which has no rows above. The inputs are images scaled to
    [-1, 1], or learned embeddings of tokens. Labels are one-hot, [*batch, C], and are broadcast
    against the leading axes of x.

    Args:
      spec: kind "image" or "token", one to three axes: (W,), (H, W) or (H, W, C).
      width: features of each stack, at least C.
      layers: gated layers.
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
        sizes = [self.first_kernel_size] + (self.layers - 1) * [self.kernel_size]
        self.gated = [
            GatedLayer(self.width, size // 2, channels, first=i == 0)
            for i, size in enumerate(sizes)
        ]
        if self.spec.kind == "token":
            self.embedding = nn.Embed(levels, self.embedding_dim)
        self.hidden = Masked1x1(self.output_width, channels)
        self.logits = Masked1x1(channels * (1 if levels == 2 else levels), channels)

    @property
    def _grid(self) -> tuple[int, int, int]:
        return grid(self.spec.shape)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        return self.row(x, self.above(x, label), label)

    def above(self, x: Array, label: Array | None = None) -> list[Array | None]:
        """The vertical stack's contributions to each layer of the horizontal stack.

        Returns:
          [rows, H, W, features] for each layer; None for each, if the image has one row.
        """
        if self._grid[0] == 1:
            return [None] * self.layers
        features, above, label = self._inputs(x), [], _by_rows(label, x)
        for layer in self.gated:
            features, from_above = layer.vertical(features, label)
            above.append(from_above)
        return above

    def row(self, x: Array, above: list[Array | None], label: Array | None = None) -> Array:
        """The logits of all rows of the image, or of one.

        Args:
          x: [*any, D'], the values of these rows alone.
          above: the result of the method `above`, cut to these rows.
          label: one-hot, [*batch, C], or None.

        Returns:
          [*any, D'] or [*any, D', levels].
        """
        h, label = self._inputs(x), _by_rows(label, x)
        for layer, from_above in zip(self.gated, above, strict=True):
            h = layer.horizontal(h, from_above, label)
        logits = self.logits(jax.nn.relu(self.hidden(jax.nn.relu(h))))
        return logits.reshape(x.shape if self.spec.levels == 2 else (*x.shape, self.spec.levels))

    def _inputs(self, x: Array) -> Array:
        """Values [*any, D'] as [rows, H', W, inputs]."""
        _, width, channels = self._grid
        height = x.shape[-1] // (width * channels)
        if self.spec.kind == "token":
            return self.embedding(x).reshape(-1, height, width, channels * self.embedding_dim)
        return (2 * x - 1).reshape(-1, height, width, channels)


def _by_rows(label: Array | None, x: Array) -> Array | None:
    """One-hot labels [*batch, C] for values x [*any, D'], as [rows, 1, 1, C]."""
    if label is None:
        return None
    rows = jnp.broadcast_to(label, (*x.shape[:-1], label.shape[-1]))
    return rows.reshape(-1, 1, 1, label.shape[-1])


def grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a shape of one to three axes."""
    if len(shape) == 1:
        return 1, shape[0], 1
    if len(shape) == 2:
        return *shape, 1
    return shape
