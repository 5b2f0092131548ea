"""Users' .npz files are read correctly; test_npz_refusals.py tests invalid files."""

import os

import numpy as np
import pytest

from elbo_lab.cli import validation
from elbo_lab.configs import Config
from elbo_lab.data import digest, hold_out, is_binary, load
from elbo_lab.errors import UserError
from tests.data.npz_files import GREY, save

BITS = np.array([[[0, 1], [1, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 1]]], np.uint8)


@pytest.mark.parametrize("dtype", ["u1", "i2", "<i8", ">i4", "u8"])
@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 2, 1)])
def test_integers_become_grey_levels(tmp_path, dtype, shape):
    x = GREY.reshape(3, *shape).astype(dtype)
    data = load(save(tmp_path, x_train=x, x_test=x[:2]))
    assert data.name == "own" and data.image_shape == (2, 2)
    assert data.y_train is None and data.y_test is None
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train, GREY.reshape(3, 4))
    np.testing.assert_array_equal(data.x_test, GREY[:2].reshape(2, 4))


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
def test_floats_stay_floats(tmp_path, dtype):
    x = (GREY / 256).astype(dtype)  # dyadic, so exact in every type
    data = load(save(tmp_path, x_train=x, x_test=x[:2]))
    assert data.x_train.dtype == data.x_test.dtype == np.float32 and data.x_train.dtype.isnative
    np.testing.assert_array_equal(data.x_train, GREY.reshape(3, 4) / 256)


@pytest.mark.parametrize("dtype", [bool, "u1", "i8"])
def test_binary_images_get_the_full_scale(tmp_path, dtype):
    x = BITS.astype(dtype)
    data = load(save(tmp_path, x_train=x, x_test=x[:2]))
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train, BITS.reshape(3, 4) * 255)
    np.testing.assert_array_equal(data.x_test, BITS[:2].reshape(2, 4) * 255)
    assert is_binary(data.x_train)


@pytest.mark.parametrize("dark", ["x_train", "x_test"])
def test_the_scale_is_decided_over_both_splits(tmp_path, dark):
    data = load(save(tmp_path, **{dark: BITS}))
    np.testing.assert_array_equal(getattr(data, dark), BITS.reshape(3, 4))


def test_flat_sizes_that_are_no_square_are_one_row(tmp_path):
    x = GREY.reshape(2, 6)
    assert load(save(tmp_path, x_train=x, x_test=x)).image_shape == (1, 6)
    x = GREY.reshape(2, 3, 2)
    assert load(save(tmp_path, x_train=x, x_test=x)).image_shape == (3, 2)


def test_flat_and_square_images_of_one_size_go_together(tmp_path):
    assert load(save(tmp_path, x_train=GREY.reshape(3, 4))).image_shape == (2, 2)


def test_labels_extra_arrays_and_memory_orders(tmp_path):
    x = np.asfortranarray(GREY)
    y = np.array([2, 0, 300], np.int64)
    data = load(save(tmp_path, x_train=x, y_train=y, note=np.array(["text"])))
    np.testing.assert_array_equal(data.x_train, GREY.reshape(3, 4))
    np.testing.assert_array_equal(data.y_train, [2, 0, 300])
    assert data.y_train.dtype == np.int32 and data.y_test is None


def test_compressed_files_and_home_folders(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "own.NPZ", x_train=GREY, x_test=GREY)
    os.rename(tmp_path / "own.NPZ.npz", tmp_path / "own.NPZ")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("~/own.NPZ").x_train) == 3


RNG = np.random.default_rng(0)
COLOUR = RNG.integers(256, size=(5, 6, 4, 3), dtype=np.uint8)  # [N, H, W, 3]
# Order of axes: stored array, expected images [N, H, W] or [N, H, W, 3], expected notes (None: not
# checked).
ORDERS = {
    "colours": (COLOUR, COLOUR, ()),
    "colours first": (
        np.stack([COLOUR[..., c] for c in range(3)], axis=1),
        COLOUR,
        ("x_train, x_test read as [N, 3, H, W] (PyTorch's order)",),
    ),
    "one channel first": (
        COLOUR[:, None, :, :, 0],
        COLOUR[..., 0],
        ("x_train, x_test read as [N, 1, H, W] (PyTorch's order)",),
    ),
    # 3 x 4 pixels with the colours last, not 4 x 3 pixels with the colours first.
    "either order": (COLOUR[:, :3], COLOUR[:, :3], ("x_train, x_test read as [N, H, W, 3]",)),
    "one row": (COLOUR[:, :1, :, :1], COLOUR[:, :1, :, 0], None),
}


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_orders_of_axes(tmp_path, order, in_file):
    stored, images, notes = ORDERS[order]
    path = save(tmp_path, x_train=stored, x_test=stored[:2])
    data = load(path, in_file=in_file)
    assert data.image_shape == images.shape[1:]
    np.testing.assert_array_equal(data.x_train.reshape(images.shape), images)
    np.testing.assert_array_equal(data.x_test.reshape(images[:2].shape), images[:2])
    if notes is not None:
        assert data.notes == notes


