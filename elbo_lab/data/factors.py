"""Images of one shape whose factors are known exactly, made by a seed: a small dSprites.

Every combination of the factors is one image, and every image is another one: rotations stay below
a quarter turn, after which a square looks the same. (dSprites, Matthey et al. 2017, has full turns,
with which rotation cannot be told from an image.)
"""

import itertools
from collections.abc import Callable

import numpy as np

from elbo_lab.data.dataset import Dataset, Factors

# Name -> number of values; images are made in this order, the last factor fastest.
FACTORS = {"shape": 3, "scale": 4, "rotation": 6, "x": 10, "y": 10}
TEST = 1440
SIZES = (32, 64)  # pixels of a side
# For an image of 32 pixels: radii of the scales, and centres of the first and the last position.
_RADII, _FIRST, _LAST = (4.0, 5.0, 6.0, 7.0), 7.1, 24.9
_SEED = 0


def load(size: int = 32) -> Dataset:
    """5,760 training and 1,440 test images, uint8 0 or 255, a random split of all combinations.

    Args:
      size: pixels of a side, one of `SIZES`.

    Returns:
      The Dataset: images [N, size * size], the shape as label, all five factors as `factors`.
    """
    factors = np.array(list(itertools.product(*map(range, FACTORS.values()))), np.int32)
    shapes = itertools.product(*(range(FACTORS[name]) for name in ("shape", "scale", "rotation")))
    x = np.concatenate([_at_all_positions(size, *indices) for indices in shapes])
    order = np.random.RandomState(_SEED).permutation(len(factors))
    test, train = order[:TEST], order[TEST:]
    label = factors[:, list(FACTORS).index("shape")]
    return Dataset(
        "factors" if size == SIZES[0] else f"factors{size}",
        x[train],
        x[test],
        label[train],
        label[test],
        (size, size),
        factors=Factors(tuple(FACTORS), factors[train], factors[test]),
    )


def _at_all_positions(size: int, shape: int, scale: int, rotation: int) -> np.ndarray:
    """Images of one shape at every position, [10 * 10, size * size], x before y.

    Args:
      size: pixels of a side.
      shape, scale, rotation: indices of the factors' values.
    """
    pixels = 32 * (np.arange(size) + 0.5) / size  # centres of pixels, in units of a 32nd
    offsets = pixels - np.linspace(_FIRST, _LAST, FACTORS["x"])[:, None]  # [10, size]
    right, down = offsets[:, None, None, :], offsets[None, :, :, None]
    angle = np.pi / 2 * rotation / FACTORS["rotation"]
    cos, sin = np.cos(angle) / _RADII[scale], np.sin(angle) / _RADII[scale]
    inside = _SHAPES[shape](cos * right + sin * down, cos * down - sin * right)
    return np.where(inside, 255, 0).astype(np.uint8).reshape(-1, size * size)


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= 0.75


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + 4 * v**2 <= 1


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # The sextic (a^2 + b^2 - 1)^3 = a^2 b^3, scaled into the unit circle, its tip down.
    a, b = 1.25 * u, 0.1 - 1.25 * v
    return (a**2 + b**2 - 1) ** 3 <= a**2 * b**3


# In the order of the factor: is (u, v), in units of the radius and turned back, inside?
_SHAPES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (_square, _ellipse, _heart)
