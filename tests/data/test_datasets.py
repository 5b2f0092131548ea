"""The embedded dataset is what its notice says; users' files are read right or refused clearly."""

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from elbo_lab import validation
from elbo_lab.config import Config
from elbo_lab.data import DATASETS, Dataset, datasets, digest, hold_out, is_binary, load
from elbo_lab.errors import UserError

ROOT = Path(__file__).parents[2]
EMBEDDED = Path(datasets.__file__).with_name("mnist_small.npz")
GREY = np.array([[[0, 1], [128, 255]], [[3, 4], [5, 6]], [[7, 8], [9, 10]]], np.uint8)  # [3, 2, 2]
BITS = np.array([[[0, 1], [1, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 1]]], np.uint8)


def _save(folder, **arrays):
    """Writes a user's file of 3 training and 2 test images, or what the arguments replace."""
    arrays = {"x_train": GREY, "x_test": GREY[:2]} | arrays
    path = folder / "own.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def _npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _refusal(name):
    """The message with which a dataset is refused: one sentence, on one line."""
    with pytest.raises(UserError) as caught:
        load(str(name))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


# --- the embedded dataset ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    with np.load(EMBEDDED) as archive:
        return {name: archive[name] for name in archive.files}


def test_mnist_small_has_the_documented_sizes_and_balance():
    data = load("mnist_small")
    assert isinstance(data, Dataset) and "mnist_small" in DATASETS
    assert data.name == "mnist_small" and data.image_shape == (28, 28)
    assert data.x_train.shape == (10_000, 784) and data.x_test.shape == (2_000, 784)
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    assert data.x_train.flags.c_contiguous and data.x_test.flags.c_contiguous
    np.testing.assert_array_equal(np.bincount(data.y_train), [1_000] * 10)
    np.testing.assert_array_equal(np.bincount(data.y_test), [200] * 10)
    assert data.y_train.dtype == data.y_test.dtype == np.int32
    assert not is_binary(data.x_train)


def test_mnist_small_is_shuffled_and_traceable(embedded):
    for split, size, official in (("train", 10_000, 60_000), ("test", 2_000, 10_000)):
        index = embedded[f"index_{split}"]
        assert index.shape == (size,) and index.dtype == np.uint16
        assert len(np.unique(index)) == size and index.max() < official
        # Any tenth of shuffled data holds every digit about equally often.
        counts = np.bincount(embedded[f"y_{split}"][: size // 10], minlength=10)
        assert counts.min() > size // 200 and counts.max() < size // 50


def test_mnist_small_has_the_pixels_and_digests_of_its_notice(embedded):
    notice = EMBEDDED.with_name("NOTICE.mnist_small.md").read_text(encoding="utf-8")
    committed = dict(re.findall(r"\| `(\w+)` \| ([0-9a-f]{64}) \|", notice))
    assert committed == {
        name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in embedded.items()
    }
    assert int(embedded["x_train"].sum(dtype=np.int64)) == 261_782_327
    assert int(embedded["x_test"].sum(dtype=np.int64)) == 53_557_849
    for text in ("CC BY-SA 3.0", "Yann LeCun and Corinna Cortes", "subset"):
        assert text in notice


def test_mnist_small_has_the_bytes_that_the_script_wrote():
    digest = hashlib.sha256(EMBEDDED.read_bytes()).hexdigest()
    assert digest == "64d1b48d14ac96b74649d410099f7a7b6aa3c951259b61e3f4de47ae5fefe028"


def test_loading_does_not_import_jax():
    code = "import sys, elbo_lab.data as d; d.load('mnist_small'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- accepted files ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i2", "<i8", ">i4", "u8"])
@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 2, 1)])
def test_integers_become_grey_levels(tmp_path, dtype, shape):
    x = GREY.reshape(3, *shape).astype(dtype)
    data = load(_save(tmp_path, x_train=x, x_test=x[:2]))
    assert data.name == "own" and data.image_shape == (2, 2)
    assert data.y_train is None and data.y_test is None
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train, GREY.reshape(3, 4))
    np.testing.assert_array_equal(data.x_test, GREY[:2].reshape(2, 4))


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
def test_floats_stay_floats(tmp_path, dtype):
    x = (GREY / 256).astype(dtype)  # dyadic, so exact in every type
    data = load(_save(tmp_path, x_train=x, x_test=x[:2]))
    assert data.x_train.dtype == data.x_test.dtype == np.float32 and data.x_train.dtype.isnative
    np.testing.assert_array_equal(data.x_train, GREY.reshape(3, 4) / 256)


