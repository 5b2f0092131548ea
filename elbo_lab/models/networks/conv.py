"""Convolutional blocks (Flax linen) for images of any height, width and number of colours.

Outside of them images are [*batch, D]; inside they are [rows, H, W, C]. Each strided convolution
halves height and width, rounded up; the transposed convolutions of the decoder double them and
crop to the sizes that the encoder had, so that an image of any size comes back at its size.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from elbo_lab.models.networks.convolutions import conv2d, conv2d_transpose
from elbo_lab.models.networks.heads import Head, outputs
from elbo_lab.models.networks.mlp import ACTIVATIONS, SCALES, by_rows, dense

# Normalization between a convolution and its activation. None of them looks at other images.
NORMS = ("none", "group")
# Weights that keep the mean square of a layer's input, so that outputs depend on z from the first
# step on; with smaller ones q(z|x) collapses to the prior before the decoder uses z. Each output of
# a transposed convolution meets a quarter of the kernel.
LECUN = nn.initializers.lecun_normal()
LECUN_TRANSPOSE = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of an image of shape (H, W) or (H, W, C).

    Raises:
      ValueError: a shape that is not an image's.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"Convolutions take images (H, W) or (H, W, C), not the shape {shape}.")
    height, width, *colours = shape
    return height, width, *(colours or [1])


def grid_sizes(shape: tuple[int, ...], halvings: int) -> list[tuple[int, int]]:
    """(height, width) of the image and after each of so many halvings, rounded up."""
    sizes = [image_shape(shape)[:2]]
    for _ in range(halvings):
        height, width = sizes[-1]
        sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
    return sizes


class Conv(nn.Module):
    """`conv2d` and a bias: [rows, H, W, any] -> [rows, H / stride, W / stride, features]."""

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.kernel_size
        kernel = self.param("kernel", LECUN, (size, size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return conv2d(x, kernel, self.stride) + bias


class Upsample(nn.Module):
    """`conv2d_transpose` and a bias: [rows, h, w, any] -> [rows, *size, features].

    h and w are half of `size`, rounded up.
    """

    features: int
    size: tuple[int, int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", LECUN_TRANSPOSE, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return conv2d_transpose(x, kernel, self.size) + bias


def _groups(channels: int) -> int:
    """The most groups, up to 8, of two channels or more each: of one channel on a 1 x 1 grid
    nothing would be left.
    """
    return max(groups for groups in range(1, 9) if groups == 1 or channels % (2 * groups) == 0)


class NormActivation(nn.Module):
    """Normalization, if there is any, and the activation after it."""

    activation: str = "tanh"
    norm: str = "none"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.norm == "group":
            x = nn.GroupNorm(_groups(x.shape[-1]), name="norm")(x)
        return ACTIVATIONS[self.activation](x)


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(x)))) (van den Oord et al. 2017, section 4.1); norms before acts.

    [rows, h, w, C] -> [rows, h, w, C].
    """

    hidden: int  # channels between the two convolutions
    activation: str = "tanh"
    norm: str = "none"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = NormActivation(self.activation, self.norm, name="act_0")(x)
        y = Conv(self.hidden, 3, name="conv_0")(y)
        y = NormActivation(self.activation, self.norm, name="act_1")(y)
        return x + Conv(x.shape[-1], 1, name="conv_1")(y)


class ResidualStack(nn.Module):
    """3 x 3 convolution, residual blocks, activation: [rows, h, w, any] -> [rows, h, w, features].

    No blocks: nothing at all, and the input is returned.
    """

    features: int
    blocks: int
    activation: str = "tanh"
    norm: str = "none"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if not self.blocks:
            return x
        x = Conv(self.features, 3, name="conv")(x)
        hidden = math.ceil(self.features / 2)
        for i in range(self.blocks):
            x = ResidualBlock(hidden, self.activation, self.norm, name=f"block_{i}")(x)
        return NormActivation(self.activation, self.norm, name="act")(x)


class ConvEncoder(nn.Module):
    """Strided 4 x 4 convolutions, then residual blocks: [*batch, D] -> [*batch, h, w, channels].

    (h, w) is the last of `grid_sizes(shape, len(channels))`, with the last of the channels.
    """

    shape: tuple[int, ...]  # (H, W) or (H, W, C)
    channels: Sequence[int]  # after each halving
    activation: str = "tanh"
    norm: str = "none"
    residual_blocks: int = 0

    @nn.compact
    @by_rows
    def __call__(self, x: Array) -> Array:
        x = x.reshape(-1, *image_shape(self.shape))
        for i, features in enumerate(self.channels):
            x = Conv(features, 4, stride=2, name=f"down_{i}")(x)
            x = NormActivation(self.activation, self.norm, name=f"act_{i}")(x)
        return ResidualStack(
            self.channels[-1], self.residual_blocks, self.activation, self.norm, name="residual"
        )(x)


