"""Convolutional blocks (Flax linen) for images of any height, width and number of colours.

Outside of them images are [*batch, D]; inside they are [rows, H, W, C]. Each strided convolution
halves height and width, rounded up; the transposed convolutions of the decoder double them and
crop to the sizes that the encoder had, so that an image of any size comes back at its size.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
from jax import Array

from elbo_lab.models.networks.convolutions import cached_rows, conv2d, conv2d_transpose
from elbo_lab.models.networks.heads import Head, outputs
from elbo_lab.models.networks.mlp import ACTIVATIONS, by_rows, dense, gaussian_outputs

# Normalization between a convolution and its activation. None of them looks at other images.
NORMS = ("none", "group")
# Weights that keep the mean square of a layer's input, so that outputs depend on z from the first
# step on; with smaller ones q(z|x) collapses to the prior before the decoder uses z. Each output of
# a transposed convolution meets a quarter of the kernel.
LECUN = nn.initializers.lecun_normal()
LECUN_TRANSPOSE = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")


class ConvSettings(NamedTuple):
    """Settings that the networks on both sides of a latent variable share."""

    shape: tuple[int, ...]  # of an image, (H, W) or (H, W, C)
    channels: tuple[int, ...]  # after each halving by the encoder
    activation: str  # one of ACTIVATIONS
    norm: str  # one of NORMS
    residual_blocks: int  # on the coarsest grid

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the image and after each halving; the last is the coarsest grid."""
        sizes = [image_shape(self.shape)[:2]]
        for _ in self.channels:
            height, width = sizes[-1]
            sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
        return sizes


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of an image of shape (H, W) or (H, W, C).

    Raises:
      ValueError: a shape that is not an image's.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"Convolutions take images (H, W) or (H, W, C), not the shape {shape}.")
    height, width = shape[:2]
    colours = shape[2] if len(shape) == 3 else 1
    return height, width, colours


def gradient_batch(settings: ConvSettings) -> int:
    """Images whose gradient a step on a CPU computes at once.

    There a step takes three quarters of the time in parts of the batch that fit the processor's
    cache (docs/performance.md): as many as `conv2d` takes in the largest halving of `ConvEncoder`.
    """
    inputs = (image_shape(settings.shape)[2], *settings.channels)
    halvings = zip(settings.sizes, inputs, settings.channels, strict=False)
    return min(cached_rows(size, (4, 4, c, features), 2) for size, c, features in halvings)


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
    """The largest number of equal groups, up to 8, with two channels or more in each.

    Normalization would map a group of one channel on a 1 x 1 grid to zero.
    """
    return max(groups for groups in range(1, 9) if groups == 1 or channels % (2 * groups) == 0)