@pytest.mark.parametrize("dtype", [bool, "u1", "i8"])
def test_binary_images_get_the_full_scale(tmp_path, dtype):
    x = BITS.astype(dtype)
    data = load(_save(tmp_path, x_train=x, x_test=x[:2]))
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train, BITS.reshape(3, 4) * 255)
    np.testing.assert_array_equal(data.x_test, BITS[:2].reshape(2, 4) * 255)
    assert is_binary(data.x_train)


@pytest.mark.parametrize("dark", ["x_train", "x_test"])
def test_the_scale_is_decided_over_both_splits(tmp_path, dark):
    data = load(_save(tmp_path, **{dark: BITS}))
    np.testing.assert_array_equal(getattr(data, dark), BITS.reshape(3, 4))


def test_flat_sizes_that_are_no_square_are_one_row(tmp_path):
    x = GREY.reshape(2, 6)
    assert load(_save(tmp_path, x_train=x, x_test=x)).image_shape == (1, 6)
    x = GREY.reshape(2, 3, 2)
    assert load(_save(tmp_path, x_train=x, x_test=x)).image_shape == (3, 2)


def test_flat_and_square_images_of_one_size_go_together(tmp_path):
    assert load(_save(tmp_path, x_train=GREY.reshape(3, 4))).image_shape == (2, 2)


def test_labels_extra_arrays_and_memory_orders(tmp_path):
    x = np.asfortranarray(GREY)
    y = np.array([2, 0, 300], np.int64)
    data = load(_save(tmp_path, x_train=x, y_train=y, note=np.array(["text"])))
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
# Of shapes [N, ...]: the arrays as they are stored, and as they are to be read, [N, H, W(, 3)].
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
    # 3 x 4 pixels in colour, or 4 x 3 pixels, colours first: the former.
    "either order": (COLOUR[:, :3], COLOUR[:, :3], ("x_train, x_test read as [N, H, W, 3]",)),
    "one row": (COLOUR[:, :1, :, :1], COLOUR[:, :1, :, 0], None),
}


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_orders_of_axes(tmp_path, order, in_file):
    stored, images, notes = ORDERS[order]
    path = _save(tmp_path, x_train=stored, x_test=stored[:2])
    data = load(path, in_file=in_file)
    assert data.image_shape == images.shape[1:]
    np.testing.assert_array_equal(data.x_train.reshape(images.shape), images)
    np.testing.assert_array_equal(data.x_test.reshape(images[:2].shape), images[:2])
    if notes is not None:
        assert data.notes == notes


def test_orders_of_two_splits_that_differ(tmp_path):
    stored = ORDERS["colours first"][0]
    data = load(_save(tmp_path, x_train=COLOUR, x_test=stored))
    np.testing.assert_array_equal(data.x_test, data.x_train)
    assert data.notes == ("x_test read as [N, 3, H, W] (PyTorch's order)",)


def test_names_of_medmnist(tmp_path):
    y = RNG.integers(9, size=(5, 1), dtype=np.uint8)
    splits = {"train": slice(5), "val": slice(1, 2), "test": slice(2, 5)}
    arrays = {f"{n}_images": COLOUR[s] for n, s in splits.items()}
    arrays |= {f"{n}_labels": y[s] for n, s in splits.items()}
    absent = {"x_train": None, "x_test": None}
    data = load(_save(tmp_path, **absent, **arrays))
    assert data.image_shape == (6, 4, 3) and data.notes == ()
    np.testing.assert_array_equal(data.x_train, COLOUR.reshape(5, -1))
    np.testing.assert_array_equal(data.x_test, COLOUR[2:].reshape(3, -1))
    np.testing.assert_array_equal(data.y_train, y[:, 0])
    np.testing.assert_array_equal(data.y_test, y[2:, 0])
    assert data.y_train.dtype == np.int32
    # Without a test split the validation images are tested on; several labels are left out.
    arrays |= {
        "test_images": None,
        "test_labels": None,
        "val_labels": y[:1] * np.ones((1, 14), int),
    }
    data = load(_save(tmp_path, **absent, **arrays))
    np.testing.assert_array_equal(data.x_test, COLOUR[1:2].reshape(1, -1))
    assert data.y_test is None and len(data.y_train) == 5
    assert data.notes == ("val_images are the test images", "val_labels left out (14 columns)")


