"""Convolutions against their definition in float64, on either way of computing them."""

import chex
import jax
import numpy as np
import pytest

from elbo_lab.models.networks import convolutions
from tests.models import convolutions_float64

pytestmark = pytest.mark.usefixtures("fast_compilation")

KERNELS = {(4, 2): (4, 4, 3, 2), (3, 1): (3, 3, 3, 2)}  # (size, stride) -> shape
# Those of a PixelCNN: rows above without and with one's own, and the left of the row.
PADDINGS = [((2, -1), (1, 1)), ((1, 0), (1, 1)), ((0, 0), (2, 0))]


def normal(*shape) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(6, 5), (1, 2)])
def test_convolutions_equal_their_definition(shape, platform, monkeypatch):
    """By products as on a CPU, and by XLA's convolutions as elsewhere, both on this platform."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    height, width = shape
    x = normal(2, height, width, 3)
    sizes = [(2 * height, 2 * width), (2 * height - 1, 2 * width - 1)]

    def compute(library, x):
        down = [library.conv2d(x, normal(*KERNELS[size, s]), s) for size, s in KERNELS]
        up = [library.conv2d_transpose(x, normal(4, 4, 3, 2), size) for size in sizes]
        masked = [library.convolve(x, normal(2, 3, 3, 4), padding) for padding in PADDINGS]
        return down, up, masked

    actual = jax.jit(lambda x: compute(convolutions, x))(x)
    expected = compute(convolutions_float64, np.float64(x))
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_by_parts_of_the_rows_and_its_derivatives(monkeypatch):
    """It is linear in each argument: the derivative along v is the convolution of v itself."""
    monkeypatch.setattr(convolutions, "CACHED", 1)
    x, kernel, weights = normal(3, 4, 5, 3), normal(4, 4, 3, 2), normal(3, 2, 3, 2)
    v, along = x[::-1] ** 2, kernel[::-1] ** 2

    def weighted(library, x, kernel):
        return (weights * library.conv2d(x, kernel, 2)).sum()

    gradient = jax.grad(weighted, argnums=(1, 2))
    program = jax.jit(lambda x, kernel: gradient(convolutions, x, kernel))
    assert "while" in program.lower(x, kernel).as_text()  # a loop over parts
    of_x, of_kernel = program(x, kernel)
    pairs = (v, kernel), (x, along)
    expected = [weighted(convolutions_float64, *map(np.float64, pair)) for pair in pairs]
    actual = [(of_x * v).sum(), (of_kernel * along).sum()]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
