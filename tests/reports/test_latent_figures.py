"""Figures of paths through a latent space: tiles at their places, labels, and both formats."""

import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

from elbo_lab.reports import figures, latent_figures

pytestmark = pytest.mark.filterwarnings("error")


def grey_levels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float64)


def even(levels) -> np.ndarray:
    """Images of one grey level each, [..., 28, 28]."""
    return np.broadcast_to(
        np.asarray(levels, np.float64)[..., None, None], (*np.shape(levels), 28, 28)
    )


def test_rows_of_traversals_lie_at_their_places(tmp_path):
    levels = np.arange(15).reshape(3, 5) / 14
    path = tmp_path / "x.png"
    labels = [f"row {i}" for i in range(3)]
    latent_figures.traversals(path, even(levels), np.linspace(-3, 3, 5), labels, "title", "axis")
    shown = grey_levels(path)
    # Two pixels for each one, two of white between the images, and margins; at least 1000 wide.
    width, height = 5 * 56 + 4 * 2, 3 * 56 + 2 * 2
    left = 190 + (1000 - width - 230) // 2
    assert shown.shape == (height + 200, 1000)
    for row in range(3):
        for column in range(5):
            top, side = 90 + row * 58, left + column * 58
            tile = shown[top : top + 56, side : side + 56]
            assert tile.std() == 0 and abs(tile.mean() - 255 * levels[row, column]) <= 2
    # The title, the labels of the rows, and those of the columns with the axis.
    assert shown[:90].min() < 128 and shown[90 : 90 + height, : left - 20].min() < 128
    assert shown[90 + height + 10 :].min() < 128


@pytest.mark.parametrize(("size", "scale"), [(28, 2), (32, 2), (64, 1)])
def test_images_are_wide_enough_for_the_labels_of_their_columns(tmp_path, size, scale):
    path = tmp_path / "x.png"
    images = np.zeros((1, 11, size, size))
    latent_figures.traversals(path, images, np.linspace(-3, 3, 11), ["row"], "title", "axis")
    width, height = 11 * size * scale + 10 * scale, size * scale
    assert grey_levels(path).shape == (height + 200, max(1000, width + 230))


def test_interpolations_stand_between_their_inputs(tmp_path):
    ends, linear, spherical = np.array([[0.0, 1.0], [0.2, 0.8]]), 0.5, 0.3
    path = tmp_path / "x.png"
    paths = [even(np.full((2, 11), level)) for level in (linear, spherical)]
    latent_figures.interpolations(path, even(ends), *paths, "title")
    shown = grey_levels(path)
    width, height = 13 * 56 + 12 * 2, 4 * 56 + 2 * (1 + 7 + 1)
    left = 190 + max(0, 1000 - width - 230) // 2
    assert shown.shape == (height + 200, max(1000, width + 230))
    tops = [90, 90 + 58, 90 + 114 + 14, 90 + 114 + 14 + 58]
    for index, top in enumerate(tops):
        pair, middle = ends[index // 2], (linear, spherical)[index % 2]
        for column, level in ((0, pair[0]), (1, middle), (11, middle), (12, pair[1])):
            tile = shown[top : top + 56, left + 58 * column : left + 58 * column + 56]
            assert tile.std() == 0 and abs(tile.mean() - 255 * level) <= 2


def test_a_figure_is_svg_if_its_path_says_so_and_always_the_same(tmp_path):
    for name in "ab":
        path = tmp_path / f"{name}.svg"
        figures.latent_grid(path, even(np.ones(4) / 2), 2, [[-1.0, 1.0], [0.0, 2.0]], "the plane")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    svg = xml.dom.minidom.parse(str(tmp_path / "a.svg"))
    texts = [text.firstChild.data for text in svg.getElementsByTagName("text") if text.firstChild]
    assert "the plane" in texts
    minus = "\N{MINUS SIGN}1.00"
    assert [texts.count(text) for text in (minus, "1.00", "0.00", "2.00")] == [1, 1, 1, 1]
