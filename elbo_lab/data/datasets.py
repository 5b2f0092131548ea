"""Image datasets as NumPy arrays: the registered ones, and any user's .npz file.

Grey levels are kept as they are stored (uint8 0..255 or float32 in [0, 1]); scaling and
binarization happen later, on the device.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elbo_lab.data.mapped import mapped
from elbo_lab.errors import UserError

_IMAGES = ("x_train", "x_test")
_LABELS = ("y_train", "y_test")
# Images that are looked at together.
_BLOCK = 4096
_VALID_VALUES = "valid are bool, integers in 0..255 and floats in [0, 1]"
_MAX_LABEL = np.iinfo(np.int32).max


class Dataset(NamedTuple):
    """Training and test images, flattened, with their labels where there are any."""

    name: str
    x_train: np.ndarray  # [N, D], uint8 in 0..255 or float32 in [0, 1]
    x_test: np.ndarray  # [N', D], of x_train's dtype
    y_train: np.ndarray | None  # [N], int32, or None
    y_test: np.ndarray | None  # [N'], int32, or None
    image_shape: tuple[int, ...]  # (H, W), or (H, W, C) if there are colours; their product is D


def load(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    in_file: bool = False,
) -> Dataset:
    """Loads a dataset by its registered name, from a path that ends in .npz, or any other image set
    of tensorflow-datasets by its name there ("kmnist", "emnist/letters", "cifar10").

    A .npz file holds `x_train` and `x_test`, and may hold `y_train` and `y_test`; other arrays in
    it are ignored. Images are [N, D], [N, H, W] or [N, H, W, 1]. A flat D has the image shape
    (s, s) if D is the square of s, else (1, D). Both image arrays hold values of one kind:

    - integers in 0..255, kept as uint8 grey levels. If no value of the two arrays together exceeds
      1, they are taken for binary images, not for almost black ones, and become 0 and 255;
    - bool, which becomes 0 and 255 as well;
    - floats in [0, 1], kept as float32.

    Args:
      name: a key of `DATASETS`, or the path of a .npz file (a leading ~ is expanded).
      data_dir: where tensorflow-datasets keeps prepared sets; its own place if None.
      manual_dir: a folder with a set's official files, which then are not downloaded.
      in_file: leave the images of an .npz in the file, if they are not compressed, and read them
        when they are used; they are checked all the same.

    Returns:
      The Dataset: images [N, D] and [N', D], labels [N] and [N'] or None.

    Raises:
      UserError: the name is unknown, the file is not as described, or the set can be neither found
        nor prepared; one sentence says where.
    """
    if name in DATASETS:
        return DATASETS[name](data_dir, manual_dir)
    if name.lower().endswith(".npz"):
        return _load_npz(name, in_file)
    if re.fullmatch(r"\w+(/[\w.-]+)?", name):
        from elbo_lab.data import image_sets

        if image_sets.is_known(name):
            return image_sets.load(name, data_dir, manual_dir)
    what = "is a folder, not a dataset" if os.path.isdir(name) else "is not a known dataset"
    raise UserError(
        f"{name!r} {what}; choose from {', '.join(sorted(DATASETS))}, "
        "or give the path of a file ending in .npz or the name of another image set of "
        "tensorflow-datasets."
    )


def hold_out(dataset: Dataset, number: int) -> Dataset:
    """The dataset without the last so many training images."""
    kept = len(dataset.x_train) - number
    y_train = None if dataset.y_train is None else dataset.y_train[:kept]
    return dataset._replace(x_train=dataset.x_train[:kept], y_train=y_train)


def digest(dataset: Dataset) -> str:
    """sha256 of the images of both splits, types and shapes included, as 64 hexadecimal digits."""
    value = hashlib.sha256()
    for images in (dataset.x_train, dataset.x_test):
        value.update(f"{images.dtype} {images.shape}".encode())
        value.update(np.ascontiguousarray(images).data)
    return value.hexdigest()


def is_binary(x: np.ndarray) -> bool:
    """Whether images hold nothing but black and white.

    Args:
      x: images of any shape, uint8 grey levels in 0..255 or floats in [0, 1].

    Returns:
      True if all values are 0 or 255 (uint8), or 0 or 1 (any other type).
    """
    white = 255 if x.dtype == np.uint8 else 1
    # Block by block: a file that is mapped into memory may be larger than it.
    blocks = (x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK))
    return all(bool(np.all((block == 0) | (block == white))) for block in blocks)


def _load_mnist_small(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """10,000 + 2,000 images of MNIST, balanced over the digits; see NOTICE.mnist_small.md."""
    del data_dir, manual_dir  # it comes with the package
    return _load_npz(str(Path(__file__).with_name("mnist_small.npz")))


def _of_tfds(name: str) -> Callable[[str | None, str | None], Dataset]:
    def load_set(data_dir: str | None, manual_dir: str | None) -> Dataset:
        from elbo_lab.data import image_sets  # which imports tensorflow_datasets

        return image_sets.load(name, data_dir, manual_dir)

    return load_set


# Dataset name -> function of data_dir and manual_dir. Flags offer the keys as choices.
DATASETS: dict[str, Callable[[str | None, str | None], Dataset]] = {
    "mnist_small": _load_mnist_small,
    "mnist": _of_tfds("mnist"),
    "fashion_mnist": _of_tfds("fashion_mnist"),
    "binarized_mnist": _of_tfds("binarized_mnist"),
    "omniglot": _of_tfds("omniglot"),
    "omniglot_small": _of_tfds("omniglot_small"),
}


def _load_npz(path: str, in_file: bool = False) -> Dataset:
    """Reads and checks a .npz file; `load` documents what it may hold."""
    arrays = _read_npz(path, in_file)
    x_train, x_test = (arrays[name] for name in _IMAGES)
    shapes = {name: _image_shape(path, name, arrays[name]) for name in _IMAGES}
    if shapes["x_train"] != shapes["x_test"]:
        raise UserError(
            f"{path}: x_train has images of size {shapes['x_train']} and x_test of size "
            f"{shapes['x_test']}, but both must have the same size."
        )
    x_train, x_test = _to_grey_levels(path, x_train, x_test)
    return Dataset(
        name=Path(path).stem,
        x_train=np.ascontiguousarray(x_train.reshape(len(x_train), -1)),
        x_test=np.ascontiguousarray(x_test.reshape(len(x_test), -1)),
        y_train=_check_labels(path, "y_train", arrays.get("y_train"), len(x_train)),
        y_test=_check_labels(path, "y_test", arrays.get("y_test"), len(x_test)),
        image_shape=shapes["x_train"],
    )


def _read_npz(path: str, in_file: bool) -> dict[str, np.ndarray]:
    """The arrays of the file that a dataset needs, unchecked, by name."""
    try:
        file = open(os.path.expanduser(path), "rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or _reason(error)
        raise UserError(
            f"{path} cannot be read ({reason}); give the path of an existing .npz file."
        ) from error
    with file:
        try:
            archive = np.load(file, allow_pickle=False)
        except Exception as error:  # the parsers raise much more than OSError on foreign bytes
            raise UserError(
                f"{path} is not a complete .npz file as numpy.savez writes it ({_reason(error)})."
            ) from error
        if isinstance(archive, np.ndarray):
            raise UserError(
                f"{path} is a single array (.npy); save x_train and x_test with numpy.savez."
            )
        with archive:
            missing = [name for name in _IMAGES if name not in archive.files]
            if missing:
                raise UserError(
                    f"{path} has no array {' and no array '.join(missing)}; "
                    f"it holds {', '.join(sorted(archive.files)) or 'nothing'}."
                )
            wanted = [name for name in _IMAGES + _LABELS if name in archive.files]
            return {name: _read_array(path, name, archive, in_file) for name in wanted}


def _read_array(path: str, name: str, archive: np.lib.npyio.NpzFile, in_file: bool) -> np.ndarray:
    """One array of the file. Truncation and bit errors inside it show only here."""
    try:
        array = mapped(os.path.expanduser(path), name) if in_file else None
        array = archive[name] if array is None else array
    except MemoryError as error:
        raise UserError(f"{path}: {name} does not fit into this machine's memory.") from error
    except Exception as error:  # zip, zlib, lzma and the header's parser each raise their own
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: {name} holds Python objects, which are never loaded since they can run "
                f"code; {_VALID_VALUES}."
            ) from error
        raise UserError(f"{path}: {name} is damaged or truncated ({_reason(error)}).") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: {name} is not an array as numpy.savez writes it.")
    return array


def _reason(error: Exception) -> str:
    """The first line of an error, without its full stop, or the error's type where it is mute."""
    lines = str(error).splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _image_shape(path: str, name: str, images: np.ndarray) -> tuple[int, int]:
    """Checks rank and size of an image array; returns (H, W)."""
    shape = images.shape
    if not (len(shape) in (2, 3) or (len(shape) == 4 and shape[3] == 1)):
        raise UserError(
            f"{path}: {name} has the shape {shape}; valid are [N, D], [N, H, W] and [N, H, W, 1]."
        )
    if images.size == 0:
        raise UserError(f"{path}: {name} is empty, with the shape {shape}.")
    if len(shape) > 2:
        return shape[1], shape[2]
    side = math.isqrt(shape[1])
    return (side, side) if side * side == shape[1] else (1, shape[1])


