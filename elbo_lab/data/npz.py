"""Users' .npz files as `Dataset`s; `datasets.load` documents their content."""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elbo_lab.data.dataset import Dataset, Factors
from elbo_lab.data.mapped import mapped
from elbo_lab.errors import UserError

_VALID_VALUES = "valid are bool, integers in 0..255 and floats in [0, 1]"
_VALID_SHAPES = "valid are [N, D], [N, H, W], [N, H, W, C] and [N, C, H, W] with 1 or 3 channels C"
_CHANNELS = (1, 3)
_MAX_LABEL = np.iinfo(np.int32).max


class _Names(NamedTuple):
    """Names of a file's arrays, for a training and a test split or for a single split."""

    images: tuple[str, ...]
    labels: tuple[str, ...]  # of the same splits; these arrays are optional
    label_column: int | None = None  # the column of labels [N, F] that is the class
    factors: tuple[str, ...] = ()  # the columns of labels [N, F] that are factors, by name


# dSprites' columns; one colour alone, and no factor.
_DSPRITES = ("", "shape", "scale", "orientation", "x", "y")

# The first entry whose image arrays are all in the file applies. train_images and so on are
# MedMNIST's names; validation images replace missing test images, as in `tfds`. imgs and
# latents_classes are dSprites' names; the columns of the latter are colour, shape, scale,
# orientation and two positions.
_CONVENTIONS = (
    _Names(("x_train", "x_test"), ("y_train", "y_test")),
    _Names(("train_images", "test_images"), ("train_labels", "test_labels")),
    _Names(("train_images", "val_images"), ("train_labels", "val_labels")),
    _Names(("imgs",), ("latents_classes",), label_column=1, factors=_DSPRITES),
)


def load(path: str, in_file: bool = False) -> Dataset:
    """Reads and checks an .npz file."""
    names, arrays = _read(path, in_file)
    images = {name: arrays[name] for name in names.images}
    shapes = {name: _image_shape(path, name, x) for name, x in images.items()}
    if len(set(shapes.values())) > 1:
        sizes = " and ".join(f"{name} has images of size {size}" for name, size in shapes.items())
        raise UserError(f"{path}: {sizes}, but both must have the same size.")
    notes: dict[str, list[str]] = {}  # note -> names of the arrays that it is about
    if "val_images" in images:
        notes["are the test images"] = ["val_images"]
    for name, x in images.items():
        if order := _order(x.shape):
            notes.setdefault(f"read as {order}", []).append(name)
        if _channels_first(x.shape):
            images[name] = np.moveaxis(x, 1, 3)
    images = _to_grey_levels(path, images)
    flat = [np.ascontiguousarray(x.reshape(len(x), -1)) for x in images.values()]
    labels: list[np.ndarray | None] = [None, None]
    factors = None
    for i, (name, image_name) in enumerate(zip(names.labels, images, strict=True)):
        if name not in arrays:
            continue
        column, note = _one_column(arrays[name], names.label_column)
        if note:
            notes.setdefault(note, []).append(name)
        if column is not None:
            size = len(images[image_name])
            labels[i] = _check_labels(path, name, column, image_name, size)
        if names.factors:
            factors = _factors(names.factors, arrays[name], len(images[image_name]))
    return Dataset(
        name=Path(path).stem,
        x_train=flat[0],
        x_test=flat[1] if len(flat) > 1 else flat[0][:0],
        y_train=labels[0],
        y_test=labels[1],
        image_shape=shapes[names.images[0]],
        notes=tuple(f"{', '.join(array_names)} {note}" for note, array_names in notes.items()),
        factors=factors,
    )


def _factors(columns: tuple[str, ...], labels: np.ndarray, number: int) -> Factors | None:
    """The named columns of a file with one split; None unless there is a row for each image."""
    if labels.shape != (number, len(columns)) or labels.dtype.kind not in "iu" or labels.min() < 0:
        return None
    kept = [i for i, name in enumerate(columns) if name]
    values = labels[:, kept].astype(np.int32)
    return Factors(tuple(columns[i] for i in kept), values, values[:0])