class UpTrunk(nn.Module):
    """Residual blocks, then transposed convolutions: a mirrored `ConvEncoder`, but for its first
    layer, which the heads mirror.

    [rows, h, w, any] -> [rows, h', w', channels[0]], where (h', w') is half the image.
    """

    shape: tuple[int, ...]  # (H, W) or (H, W, C)
    channels: Sequence[int]  # the encoder's
    activation: str = "tanh"
    norm: str = "none"
    residual_blocks: int = 0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = ResidualStack(
            self.channels[-1], self.residual_blocks, self.activation, self.norm, name="residual"
        )(x)
        sizes = grid_sizes(self.shape, len(self.channels))
        for i in reversed(range(1, len(self.channels))):
            x = Upsample(self.channels[i - 1], sizes[i], name=f"up_{i}")(x)
            x = NormActivation(self.activation, self.norm, name=f"act_{i}")(x)
        return x


class PixelHead(nn.Module):
    """`conv2d_transpose` to the image, a bias for each pixel: [rows, h', w', any] -> [rows, D]."""

    shape: tuple[int, ...]
    head: Head

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, colours = image_shape(self.shape)
        weights = nn.initializers.zeros_init() if self.head.zero_weights else LECUN_TRANSPOSE
        kernel = self.param("kernel", weights, (4, 4, x.shape[-1], colours))
        start = nn.initializers.constant(self.head.start)
        bias = self.param("bias", start, (height * width * colours,))
        return conv2d_transpose(x, kernel, (height, width)).reshape(len(x), -1) + bias


class ConvDecoder(nn.Module):
    """`UpTrunk` and heads: a grid [*batch, h, w, any] -> of each head [*batch, D] (or [*batch, 1]).

    (h, w) is the last of `grid_sizes(shape, len(channels))`.
    """

    shape: tuple[int, ...]  # (H, W) or (H, W, C)
    channels: Sequence[int]  # the encoder's
    heads: Sequence[Head]
    activation: str = "tanh"
    norm: str = "none"
    residual_blocks: int = 0

    @nn.compact
    def __call__(self, grid: Array) -> tuple[Array, ...]:
        batch, rows = grid.shape[:-3], grid.reshape(-1, *grid.shape[-3:])
        x = UpTrunk(
            self.shape,
            self.channels,
            self.activation,
            self.norm,
            self.residual_blocks,
            name="trunk",
        )(rows)

        def layer(head: Head) -> Array:
            return PixelHead(self.shape, head, name=head.name)(x)

        values = outputs(self, self.heads, layer, len(x))
        return tuple(value.reshape(*batch, value.shape[-1]) for value in values)


class LatentConvDecoder(ConvDecoder):
    """Linear layer to the coarsest grid, activation, `ConvDecoder`: [*batch, L] -> its outputs."""

    @nn.compact
    @by_rows
    def __call__(self, z: Array) -> tuple[Array, ...]:
        height, width = grid_sizes(self.shape, len(self.channels))[-1]
        h = nn.Dense(height * width * self.channels[-1], kernel_init=LECUN, name="grid")(z)
        h = h.reshape(-1, height, width, self.channels[-1])
        h = NormActivation(self.activation, self.norm, name="act")(h)
        return super().__call__(h)


class GaussianConv(nn.Module):
    """`ConvEncoder` with two linear heads, the parameters of a diagonal Gaussian.

    [*batch, D] -> mean and standard deviation, each [*batch, features].
    """

    features: int
    shape: tuple[int, ...]
    channels: Sequence[int]
    activation: str = "tanh"
    norm: str = "none"
    scale: str = "log_std"
    residual_blocks: int = 0

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        h = ConvEncoder(
            self.shape,
            self.channels,
            self.activation,
            self.norm,
            self.residual_blocks,
            name="trunk",
        )(x)
        h = h.reshape(*x.shape[:-1], -1)
        return dense(self.features, "mean")(h), SCALES[self.scale](dense(self.features, "scale")(h))