def _to_grey_levels(
    path: str, x_train: np.ndarray, x_test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Checks the values of both image arrays and stores them as uint8 or as float32."""
    kinds = {name: _kind(path, name, x) for name, x in zip(_IMAGES, (x_train, x_test), strict=True)}
    if kinds["x_train"] != kinds["x_test"]:
        # A test set of floats beside a training set of integers: any scale would be a guess.
        raise UserError(
            f"{path}: x_train holds {kinds['x_train']} ({x_train.dtype}) and x_test "
            f"{kinds['x_test']} ({x_test.dtype}), but both must hold values of the same kind."
        )
    if kinds["x_train"] == "floats":
        _check_floats(path, "x_train", x_train)
        _check_floats(path, "x_test", x_test)
        return x_train.astype(np.float32, copy=False), x_test.astype(np.float32, copy=False)
    if kinds["x_train"] == "integers":
        _check_range(path, "x_train", x_train, 255, "integers must lie in 0..255")
        _check_range(path, "x_test", x_test, 255, "integers must lie in 0..255")
    # Read as grey levels, a binary image of 0 and 1 would be black: 1/255 at its brightest. The two
    # splits are judged together, so that they cannot end up on different scales.
    white = 255 if max(x_train.max(), x_test.max()) <= 1 else 1
    x_train, x_test = (x.astype(np.uint8, copy=False) for x in (x_train, x_test))
    return (x_train, x_test) if white == 1 else (x_train * np.uint8(255), x_test * np.uint8(255))


def _kind(path: str, name: str, images: np.ndarray) -> str:
    """The kind of values that an image array holds, in words."""
    kinds = {"b": "bool", "i": "integers", "u": "integers", "f": "floats"}
    if images.dtype.kind not in kinds:
        raise UserError(f"{path}: {name} has the type {images.dtype}; {_VALID_VALUES}.")
    return kinds[images.dtype.kind]


def _check_floats(path: str, name: str, images: np.ndarray) -> None:
    """Refuses NaN, infinities and values outside of [0, 1]."""
    if not np.isfinite([images.min(), images.max()]).all():  # without an array of their size
        wrong = _first(~np.isfinite(images))
        raise UserError(
            f"{path}: {name} holds a NaN or infinite value, first in image {wrong}; "
            "floats must lie in [0, 1]."
        )
    remedy = "floats must lie in [0, 1] (grey levels in 0..255 are stored as uint8)"
    _check_range(path, name, images, 1, remedy)


def _check_range(path: str, name: str, images: np.ndarray, top: int, remedy: str) -> None:
    """Refuses values outside of [0, top], naming the first such image and its first such value."""
    if images.min() >= 0 and images.max() <= top:
        return
    outside = (images < 0) | (images > top)
    index = _first(outside)
    value = images[index][outside[index]][0]
    raise UserError(f"{path}: {name} holds the value {value} in image {index}; {remedy}.")


def _first(flags: np.ndarray) -> int:
    """Index of the first image [N, ...] with any flag set."""
    return int(np.argmax(flags.reshape(len(flags), -1).any(axis=1)))


def _check_labels(path: str, name: str, labels: np.ndarray | None, size: int) -> np.ndarray | None:
    """Checks labels [N] against the number of images; returns them as int32."""
    if labels is None:
        return None
    images = name.replace("y_", "x_")
    if labels.shape != (size,):
        raise UserError(
            f"{path}: {name} has the shape {labels.shape}, but {images} has {size} images, so "
            f"its labels must have the shape ({size},)."
        )
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path}: {name} has the type {labels.dtype}; labels must be integers.")
    outside = (labels < 0) | (labels > _MAX_LABEL)
    if outside.any():
        index = _first(outside)
        raise UserError(
            f"{path}: {name} holds the label {labels[index]} at index {index}; "
            f"labels must lie in 0..{_MAX_LABEL}."
        )
    return labels.astype(np.int32)