def _read(path: str, in_file: bool) -> tuple[_Names, dict[str, np.ndarray]]:
    """The naming convention of a file, and its images and labels, unchecked, by name."""
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
        except Exception as error:  # NumPy's and zipfile's parsers raise many types
            raise UserError(
                f"{path} is not a complete .npz file as numpy.savez writes it ({_reason(error)})."
            ) from error
        if isinstance(archive, np.ndarray):
            raise UserError(
                f"{path} is a single array (.npy); save x_train and x_test with numpy.savez."
            )
        with archive:
            names = _names(path, set(archive.files))
            wanted = [n for n in names.images + names.labels if n in archive.files]
            return names, {n: _read_array(path, n, archive, in_file) for n in wanted}


def _names(path: str, present: set[str]) -> _Names:
    """The naming convention that a file with these arrays follows."""
    for names in _CONVENTIONS:
        if present.issuperset(names.images):
            return names
    nearest = max(_CONVENTIONS, key=lambda names: len(present.intersection(names.images)))
    missing = [name for name in nearest.images if name not in present]
    raise UserError(
        f"{path} has no array {' and no array '.join(missing)}; it holds "
        f"{', '.join(sorted(present)) or 'nothing'}; valid are x_train and x_test, train_images "
        "and test_images (or val_images), or imgs, from which --held_out draws the test images."
    )


def _read_array(path: str, name: str, archive: np.lib.npyio.NpzFile, in_file: bool) -> np.ndarray:
    """One array of the file, memory-mapped if `in_file` and possible.

    Truncated and damaged arrays are detected here, when they are read.
    """
    try:
        array = mapped(os.path.expanduser(path), name) if in_file else None
        if array is None:
            array = archive[name]
    except MemoryError as error:
        raise UserError(f"{path}: {name} does not fit into this machine's memory.") from error
    except Exception as error:  # zipfile, zlib, lzma and NumPy raise many types
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: {name} holds Python objects, which are never loaded since they can run "
                "code; save an array of numbers."
            ) from error
        raise UserError(f"{path}: {name} is damaged or truncated ({_reason(error)}).") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: {name} is not an array as numpy.savez writes it.")
    return array


def _reason(error: Exception) -> str:
    """The first line of an error's message, without its full stop, or the error's type."""
    if "pickle" in str(error):  # NumPy advises allow_pickle, which can run code.
        return "it holds Python objects, which are never loaded, or no arrays at all"
    lines = str(error).splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _image_shape(path: str, name: str, images: np.ndarray) -> tuple[int, ...]:
    """Checks rank and size of an image array; returns (H, W), or (H, W, 3) for colours."""
    shape = images.shape
    has_channels = len(shape) == 4 and (shape[1] in _CHANNELS or shape[3] in _CHANNELS)
    if not (len(shape) in (2, 3) or has_channels):
        raise UserError(f"{path}: {name} has the shape {shape}; {_VALID_SHAPES}.")
    if images.size == 0:
        raise UserError(f"{path}: {name} is empty, with the shape {shape}.")
    if len(shape) == 2:
        side = math.isqrt(shape[1])
        return (side, side) if side * side == shape[1] else (1, shape[1])
    if _channels_first(shape):
        shape = (shape[0], *shape[2:], shape[1])
    is_grey = len(shape) == 3 or shape[3] == 1
    return shape[1:3] if is_grey else shape[1:]


def _channels_first(shape: tuple[int, ...]) -> bool:
    """True if images are [N, 1 or 3, H, W]; False if channels last is possible too."""
    return len(shape) == 4 and shape[3] not in _CHANNELS


