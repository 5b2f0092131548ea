"""Images side by side in one array, and a figure that shows each pixel of it once."""

import math

import numpy as np

from elbo_lab.reports.figure_style import new_figure


def levels(images) -> np.ndarray:
    """[n, H, W] or [n, H, W, 3] -> floats from 0 to 1, [n, H, W, 1 or 3].

    Args:
      images: uint8, or floats from 0 to 1.

    Raises:
      ValueError: another shape, or no image.
    """
    images = np.asarray(images)
    is_grey, is_coloured = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
    if not (is_grey or is_coloured) or not len(images):
        raise ValueError(
            f"images must have the shape [n, H, W] or [n, H, W, 3] with n > 0; got {images.shape}"
        )
    floats = (images[..., None] if is_grey else images).astype(np.float64)
    return np.clip(floats / 255 if images.dtype == np.uint8 else floats, 0, 1)


def scale_of(images: np.ndarray) -> int:
    """Pixels of the figure per pixel of an image, a whole number so that nothing is blurred."""
    return max(1, 84 // max(images.shape[1:3]))


def mosaic(images: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """[n, H, W, C] -> one array with white lines of `gap` pixels between the images."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    cells = np.ones((rows * columns, height + gap, width + gap, channels))
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, height + gap, width + gap, channels)
    whole = cells.transpose(0, 2, 1, 3, 4).reshape(
        rows * (height + gap), columns * (width + gap), channels
    )
    return whole[: whole.shape[0] - gap, : whole.shape[1] - gap]


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """An image [H, W, C] whose pixels are repeated: [scale * H, scale * W, C]."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def image_figure(image, *, left: int, right: int, bottom: int, top: int, min_width: int = 0):
    """A figure that shows every pixel of an image once, with margins in pixels.

    Returns:
      The figure and its axes, whose coordinates are the image's pixels.
    """
    height, width = image.shape[:2]
    spare = max(0, min_width - width - left - right)
    left, right = left + spare // 2, right + spare - spare // 2
    full_width, full_height = width + left + right, height + bottom + top
    figure = new_figure(full_width, full_height)
    figure.set_layout_engine("none")
    axes = figure.add_axes(
        [left / full_width, bottom / full_height, width / full_width, height / full_height]
    )
    axes.imshow(
        image.squeeze(-1) if image.shape[2] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="none",
        aspect="auto",
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes
