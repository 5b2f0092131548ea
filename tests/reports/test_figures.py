"""Figures are PNG files of the expected size, with the arrays at their places."""

import math
import statistics

import numpy as np
import pytest
from PIL import Image

from elbo_lab.errors import UserError
from elbo_lab.reports import figures

pytestmark = pytest.mark.filterwarnings("error")


def pixels(path) -> np.ndarray:
    """The grey levels of a PNG file, [height, width] in 0..255; asserts that it is not blank."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(path) as image:
        image.load()
        array = np.asarray(image.convert("L"), np.float64)
    assert array.std() > 5
    return array


def colours(path) -> set[tuple[int, int, int]]:
    """The distinct colours of an image file."""
    with Image.open(path) as image:
        return {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}


def rgb(text: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(text.removeprefix("#")))


def tiles(count: int, height: int = 28, width: int = 28) -> np.ndarray:
    """Images of one grey level each, from black upwards."""
    levels = np.arange(count) / max(1, count - 1)
    return np.broadcast_to(levels[:, None, None], (count, height, width))


TITLES = {
    "bound": ("training bound", "nats per image"),
    "kl": ("KL term", "nats per image"),
    "reconstruction": ("reconstruction term", "nats per image"),
}


def records(count: int, replicates: int | None = None) -> list[dict]:
    """Lines of metrics whose first steps are far from the later ones."""

    def spread(value: float):
        return value if replicates is None else [value + 0.5 * r for r in range(replicates)]

    return [
        {
            "step": 100 * step,
            "bound": spread(-90 - 1000 / step),
            "kl": spread(25 - 10 / step),
            "reconstruction": spread(-65 - 990 / step),
        }
        for step in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize("replicates", [None, 1, 4])
def test_learning_curves(tmp_path, count, replicates):
    path = tmp_path / "curves.png"
    figures.learning_curves(path, records(count, replicates), TITLES)
    assert pixels(path).shape == (630, 1440)
    assert {rgb("#0072B2"), rgb("#D55E00"), rgb("#009E73")} <= colours(path)


def test_the_first_steps_do_not_squeeze_the_curve():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    curve = figures._curve(records(100), "bound")
    figures._set_robust_limits(axes, curve)
    low, high = axes.get_ylim()
    assert curve.mean.min() == -1090 and -200 < low < -150 and -100 < high < -90


def test_replicates_that_failed_are_left_out_of_the_curve():
    lines = [
        {"step": 1, "bound": [1.0, 2.0, 6.0]},
        {"step": 2, "bound": [1.0, math.nan, 3.0]},
        {"step": 3, "bound": [math.nan] * 3},
    ]
    curve = figures._curve(lines, "bound")
    np.testing.assert_array_equal(curve.steps, [1, 2, 3])
    np.testing.assert_allclose(curve.mean, [3, 2, math.nan])
    np.testing.assert_allclose(curve.error[:2], [math.sqrt(7 / 3), 1.0])
    assert curve.replicates == 3


def test_curves_with_nan_are_drawn(tmp_path):
    for broken in ([math.nan] * 20, [-100.0, math.nan] * 10):
        lines = [{"step": s} | dict.fromkeys(TITLES, value) for s, value in enumerate(broken)]
        figures.learning_curves(tmp_path / "curves.png", lines, TITLES)
        pixels(tmp_path / "curves.png")


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_image_grid_shows_each_image_at_its_place(tmp_path, kind):
    path = tmp_path / "grid.png"
    images = tiles(12)
    figures.image_grid(
        path, (images * 255).astype(kind) if kind == np.uint8 else images.astype(kind), 5, "means"
    )
    shown = pixels(path)
    # Three pixels for each one, one of white between the images, and margins.
    width, height = 5 * 28 * 3 + 4 * 3, 3 * 28 * 3 + 2 * 3
    left = (480 - width) // 2
    assert shown.shape == (height + 60 + 24, 480)
    for index in range(15):
        top, side = 60 + index // 5 * 87, left + index % 5 * 87
        tile = shown[top : top + 84, side : side + 84]
        expected = round(255 * index / 11) if index < 12 else 255
        assert tile.std() == 0 and abs(tile.mean() - expected) <= 2
    assert shown[:60].min() < 128  # the title


def test_image_grid_names_its_rows_at_their_left(tmp_path):
    figures.image_grid(tmp_path / "grid.png", np.zeros((10, 28, 28)), 5, "draws", ("one", "two"))
    shown = pixels(tmp_path / "grid.png")
    assert shown.shape == (60 + 2 * 84 + 3 + 24, 110 + 5 * 84 + 4 * 3 + 24)
    assert np.all(shown[60:144, 110:194] == 0)  # the first image
    has_ink = shown[60:, :105].min(axis=1) < 128
    for top in (0, 87):  # of the rows: each name stands in the middle of its own
        lines = np.flatnonzero(has_ink[top : top + 84])
        assert abs(lines.mean() - 42) < 8 and np.ptp(lines) < 40
    assert has_ink.sum() < 80


def test_image_grid_of_one_pixel_pattern_is_not_blurred(tmp_path):
    image = (np.indices((28, 28)).sum(0) % 2).astype(np.float32)
    figures.image_grid(tmp_path / "grid.png", image[None], 10, "a chessboard")
    shown = pixels(tmp_path / "grid.png")
    left = (480 - 84) // 2
    board = shown[60:144, left : left + 84]
    np.testing.assert_array_equal(board, np.kron(image, np.ones((3, 3))) * 255)


def test_image_grid_in_colours(tmp_path):
    images = np.zeros((3, 28, 28, 3), np.uint8)
    images[[0, 1, 2], ..., [0, 1, 2]] = 255  # red, green, blue
    figures.image_grid(tmp_path / "grid.png", images, 3, "means")
    from matplotlib.image import imread

    shown = imread(tmp_path / "grid.png")[60:144, :, :3]
    left = (480 - (3 * 84 + 2 * 3)) // 2
    for index in range(3):
        tile = shown[:, left + 87 * index : left + 87 * index + 84]
        assert np.all(tile == np.eye(3)[index])


@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 28), (2, 28, 28, 1)])
def test_image_grid_refuses_other_shapes(tmp_path, shape):
    with pytest.raises(ValueError, match="n, H, W"):
        figures.image_grid(tmp_path / "grid.png", np.zeros(shape), 5, "means")


def test_reconstructions_lie_below_their_inputs(tmp_path):
    path = tmp_path / "reconstructions.png"
    inputs = tiles(15)
    figures.reconstructions(path, inputs, inputs / 2)
    shown = pixels(path)
    band = 2 * 84 + 3
    assert shown.shape == (2 * band + 7 * 3 + 48, 190 + 10 * 84 + 9 * 3 + 24)
    for index in range(15):
        top, side = 24 + index // 10 * (band + 21), 190 + index % 10 * 87
        for down, part in ((0, 1.0), (87, 0.5)):
            tile = shown[top + down : top + down + 84, side : side + 84]
            assert tile.std() == 0 and abs(tile.mean() - 255 * part * index / 14) <= 2
    assert shown[24:108, :180].min() < 128  # the label


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_active_units(tmp_path, layers):
    path = tmp_path / "activity.png"
    activity = [np.array([0.5, 1e-4, 0.0, 0.02, 2e-3] * 10 * layer) for layer in (1, 2, 3)]
    figures.active_units(path, activity[:layers])
    assert pixels(path).shape == (540, 900 if layers == 1 else 690 * layers)
    assert {rgb("#0072B2"), rgb("#999999"), rgb("#D55E00")} <= colours(path)


@pytest.mark.parametrize("values", [[0.0] * 5, [1.0], [3e-9, 5.0]])
def test_active_units_of_extreme_activity(tmp_path, values):
    figures.active_units(tmp_path / "activity.png", [np.array(values, np.float32)])
    pixels(tmp_path / "activity.png")


def test_active_units_counts_in_its_title(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    figures.active_units(tmp_path / "a.png", [np.array([0.5, 0.01, 0.011, 0]), np.array([1e-3])])
    assert titles == [
        "layer 1: 2 of 4 units active (above 0.01)",
        "layer 2: 0 of 1 units active (above 0.01)",
    ]


@pytest.mark.parametrize("classes", [None, 2, 10, 26])
def test_latent_scatter(tmp_path, classes):
    path = tmp_path / "scatter.png"
    means = np.random.default_rng(0).normal(size=(500, 2))
    labels = None if classes is None else np.arange(500) % classes
    figures.latent_scatter(path, means, labels)
    assert pixels(path).shape == (900, 930 if classes is None else 1020)
    if classes == 10:
        assert {rgb(colour) for colour in figures._TEN} <= colours(path)


def test_latent_grid_runs_to_the_right_and_upwards(tmp_path):
    path = tmp_path / "grid.png"
    n = 5
    normal = statistics.NormalDist()
    quantiles = [normal.inv_cdf((i + 0.5) / n) for i in range(n)]
    # Brightness 8 i + j for the image at (z_1, z_2) = (quantiles[i], quantiles[j])
    levels = np.array([8 * i + j for i in range(n) for j in range(n)]) / 36
    figures.latent_grid(path, np.ones((n * n, 28, 28)) * levels[:, None, None], n, quantiles)
    shown = pixels(path)
    side = 28 * 8  # eight pixels for each one
    assert shown.shape == (n * side + 134, n * side + 144)
    for i in range(n):
        for j in range(n):
            top, left = 24 + (n - 1 - j) * side, 120 + i * side
            tile = shown[top : top + side, left : left + side]
            assert tile.std() == 0 and abs(tile.mean() - 255 * (8 * i + j) / 36) <= 2
    assert shown[: n * side, :110].min() < 128 and shown[n * side + 30 :].min() < 128  # the labels


def test_latent_grid_refuses_other_numbers_of_images_or_quantiles(tmp_path):
    with pytest.raises(ValueError, match="2 x 2 images"):
        figures.latent_grid(tmp_path / "grid.png", tiles(4), 2, [0.0])
    with pytest.raises(ValueError, match="3 x 3 images"):
        figures.latent_grid(tmp_path / "grid.png", tiles(4), 3, [0.0, 1.0, 2.0])


def test_the_same_arrays_give_the_same_file_and_no_leftovers(tmp_path):
    for name in "ab":
        figures.latent_scatter(tmp_path / f"{name}.png", np.eye(2), [0, 1])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_global_settings_of_matplotlib_are_neither_changed_nor_used(tmp_path):
    import matplotlib

    figures.image_grid(tmp_path / "a.png", tiles(4), 2, "means")
    with matplotlib.rc_context({"savefig.dpi": 50, "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        figures.image_grid(tmp_path / "b.png", tiles(4), 2, "means")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot write .*: No such file or directory"):
        figures.image_grid(tmp_path / "missing" / "a.png", tiles(4), 2, "means")
