"""OMNIGLOT: splits, sizes, and the file of Burda et al."""

import numpy as np
import pytest
import scipy.io

from elbo_lab.data import image_sets, load, tfds_builders
from tests.data import tfds_files
from tests.data.npz_files import refusal


def marks(images: np.ndarray) -> list[tuple[int, int]]:
    """Character and first black pixel of the drawer's mark, of images by `write_omniglot`."""
    images = images.reshape(-1, 28, 28)
    return [(int(x[:, 0].argmax()) // 4, int(x[27].argmax())) for x in images]


def test_omniglot_small_is_split_by_drawers_and_has_no_image_twice(tmp_path, monkeypatch):
    # As in the official files, an alphabet is in both parts.
    alphabets = {1: {"Greek": 2, "Latin": 1}, 2: {"Greek": 2, "Tagalog": 3}}
    for part, characters in alphabets.items():
        path = tmp_path / f"images_background_small{part}.zip"
        tfds_files.write_omniglot(path, characters, drawers=20)
    tfds_files.register("omniglot_small", tmp_path, monkeypatch)
    dataset = load("omniglot_small", str(tmp_path / "prepared"), str(tmp_path))
    assert dataset.x_train.shape == (6 * 15, 784) and dataset.x_test.shape == (6 * 5, 784)
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        counts = np.bincount(y) * 6 / len(y)
        np.testing.assert_array_equal(counts, [2, 1, 3])  # Greek, Latin, Tagalog
        drawings = {(alphabet, image.tobytes()) for alphabet, image in zip(y, x, strict=True)}
        assert len(drawings) == len(x)
    # A drawer's mark of five pixels begins at 5 (drawer - 1) of 105, 5 (drawer - 1) / 3.75 of 28.
    assert max(drawer for _, drawer in marks(dataset.x_train)) == np.ceil(5 * 14 / 3.75)
    assert min(drawer for _, drawer in marks(dataset.x_test)) == np.ceil(5 * 15 / 3.75)


def test_omniglot_in_a_fixed_order_without_chardata(tmp_path, monkeypatch):
    for split, file in tfds_builders.OMNIGLOT_FILES.items():
        characters = {"Korean": 2} if split == "test" else {"Bengali": 3, "Greek": 1}
        tfds_files.write_omniglot(tmp_path / file, characters, drawers=5)
    tfds_files.register("omniglot", tmp_path, monkeypatch)
    monkeypatch.setattr(image_sets, "OMNIGLOT_SIZES", (20, 8))
    data_dir = str(tmp_path / "prepared")
    dataset = load("omniglot", data_dir, str(tmp_path))
    assert dataset.x_train.shape == (20, 784) and dataset.x_test.shape == (8, 784)
    assert dataset.image_shape == (28, 28) and set(dataset.y_train) == {0, 1, 2}
    again = load("omniglot", data_dir)
    np.testing.assert_array_equal(dataset.x_train, again.x_train)
    x, y = (np.concatenate([getattr(dataset, f"{n}_{s}") for s in ("train", "test")]) for n in "xy")
    assert len({(a, b.tobytes()) for a, b in zip(y, x, strict=True)}) >= 28 - 5


def test_downscaled_grey_levels_are_shares_of_ink():
    image = np.full((105, 105, 3), 255, np.uint8)
    image[:15, :30] = 0  # four rows and eight columns of 28
    image[60:75, 60:61] = 0  # one of the 3.75 columns of output column 16
    small = image_sets.downscaled(image)[:, :, 0]
    expected = np.zeros((28, 28))
    expected[:4, :8] = 255
    expected[16:20, 16] = 255 / 3.75
    assert np.abs(small - expected).max() <= 0.5


# --- chardata.mat -------------------------------------------------------------------------------


def test_chardata_stands_upright_in_the_published_order(tmp_path):
    rng = np.random.default_rng(0)
    images = {"data": rng.random((9, 28, 28)), "testdata": rng.random((4, 28, 28))}
    content = {key: x.transpose(0, 2, 1).reshape(len(x), 784).T for key, x in images.items()}
    content["target"], content["testtarget"] = np.eye(50)[:, :9], np.eye(50)[:, 3:7]
    scipy.io.savemat(tmp_path / "chardata.mat", content)
    dataset = load("omniglot", str(tmp_path / "nothing"), str(tmp_path))
    order = np.random.RandomState(123).permutation(9)
    expected = images["data"][order].reshape(9, 784).astype(np.float32)
    np.testing.assert_array_equal(dataset.x_train, expected)
    np.testing.assert_array_equal(dataset.y_train, order)
    np.testing.assert_array_equal(dataset.x_test, images["testdata"].reshape(4, 784).astype("f4"))
    np.testing.assert_array_equal(dataset.y_test, [3, 4, 5, 6])
    assert dataset.image_shape == (28, 28) and dataset.x_train.flags.c_contiguous


@pytest.mark.parametrize(
    "content",
    [
        b"other bytes",
        {"data": np.zeros((784, 3))},
        {"data": np.zeros((3, 784)), "testdata": np.zeros((3, 784))},
        {"data": np.full((784, 3), 255.0), "testdata": np.zeros((784, 3))},
    ],
)
def test_another_file_than_chardata(tmp_path, content):
    path = tmp_path / "chardata.mat"
    path.write_bytes(content) if isinstance(content, bytes) else scipy.io.savemat(path, content)
    message = refusal("omniglot", None, str(tmp_path))
    assert message.startswith(f"{path} is not the file of OMNIGLOT")