class NormActivation(nn.Module):
    """Normalization, unless it is "none", and then the activation."""

    settings: ConvSettings

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.settings.norm == "group":
            x = nn.GroupNorm(_groups(x.shape[-1]), name="norm")(x)
        return ACTIVATIONS[self.settings.activation](x)


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(x)))) (van den Oord et al. 2017, section 4.1).

    [rows, h, w, C] -> [rows, h, w, C]. The normalization comes before each activation.
    """

    hidden: int  # channels between the two convolutions
    settings: ConvSettings

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = NormActivation(self.settings, name="act_0")(x)
        y = Conv(self.hidden, 3, name="conv_0")(y)
        y = NormActivation(self.settings, name="act_1")(y)
        return x + Conv(x.shape[-1], 1, name="conv_1")(y)


class ResidualStack(nn.Module):
    """3 x 3 convolution, residual blocks, activation: [rows, h, w, any] -> [rows, h, w, features].

    (h, w) is the coarsest grid, features the last of the channels. Without residual blocks the
    input is returned as it is.
    """

    settings: ConvSettings

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if not self.settings.residual_blocks:
            return x
        features = self.settings.channels[-1]
        x = Conv(features, 3, name="conv")(x)
        hidden = math.ceil(features / 2)
        for i in range(self.settings.residual_blocks):
            x = ResidualBlock(hidden, self.settings, name=f"block_{i}")(x)
        return NormActivation(self.settings, name="act")(x)


class ConvEncoder(nn.Module):
    """Strided 4 x 4 convolutions, then residual blocks: [*batch, D] -> [*batch, h, w, features].

    (h, w) is the coarsest grid, features the last of the channels. Values after the D of the image,
    such as a one-hot label, have a linear layer to the features of the first convolution, the same
    at each position: as if each value were a constant plane beside the image.
    """

    settings: ConvSettings

    @nn.compact
    @by_rows
    def __call__(self, x: Array) -> Array:
        shape = image_shape(self.settings.shape)
        x, others = x[:, : math.prod(shape)], x[:, math.prod(shape) :]
        x = x.reshape(-1, *shape)
        for i, features in enumerate(self.settings.channels):
            x = Conv(features, 4, stride=2, name=f"down_{i}")(x)
            if i == 0 and others.shape[-1]:
                planes = nn.Dense(features, use_bias=False, kernel_init=LECUN, name="others")
                x = x + planes(others)[:, None, None]
            x = NormActivation(self.settings, name=f"act_{i}")(x)
        return ResidualStack(self.settings, name="residual")(x)


class UpTrunk(nn.Module):
    """Residual blocks, then transposed convolutions: [rows, h, w, any] -> [rows, h', w', features].

    The mirror image of `ConvEncoder` without its first layer, which the heads mirror: (h, w) is the
    coarsest grid, (h', w') half the image, features the first of the channels.
    """

    settings: ConvSettings

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = ResidualStack(self.settings, name="residual")(x)
        channels, sizes = self.settings.channels, self.settings.sizes
        for i in reversed(range(1, len(channels))):
            x = Upsample(channels[i - 1], sizes[i], name=f"up_{i}")(x)
            x = NormActivation(self.settings, name=f"act_{i}")(x)
        return x


class PixelHead(nn.Module):
    """`conv2d_transpose` to the image, a bias for each output: [rows, h', w', any] -> [rows, size].

    The size is D if the head states none, else a multiple of the number of pixels.
    """

    shape: tuple[int, ...]
    head: Head

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, colours = image_shape(self.shape)
        weights = nn.initializers.zeros_init() if self.head.zero_weights else LECUN_TRANSPOSE
        size = self.head.size or height * width * colours
        kernel = self.param("kernel", weights, (4, 4, x.shape[-1], size // (height * width)))
        start = nn.initializers.constant(self.head.start)
        bias = self.param("bias", start, (size,))
        return conv2d_transpose(x, kernel, (height, width)).reshape(len(x), -1) + bias


class ConvDecoder(nn.Module):
    """`UpTrunk` and heads: a grid [*batch, h, w, any] -> for each head [*batch, size].

    (h, w) is the coarsest grid. The size is D if the head states none; a shared head has
    [*batch, 1].
    """

    settings: ConvSettings
    heads: Sequence[Head]

    @nn.compact
    def __call__(self, grid: Array) -> tuple[Array, ...]:
        batch, rows = grid.shape[:-3], grid.reshape(-1, *grid.shape[-3:])
        x = UpTrunk(self.settings, name="trunk")(rows)

        def layer(head: Head) -> Array:
            return PixelHead(self.settings.shape, head, name=head.name)(x)

        values = outputs(self, self.heads, layer, len(x))
        return tuple(value.reshape(*batch, value.shape[-1]) for value in values)


class LatentConvDecoder(ConvDecoder):
    """Linear layer to the coarsest grid, activation, `ConvDecoder`: [*batch, L] -> its outputs."""

    @nn.compact
    @by_rows
    def __call__(self, z: Array) -> tuple[Array, ...]:
        height, width = self.settings.sizes[-1]
        features = self.settings.channels[-1]
        h = nn.Dense(height * width * features, kernel_init=LECUN, name="grid")(z)
        h = h.reshape(-1, height, width, features)
        h = NormActivation(self.settings, name="act")(h)
        return super().__call__(h)


class GaussianConv(nn.Module):
    """`ConvEncoder` with linear heads, the parameters of a Gaussian; its outputs are those of
    `GaussianMLP`.
    """

    features: int
    settings: ConvSettings
    scale: str = "log_std"
    heads: Sequence[Head] = ()

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        h = ConvEncoder(self.settings, name="trunk")(x)
        h = h.reshape(*x.shape[:-1], -1)
        return gaussian_outputs(h, self.features, self.scale, self.heads)


class ConvCritic(nn.Module):
    """`ConvEncoder` and a linear layer to one number: [*batch, D] -> [*batch, 1]."""

    settings: ConvSettings

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = ConvEncoder(self.settings, name="trunk")(x)
        return dense(1, "value")(h.reshape(*x.shape[:-1], -1))
