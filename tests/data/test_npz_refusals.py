"""Users' .npz files that cannot be read are refused with an error message of one line."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from elbo_lab.data import load
from elbo_lab.errors import UserError
from tests.data.npz_files import GREY, refusal, save


def _npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def test_files_that_cannot_be_opened(tmp_path):
    assert f"{tmp_path}/none.npz cannot be read (No such file" in refusal(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz cannot be read (Is a directory)" in refusal(tmp_path / "folder.npz")
    assert "cannot be read" in refusal("a\0b.npz")
    assert "cannot be read" in refusal("x" * 5000 + ".npz")


def test_unreadable_files(tmp_path, monkeypatch):
    def deny(*args):
        raise PermissionError(13, "Permission denied")

    # Root, who runs the tests in many containers, may read a file of any mode.
    monkeypatch.setattr("builtins.open", deny)
    assert "own.npz cannot be read (Permission denied)" in refusal(tmp_path / "own.npz")


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04", pickle.dumps([1]), _npy(np.array([{}]))]
)
def test_files_that_are_no_archive(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    message = refusal(path)
    assert f"{path} is not a complete .npz file" in message
    # NumPy advises to load the file "unsafely".
    assert "pickle" not in message and "unsafe" not in message


def test_single_arrays(tmp_path):
    np.save(tmp_path / "own.npy", GREY)
    os.rename(tmp_path / "own.npy", tmp_path / "own.npz")
    assert "is a single array (.npy)" in refusal(tmp_path / "own.npz")


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_damaged_files_are_refused_or_read_right(tmp_path, writer):
    path = tmp_path / "own.npz"
    writer(path, x_train=GREY, x_test=GREY[:2], y_train=np.arange(3))
    whole, expected = path.read_bytes(), load(str(path))
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        refusal(path)
    for place in range(0, len(whole), 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            data = load(str(path))
        except UserError:
            continue
        # No checksum covers a zip file's times and attributes, and the name of the optional labels.
        np.testing.assert_array_equal(data.x_train, expected.x_train)
        np.testing.assert_array_equal(data.x_test, expected.x_test)


def test_damage_inside_an_array_names_the_array(tmp_path):
    path = Path(save(tmp_path))
    whole = path.read_bytes()
    place = whole.index(GREY.tobytes())
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    message = refusal(path)
    assert f"{path}: x_train is damaged or truncated (Bad CRC-32" in message


def test_members_that_are_no_arrays(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", b"text")
        archive.writestr("x_test.npy", b"text")
    assert "x_train is not an array" in refusal(path)


def test_arrays_larger_than_memory(tmp_path):
    path = tmp_path / "own.npz"
    header = np.lib.format.header_data_from_array_1_0(GREY) | {"shape": (2**50, 4)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train.npy", "x_test.npy"):
            with archive.open(name, "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
    assert "x_train does not fit into this machine's memory" in refusal(path)


def test_missing_arrays_list_what_is_there(tmp_path):
    message = refusal(save(tmp_path, x_test=None, images=GREY))
    assert "has no array x_test" in message and "it holds images, x_train" in message
    message = refusal(save(tmp_path, x_train=None, x_test=None))
    assert "no array x_train and no array x_test; it holds nothing" in message
    message = refusal(save(tmp_path, x_train=None, x_test=None, train_images=GREY))
    assert "has no array test_images; it holds train_images; valid are x_train and" in message
    assert "or imgs, from which --held_out draws the test images" in message


# Arrays of the file, and a part of the error message.
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
    path = save(tmp_path, **arrays)
    message = refusal(path)
    assert message.startswith(path) and expected in message
