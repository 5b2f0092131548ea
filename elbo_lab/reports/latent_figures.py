"""Figures of a latent space: interpolations, traversals, and draws that share z."""

import math
from collections.abc import Sequence

import numpy as np

from elbo_lab.reports import tiles
from elbo_lab.reports.figure_style import GREY, LABEL_SIZE, TEXT, TICK_SIZE, TITLE_SIZE, save

# The least pixels of the longer side of an image in the figure; the columns' labels need about 40.
_SIDE = 56


def interpolations(path, ends, linear, spherical, title: str) -> None:
    """Draws paths between pairs of images: a row for the linear one, and one for the spherical.

    Args:
      path: the PNG or SVG file.
      ends: [P, 2, H, W] or [P, 2, H, W, 3], the images of each pair, which stand at both ends.
      linear: [P, T, H, W, ...], decoded points of the straight path.
      spherical: of the same shape, points of the path on a great circle.
      title: above the rows.
    """
    ends, linear, spherical = map(np.asarray, (ends, linear, spherical))
    rows = [
        np.stack([pair[0], *points, pair[1]])
        for pair, *paths in zip(ends, linear, spherical, strict=True)
        for points in paths
    ]
    weights = [f"{weight:.1f}" for weight in np.linspace(0, 1, linear.shape[1])]
    _draw_rows(
        path,
        np.stack(rows),
        ["linear", "spherical"] * len(ends),
        ["input", *weights, "input"],
        (title, "weight of the input on the right"),
        together=2,
    )


def traversals(
    path, images, offsets: Sequence[float], labels: Sequence[str], title: str, axis: str
) -> None:
    """Draws a row for each latent dimension, which alone varies along it.

    Args:
      path: the PNG or SVG file.
      images: [rows, T, H, W] or [rows, T, H, W, 3].
      offsets: [T], the distances of the columns from the start of all rows.
      labels: of the rows.
      title: above the rows.
      axis: what the offsets are; below them.
    """
    columns = [f"{offset:.1f}".replace("-", "\N{MINUS SIGN}") for offset in offsets]
    _draw_rows(path, np.asarray(images), labels, columns, (title, axis))


def shared_z(path, inputs, draws, labels: Sequence[str], title: str) -> None:
    """Draws a row for each example: the example, then draws of p(x|z) that share its z.

    Args:
      path: the PNG or SVG file.
      inputs: [rows, H, W] or [rows, H, W, 3], the examples.
      draws: [rows, T, H, W, ...].
      labels: of the rows.
      title: above the rows.
    """
    inputs, draws = np.asarray(inputs), np.asarray(draws)
    rows = np.concatenate([inputs[:, None], draws], axis=1)
    columns = ["input", *(str(i + 1) for i in range(draws.shape[1]))]
    _draw_rows(path, rows, labels, columns, (title, "draw"))


def _draw_rows(
    path,
    images: np.ndarray,
    labels: Sequence[str],
    columns: Sequence[str],
    titles: tuple[str, str],
    together: int | None = None,
) -> None:
    """Draws rows of images with a label for each row and each column.

    Args:
      path: the file.
      images: [rows, T, H, W, ...].
      labels: one for each row.
      columns: one for each column.
      titles: above the images, and below the labels of the columns.
      together: number of rows after which a wide gap follows; None: there is none.
    """
    height, width = images.shape[2:4]
    scale = math.ceil(_SIDE / max(height, width))
    bands, centres, top = [], [], 0
    for index, row in enumerate(images):
        band = tiles.mosaic(tiles.levels(row), len(row), gap=1)
        if bands:
            gap = height // 4 if together and index % together == 0 else 1
            bands.append(np.ones((gap, *band.shape[1:])))
            top += gap
        bands.append(band)
        centres.append(top + height / 2)
        top += height
    image = tiles.enlarge(np.concatenate(bands), scale)
    figure, axes = tiles.image_figure(image, left=190, right=40, bottom=110, top=90, min_width=1000)
    lefts = np.arange(len(columns)) * (width + 1)
    axes.set_yticks(np.array(centres) * scale - 0.5, labels, fontsize=TICK_SIZE)
    axes.set_xticks((lefts + width / 2) * scale - 0.5, columns, fontsize=TICK_SIZE)
    axes.tick_params(length=3, color=GREY, labelcolor=TEXT)
    title, axis = titles
    axes.set_xlabel(axis, fontsize=LABEL_SIZE)
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT)
    save(figure, path)