def _dsprites(folder):
    """The names, types and shapes of dSprites' file; image i has i lit pixels, shape i % 3."""
    lit = np.arange(16) < np.arange(12)[:, None]
    factors = np.zeros((12, 6), np.int64)
    factors[:, 1] = np.arange(12) % 3
    return _save(
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
    # Of each image its number, from its lit pixels: every image is in one split, in its order.
    train, test = (x.astype(int).sum(1) // 255 for x in (parts.x_train, parts.x_test))
    assert len(test) == 5 and sorted([*train, *test]) == list(range(12))
    assert list(train) == sorted(train) and list(test) == sorted(test)
    assert list(test) != list(range(7, 12))  # the set is sorted; its last images are like no others
    np.testing.assert_array_equal(parts.y_train, train % 3)
    np.testing.assert_array_equal(parts.y_test, test % 3)
    for again, same in zip(hold_out(whole, 5)[1:5], parts[1:5], strict=True):
        np.testing.assert_array_equal(again, same)
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
    data = hold_out(load(_save(tmp_path, y_train=np.arange(3))), 1)
    np.testing.assert_array_equal(data.x_train, GREY[:2].reshape(2, 4))
    np.testing.assert_array_equal(data.x_test, GREY[:2].reshape(2, 4))
    np.testing.assert_array_equal(data.y_train, [0, 1])


@pytest.mark.parametrize(
    ("x", "binary"),
    [
        (np.array([0, 255], np.uint8), True),
        (np.array([0, 1], np.uint8), False),
        (np.array([0, 1], np.float32), True),
        (np.array([0, 0.5], np.float32), False),
        (np.array([np.nan], np.float32), False),
        (np.array([True, False]), True),
    ],
)
def test_is_binary(x, binary):
    assert is_binary(x) is binary


# --- refused names and files ------------------------------------------------------------------


def test_unknown_names_list_the_choices(tmp_path):
    message = _refusal("mnist_smal")
    for text in ("'mnist_smal'", "mnist_small", "ending in .npz"):
        assert text in message
    assert "is a folder" in _refusal(tmp_path)
    assert "'' is not a known dataset" in _refusal("")


def test_files_that_cannot_be_opened(tmp_path):
    assert f"{tmp_path}/none.npz cannot be read (No such file" in _refusal(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz cannot be read (Is a directory)" in _refusal(tmp_path / "folder.npz")
    assert "cannot be read" in _refusal("a\0b.npz")
    assert "cannot be read" in _refusal("x" * 5000 + ".npz")


def test_unreadable_files(tmp_path, monkeypatch):
    def deny(*args):
        raise PermissionError(13, "Permission denied")

    # Root, who runs the tests in many containers, may read a file of any mode.
    monkeypatch.setattr("builtins.open", deny)
    assert "own.npz cannot be read (Permission denied)" in _refusal(tmp_path / "own.npz")


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04", pickle.dumps([1]), _npy(np.array([{}]))]
)
def test_files_that_are_no_archive(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    message = _refusal(path)
    assert f"{path} is not a complete .npz file" in message
    # NumPy's advice, to load it "unsafely".
    assert "pickle" not in message and "unsafe" not in message


def test_single_arrays(tmp_path):
    np.save(tmp_path / "own.npy", GREY)
    os.rename(tmp_path / "own.npy", tmp_path / "own.npz")
    assert "is a single array (.npy)" in _refusal(tmp_path / "own.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_refused_or_read_right(tmp_path, save):
    path = tmp_path / "own.npz"
    save(path, x_train=GREY, x_test=GREY[:2], y_train=np.arange(3))
    whole, expected = path.read_bytes(), load(str(path))
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        _refusal(path)
    for place in range(0, len(whole), 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            data = load(str(path))
        except UserError:
            continue
        # What zip does not protect are times and attributes, and the name of the optional labels.
        np.testing.assert_array_equal(data.x_train, expected.x_train)
        np.testing.assert_array_equal(data.x_test, expected.x_test)


def test_damage_inside_an_array_names_the_array(tmp_path):
    path = Path(_save(tmp_path))
    whole = path.read_bytes()
    place = whole.index(GREY.tobytes())
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    message = _refusal(path)
    assert f"{path}: x_train is damaged or truncated (Bad CRC-32" in message


def test_members_that_are_no_arrays(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", b"text")
        archive.writestr("x_test.npy", b"text")
    assert "x_train is not an array" in _refusal(path)


def test_arrays_larger_than_memory(tmp_path):
    path = tmp_path / "own.npz"
    header = np.lib.format.header_data_from_array_1_0(GREY) | {"shape": (2**50, 4)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train.npy", "x_test.npy"):
            with archive.open(name, "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
    assert "x_train does not fit into this machine's memory" in _refusal(path)


def test_missing_arrays_list_what_is_there(tmp_path):
    message = _refusal(_save(tmp_path, x_test=None, images=GREY))
    assert "has no array x_test" in message and "it holds images, x_train" in message
    message = _refusal(_save(tmp_path, x_train=None, x_test=None))
    assert "no array x_train and no array x_test; it holds nothing" in message
    message = _refusal(_save(tmp_path, x_train=None, x_test=None, train_images=GREY))
    assert "has no array test_images; it holds train_images; valid are x_train and" in message
    assert "or imgs, of which --held_out makes the test images" in message


# Arrays of the file, and what the refusal must say.
BAD_ARRAYS = {
    "objects": (dict(x_train=np.array([None])), "x_train holds Python objects"),
    "object labels": (dict(y_train=np.array([None])), "y_train holds Python objects"),
    "rank 0": (dict(x_train=np.uint8(3)), "x_train has the shape ()"),
    "rank 1": (dict(x_test=np.zeros(4)), "x_test has the shape (4,)"),
    "channels": (
        dict(x_test=np.zeros((2, 2, 2, 4))),
        "shape (2, 2, 2, 4); valid are [N, D], [N, H",
    ),
    "colour and grey": (
        dict(x_test=np.zeros((2, 2, 2, 3), np.uint8)),
        "x_train has images of size (2, 2) and x_test has images of size (2, 2, 3)",
    ),
    "rank 5": (dict(x_train=np.zeros((1,) * 5)), "x_train has the shape (1, 1, 1, 1, 1)"),
    "no images": (dict(x_test=GREY[:0]), "x_test is empty, with the shape (0, 2, 2)"),
    "no pixels": (dict(x_train=GREY[:, :, :0]), "x_train is empty, with the shape (3, 2, 0)"),
    "sizes": (
        dict(x_test=GREY.reshape(4, 3, 1)),
        "x_train has images of size (2, 2) and x_test has images of size (3, 1)",
    ),
    "complex": (dict(x_train=GREY * 1j), "x_train has the type complex128; valid are bool"),
    "text": (dict(x_test=np.full((2, 2, 2), "a")), "x_test has the type <U1"),
    "two kinds": (
        dict(x_test=GREY[:2] / 255),
        "x_train holds integers (uint8) and x_test holds floats (float64)",
    ),
    "bool and integer": (dict(x_test=GREY > 3), "x_test holds bool (bool)"),
    "nan": (
        dict(x_train=np.array([[0.0], [np.nan]]), x_test=np.zeros((1, 1))),
        "x_train holds a NaN or infinite value, first in image 1",
    ),
    "infinite": (
        dict(x_train=np.zeros((1, 1)), x_test=np.array([[0.0], [0.0], [-np.inf]])),
        "x_test holds a NaN or infinite value, first in image 2",
    ),
    "float above": (
        dict(x_train=np.array([[0.0, 0.0], [0.5, 1.5]]), x_test=np.zeros((1, 2))),
        "x_train holds the value 1.5 in image 1; floats must lie in [0, 1]",
    ),
    "float grey levels": (
        dict(x_train=GREY.astype(np.float32), x_test=GREY[:2].astype(np.float32)),
        "x_train holds the value 128.0 in image 0; floats must lie in [0, 1] (store (x + 1) / 2 of "
        "images in [-1, 1], and grey levels in 0..255 as uint8)",
    ),
    "float below": (
        dict(x_train=np.zeros((1, 1)), x_test=np.array([[-0.25]])),
        "x_test holds the value -0.25 in image 0; floats must lie in [0, 1] (store (x + 1) / 2 of",
    ),
    "integer above": (
        dict(x_train=GREY.astype(int) + 45),
        "x_train holds the value 300 in image 0; integers must lie in 0..255",
    ),
    "integer below": (
        dict(x_test=np.array([[[0, 0]] * 2, [[0, -1]] * 2], np.int8)),
        "x_test holds the value -1 in image 1",
    ),
    "label length": (
        dict(y_train=np.arange(2)),
        "y_train has the shape (2,), but x_train has 3 images",
    ),
    "label rank": (dict(y_test=np.zeros((2, 1, 1), int)), "y_test has the shape (2, 1, 1)"),
    "label columns": (dict(y_test=np.zeros((3, 1), int)), "y_test has the shape (3,), but x_test"),
    "label type": (dict(y_test=np.zeros(2)), "y_test has the type float64; labels must be integ"),
    "label sign": (dict(y_train=np.array([0, 1, -7])), "y_train holds the label -7 at index 2"),
    "label size": (dict(y_test=np.array([0, 2**40])), f"the label {2**40} at index 1"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused_by_name_and_value(tmp_path, case):
    arrays, expected = BAD_ARRAYS[case]
    path = _save(tmp_path, **arrays)
    message = _refusal(path)
    assert message.startswith(path) and expected in message