def test_orders_of_two_splits_that_differ(tmp_path):
    stored = ORDERS["colours first"][0]
    data = load(save(tmp_path, x_train=COLOUR, x_test=stored))
    np.testing.assert_array_equal(data.x_test, data.x_train)
    assert data.notes == ("x_test read as [N, 3, H, W] (PyTorch's order)",)


def test_names_of_medmnist(tmp_path):
    y = RNG.integers(9, size=(5, 1), dtype=np.uint8)
    splits = {"train": slice(5), "val": slice(1, 2), "test": slice(2, 5)}
    arrays = {f"{n}_images": COLOUR[s] for n, s in splits.items()}
    arrays |= {f"{n}_labels": y[s] for n, s in splits.items()}
    absent = {"x_train": None, "x_test": None}
    data = load(save(tmp_path, **absent, **arrays))
    assert data.image_shape == (6, 4, 3) and data.notes == ()
    np.testing.assert_array_equal(data.x_train, COLOUR.reshape(5, -1))
    np.testing.assert_array_equal(data.x_test, COLOUR[2:].reshape(3, -1))
    np.testing.assert_array_equal(data.y_train, y[:, 0])
    np.testing.assert_array_equal(data.y_test, y[2:, 0])
    assert data.y_train.dtype == np.int32
    # Without a test split the validation images replace it; labels of several columns are ignored.
    arrays |= {
        "test_images": None,
        "test_labels": None,
        "val_labels": y[:1] * np.ones((1, 14), int),
    }
    data = load(save(tmp_path, **absent, **arrays))
    np.testing.assert_array_equal(data.x_test, COLOUR[1:2].reshape(1, -1))
    assert data.y_test is None and len(data.y_train) == 5
    assert data.notes == ("val_images are the test images", "val_labels left out (14 columns)")


def _dsprites(folder):
    """A file with dSprites' names and types; image i has i white pixels and the shape i % 3."""
    lit = np.arange(16) < np.arange(12)[:, None]
    factors = np.zeros((12, 6), np.int64)
    factors[:, 1] = np.arange(12) % 3
    return save(
        folder,
        x_train=None,
        x_test=None,
        metadata=np.array({"title": "dSprites"}, dtype=object),
        imgs=lit.reshape(12, 4, 4).astype(np.uint8),
        latents_classes=factors,
        latents_values=factors.astype(np.float64),
    )


@pytest.mark.parametrize("in_file", [False, True])
def test_one_split_by_the_names_of_dsprites(tmp_path, in_file):
    whole = load(_dsprites(tmp_path), in_file=in_file)
    assert whole.x_train.shape == (12, 16) and whole.image_shape == (4, 4)
    assert whole.x_test.shape == (0, 16) and whole.x_test.dtype == np.uint8
    assert whole.y_test is None and len(digest(whole)) == 64
    parts = hold_out(whole, 5)
    # The number of white pixels identifies an image: each is in one split, in its order.
    train, test = (x.astype(int).sum(1) // 255 for x in (parts.x_train, parts.x_test))
    assert len(test) == 5 and sorted([*train, *test]) == list(range(12))
    assert list(train) == sorted(train) and list(test) == sorted(test)
    assert list(test) != list(range(7, 12))  # a draw, not the last images
    np.testing.assert_array_equal(parts.y_train, train % 3)
    np.testing.assert_array_equal(parts.y_test, test % 3)
    assert parts.factors.names == ("shape", "scale", "orientation", "x", "y")
    np.testing.assert_array_equal(parts.factors.train[:, 0], train % 3)
    np.testing.assert_array_equal(parts.factors.test[:, 0], test % 3)
    for again, first in zip(hold_out(whole, 5)[1:5], parts[1:5], strict=True):
        np.testing.assert_array_equal(again, first)
    assert parts.notes == (
        "latents_classes read at column 1 (of 0..5)",
        "5 of its 12 images, drawn once, are the test images",
    )


def test_one_split_needs_to_hold_out_images(tmp_path):
    dataset = load(_dsprites(tmp_path))
    with pytest.raises(
        UserError, match="--held_out must be at least 1 for own, .* of its 12 images"
    ):
        validation.check_data(Config(batch_size=2), dataset)
    validation.check_data(Config(batch_size=2, held_out=5), dataset)


def test_a_set_of_two_splits_holds_out_its_last_images(tmp_path):
    data = hold_out(load(save(tmp_path, y_train=np.arange(3))), 1)
    np.testing.assert_array_equal(data.x_train, GREY[:2].reshape(2, 4))
    np.testing.assert_array_equal(data.x_test, GREY[:2].reshape(2, 4))
    np.testing.assert_array_equal(data.y_train, [0, 1])
