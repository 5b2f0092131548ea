"""Convolutions as matrix products, which are fast in a compiled loop on a CPU.

There XLA computes the derivatives of convolutions 10 to 50 times slower inside `lax.scan` than
outside of it or than the products here (docs/performance.md says why). On other platforms XLA's own
are taken. Both compute the same sums, in another order.

The pixels side by side that the products read take several times the memory of the image. In parts
of the batch for which they fit the processor's cache, a convolution with its gradient takes three
quarters of the time (docs/performance.md); transposed convolutions gain nothing by it.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from elbo_lab.parts import number_of_parts

# Numbers of a part's pixels side by side, or of its outputs: 1 MB.
CACHED = 2**18
# Rows or columns of zeros before and after the image; a negative number crops.
Padding = tuple[tuple[int, int], tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    """Convolution without reversal of the kernel, as networks have it.

    y[i, j] = sum_{m, n} x[stride i + m - up, stride j + n - left] kernel[m, n]

    Args:
      x: [rows, H, W, C].
      kernel: [M, N, C, F].
      padding: ((up, down), (left, right)).
      stride: of both axes.

    Returns:
      [rows, (H + up + down - M) // stride + 1, (W + left + right - N) // stride + 1, F].
    """
    if jax.default_backend() == "cpu":
        return convolve_by_products(x, kernel, padding, stride)
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def convolve_by_products(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    """`convolve` as one matrix product for each row of the kernel."""
    rows, height, width, channels = x.shape
    kernel_height, kernel_width, _, features = kernel.shape
    (up, down), (left, right) = padding
    h = (height + up + down - kernel_height) // stride + 1
    w = (width + left + right - kernel_width) // stride + 1
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (up, down, 0), (left, right, 0), (0, 0, 0)))
    # The pixels under a row of the kernel, side by side: [rows, padded H, w, N C].
    columns = [_strided(x, 2, n, w, stride) for n in range(kernel_width)]
    x = jnp.concatenate(columns, axis=-1)
    inputs = kernel_width * channels
    weights, summed = kernel.reshape(kernel_height, inputs, features), 0
    if inputs >= 2 * features:
        # The gradient of a row's weights is a product too, and takes three quarters of the time if
        # the longer axis is its last.
        weights, summed = weights.swapaxes(1, 2), 1
    y = sum(
        lax.dot_general(
            _strided(x, 1, m, h, stride).reshape(-1, inputs),
            weights[m],
            (((1,), (summed,)), ((), ())),
        )
        for m in range(kernel_height)
    )
    return y.reshape(rows, h, w, features)


def conv2d(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolution with "SAME" padding.

    y[i, j] = sum_{m, n} x[stride i + m - p, stride j + n - q] kernel[m, n], where p and q are half
    of the padding, rounded down.

    Args:
      x: [rows, H, W, C].
      kernel: [M, N, C, F].
      stride: of both axes.

    Returns:
      [rows, H / stride, W / stride, F], rounded up.
    """
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")
    apply = functools.partial(convolve, padding=tuple(padding), stride=stride)
    number = _parts(x.shape, kernel.shape, stride)
    if number == 1:
        return apply(x, kernel)
    # Without `checkpoint` the derivative would keep all parts' pixels side by side.
    part = jax.checkpoint(apply, prevent_cse=False)
    y = lax.map(lambda rows: part(rows, kernel), x.reshape(number, -1, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])


def _parts(x: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> int:
    """The parts of the rows that `conv2d` computes one after the other, by the shapes of x and the
    kernel: at most CACHED numbers are kept of each on a CPU.
    """
    if jax.default_backend() != "cpu" or kernel[:2] == (1, 1):
        return 1
    return number_of_parts(x[0], cached_rows(x[1:3], kernel, stride))


def cached_rows(size: tuple[int, int], kernel: tuple[int, ...], stride: int) -> int:
    """Rows of which `conv2d` keeps at most CACHED numbers, and at least one row.

    Args:
      size: (H, W) of the image.
      kernel: its shape, (M, N, C, F).
      stride: of both axes.
    """
    height, width = size
    _, kernel_width, channels, features = kernel
    columns = math.ceil(width / stride)
    outputs = math.ceil(height / stride) * columns * features
    side_by_side = height * columns * kernel_width * channels
    return max(1, CACHED // max(side_by_side, outputs))


def conv2d_transpose(x: Array, kernel: Array, size: tuple[int, int]) -> Array:
    """Transpose of `conv2d` with 4 x 4 kernels and stride 2, from images of `size`.

    y[2i + m - 1, 2j + n - 1] = sum of x[i, j] kernel[m, n] over the i, j, m, n that meet there.

    Args:
      x: [rows, h, w, C].
      kernel: [4, 4, C, F].
      size: (H, W); their halves, rounded up, are h and w.

    Returns:
      [rows, H, W, F].
    """
    if jax.default_backend() == "cpu":
        return conv2d_transpose_by_products(x, kernel, size)
    y = lax.conv_transpose(x, kernel[::-1, ::-1], (2, 2), "SAME", dimension_numbers=_LAYOUT)
    return y[:, : size[0], : size[1]]


def conv2d_transpose_by_products(x: Array, kernel: Array, size: tuple[int, int]) -> Array:
    """`conv2d_transpose` as one matrix product and two shifted sums of each axis."""
    rows, h, w, channels = x.shape
    features = kernel.shape[-1]
    # m = 2t + a: tap (t, a) of pixel i goes to cell i + t, where cell c has rows 2c - 1 and 2c.
    taps = kernel.reshape(2, 2, 2, 2, channels, features).transpose(4, 0, 2, 1, 3, 5)
    y = x.reshape(-1, channels) @ taps.reshape(channels, 16 * features)
    y = y.reshape(rows, h, w, 2, 8 * features)
    y = sum(jnp.pad(y[:, :, :, t], ((0, 0), (t, 1 - t), (0, 0), (0, 0))) for t in (0, 1))
    y = y.reshape(rows, h + 1, w, 2, 4 * features)
    cells = sum(jnp.pad(y[:, :, :, u], ((0, 0), (0, 0), (u, 1 - u), (0, 0))) for u in (0, 1))
    cells = cells.reshape(rows, h + 1, w + 1, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    pixels = cells.reshape(rows, 2 * h + 2, 2 * w + 2, features)
    return pixels[:, 1 : size[0] + 1, 1 : size[1] + 1]


def _strided(x: Array, axis: int, start: int, length: int, stride: int) -> Array:
    """`length` elements of an axis, `stride` apart, from `start` on."""
    return lax.slice_in_dim(x, start, start + stride * (length - 1) + 1, stride, axis)
