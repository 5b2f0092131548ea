"""Convolutions of `elbo_lab.models.networks.convolutions` by their definition, in NumPy float64."""

import numpy as np


def convolve(x, kernel, padding, stride=1):
    (up, down), (left, right) = padding
    rows, height, width, _ = x.shape
    h = (height + up + down - len(kernel)) // stride + 1
    w = (width + left + right - kernel.shape[1]) // stride + 1
    y = np.zeros((rows, h, w, kernel.shape[-1]))
    for i, j, m, n in np.ndindex(h, w, *kernel.shape[:2]):
        p, q = stride * i + m - up, stride * j + n - left
        # Nothing is read beyond the image, and of negative padding nothing that it crops.
        if 0 <= p < height + min(down, 0) and 0 <= q < width + min(right, 0):
            y[:, i, j] += x[:, p, q] @ kernel[m, n]
    return y


def conv2d(x, kernel, stride):
    padding = []
    for size, length in zip(x.shape[1:3], kernel.shape[:2], strict=True):
        total = max((-(-size // stride) - 1) * stride + length - size, 0)
        padding.append((total // 2, total - total // 2))
    return convolve(x, kernel, padding, stride)


def conv2d_transpose(x, kernel, size):
    y = np.zeros((len(x), *size, kernel.shape[-1]))
    for i, j, m, n in np.ndindex(*x.shape[1:3], 4, 4):
        p, q = 2 * i + m - 1, 2 * j + n - 1
        if 0 <= p < size[0] and 0 <= q < size[1]:
            y[:, p, q] += x[:, i, j] @ kernel[m, n]
    return y