def _order(shape: tuple[int, ...]) -> str | None:
    """The order of axes, if it has to be reported: channels first, or either order possible."""
    if _channels_first(shape):
        return f"[N, {shape[1]}, H, W] (PyTorch's order)"
    if len(shape) == 4 and shape[1] in _CHANNELS:
        return f"[N, H, W, {shape[3]}]"
    return None


def _to_grey_levels(path: str, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Checks the values of all image arrays and stores them as uint8 or as float32."""
    kinds = {name: _kind(path, name, x) for name, x in images.items()}
    if len(set(kinds.values())) > 1:
        # The scale of integers beside floats would be a guess.
        content = " and ".join(f"{n} holds {kinds[n]} ({x.dtype})" for n, x in images.items())
        raise UserError(f"{path}: {content}, but both must hold values of the same kind.")
    kind = next(iter(kinds.values()))
    if kind == "floats":
        for name, x in images.items():
            _check_floats(path, name, x)
        return {name: x.astype(np.float32, copy=False) for name, x in images.items()}
    if kind == "integers":
        for name, x in images.items():
            _check_range(path, name, x, 255, "integers must lie in 0..255")
    # Images of 0 and 1 are binary: as grey levels they would be almost black, at most 1/255. Both
    # splits decide together, so that they have the same scale.
    levels = {name: x.astype(np.uint8, copy=False) for name, x in images.items()}
    if max(x.max() for x in levels.values()) > 1:
        return levels
    return {name: x * np.uint8(255) for name, x in levels.items()}


def _kind(path: str, name: str, images: np.ndarray) -> str:
    """The kind of an image array's values: "bool", "integers" or "floats"."""
    kinds = {"b": "bool", "i": "integers", "u": "integers", "f": "floats"}
    if images.dtype.kind not in kinds:
        raise UserError(f"{path}: {name} has the type {images.dtype}; {_VALID_VALUES}.")
    return kinds[images.dtype.kind]


def _check_floats(path: str, name: str, images: np.ndarray) -> None:
    """Raises UserError for NaN, infinities and values outside of [0, 1]."""
    # min and max are NaN or infinite if any value is, and need no array of the images' size.
    if not np.isfinite([images.min(), images.max()]).all():
        index = _first(~np.isfinite(images))
        raise UserError(
            f"{path}: {name} holds a NaN or infinite value, first in image {index}; "
            "floats must lie in [0, 1]."
        )
    remedy = (
        "floats must lie in [0, 1] (store (x + 1) / 2 of images in [-1, 1], and grey levels in "
        "0..255 as uint8)"
    )
    _check_range(path, name, images, 1, remedy)


def _check_range(path: str, name: str, images: np.ndarray, top: int, remedy: str) -> None:
    """Raises UserError for values outside of [0, top]; names the first one and its image."""
    if images.min() >= 0 and images.max() <= top:
        return
    outside = (images < 0) | (images > top)
    index = _first(outside)
    value = images[index][outside[index]][0]
    raise UserError(f"{path}: {name} holds the value {value} in image {index}; {remedy}.")


def _first(flags: np.ndarray) -> int:
    """The index of the first image with any flag [N, ...] set."""
    return int(np.argmax(flags.reshape(len(flags), -1).any(axis=1)))


def _one_column(labels: np.ndarray, column: int | None) -> tuple[np.ndarray | None, str | None]:
    """Labels [N] of labels [N], [N, 1] or [N, F], None if they are ignored; and a note or None."""
    if labels.ndim != 2:
        return labels, None
    if labels.shape[1] == 1:
        return labels[:, 0], None
    if column is not None and column < labels.shape[1]:
        return labels[:, column], f"read at column {column} (of 0..{labels.shape[1] - 1})"
    return None, f"left out ({labels.shape[1]} columns)"


def _check_labels(path: str, name: str, labels: np.ndarray, images: str, size: int) -> np.ndarray:
    """Checks labels [N] against the number of images; returns them as int32."""
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
