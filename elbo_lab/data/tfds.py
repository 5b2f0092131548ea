"""Image sets of tensorflow-datasets (TFDS) as NumPy arrays, without TensorFlow.

There are three steps, each skipped if its result is already in `data_dir`:

1. the official files are downloaded, or taken from `manual_dir`, and their checksums compared
   (`tfds_prepare`);
2. TFDS prepares them as array_record files, which `tfds.data_source` can read as well;
3. the images, decoded and in the official files' order, are stored beside them in an .npz file.

Imported only when such a set is loaded, since importing TFDS is slow.
"""

import contextlib
import importlib.util
import io
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from tensorflow_datasets.core import hashing

from elbo_lab.data import tfds_builders, tfds_prepare
from elbo_lab.data.tfds_builders import Builder
from elbo_lab.errors import UserError
from elbo_lab.files import DAMAGE_ERRORS

# Examples read from the array_record files at a time.
BLOCK = 1000
# Start of the names of integer features that are factors of the images.
FACTOR = "label_"

Arrays = dict[str, np.ndarray]


def load(
    name: str,
    data_dir: str | None,
    manual_dir: str | None,
    splits: Sequence[str] | None = None,
    label: str = "label",
    convert: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Arrays]:
    """Loads splits of an image set, which is prepared first if necessary.

    Args:
      name: TFDS's name of the set, with a configuration if it has several ("emnist/letters").
      data_dir: folder of prepared sets; if None TFDS's default (TFDS_DATA_DIR, or
        ~/tensorflow_datasets).
      manual_dir: a folder with the official files, so that nothing is downloaded.
      splits: names of splits; if None, train, and test or validation, or train alone if the set
        has no other split.
      label: name of the integer feature that is the label, if the set has it.
      convert: function of an image [H, W, C] that gives the image to store.

    Returns:
      split -> {"image": [N, H, W, C], uint8, "label": [N], int32, if there are labels, and every
      integer feature whose name starts with `FACTOR`: [N], int32}. The order is that of the
      official files if the builder numbers its examples, else TFDS's.

    Raises:
      UserError: the set can be neither found in `data_dir` nor prepared, or does not consist of
        images of one size that fit into memory.
    """
    with _quiet():
        builder = _builder(name, data_dir)
        _check_features(builder)
        if not builder.is_prepared():
            # Checked before, since the preparation of an HDF5 file reads all of its images at once.
            _check_memory(builder, tfds_builders.HDF5_IMAGES.get(builder.name, 0))
            tfds_prepare.prepare(builder, manual_dir)
            # A new builder, since it may be another process that has prepared the set.
            builder = _builder(name, data_dir)
        _check_format(builder)
        splits = _splits(builder) if splits is None else splits
        if convert is None:
            _check_memory(builder, sum(builder.info.splits[s].num_examples for s in splits))
        features = _integer_features(builder, label)
        arrays = _read_cache(builder)
        if arrays is None or not _has_all(arrays, splits, features):
            arrays = {split: _read_split(builder, split, features, convert) for split in splits}
            _write_cache(builder, arrays)
    return arrays


def _builder(name: str, data_dir: str | None) -> Builder:
    """The builder of a set, with a checked name, configuration and folder."""
    set_name, _, config = name.partition("/")
    if importlib.util.find_spec("array_record") is None:
        raise UserError(f"--dataset={name} needs array_record: pip install array_record.")
    try:
        builder_class = tfds_builders.builder_class_for(set_name)
    except KeyError as error:
        raise UserError(f"tensorflow-datasets has no set {set_name!r}.") from error
    configs = list(builder_class.builder_configs)
    if config and config not in configs:
        valid = f"its configurations are {', '.join(configs)}" if configs else "it has none"
        raise UserError(f"--dataset={name}: {set_name} has no configuration {config!r}; {valid}.")
    if data_dir is not None:
        data_dir = os.path.abspath(os.path.expanduser(data_dir))
    try:
        builder = builder_class(data_dir=data_dir, config=config or None)
        _check_folder(Path(builder.data_dir_root))
        return builder
    except OSError as error:
        raise UserError(f"--data_dir={data_dir} cannot be read ({error}).") from error
    except ImportError as error:
        raise UserError(tfds_builders.import_message(name, error)) from error


def _check_folder(path: Path) -> None:
    """Raises UserError if the folder of prepared sets is a file, or has a file as its parent."""
    nearest = next(p for p in (path, *path.parents) if p.exists())
    if not nearest.is_dir():
        inside = "" if nearest == path else f" lies in {nearest}, which"
        raise UserError(f"--data_dir={path}{inside} is a file, not a folder.")


def _check_format(builder: Builder) -> None:
    """Raises UserError if the set is prepared only in formats that need TensorFlow."""
    formats = {str(file_format.value) for file_format in builder.info.available_file_formats()}
    if tfds_prepare.FILE_FORMAT not in formats:
        raise UserError(
            f"{builder.data_dir} holds {builder.name} as {' and '.join(sorted(formats))}, which "
            "cannot be read without TensorFlow; give another --data_dir, in which it is then "
            f"prepared as {tfds_prepare.FILE_FORMAT}."
        )


def _splits(builder: Builder) -> list[str]:
    """The names of the training split, and of the test or else the validation split.

    A set may have the training split alone.
    """
    available = list(builder.info.splits)
    if available == ["train"]:
        return available
    test = next((split for split in ("test", "validation") if split in available), None)
    if "train" not in available or test is None:
        raise UserError(
            f"--dataset={builder.name} needs the splits train, and test or validation, or the "
            f"split train alone; it has {', '.join(available)}."
        )
    return ["train", test]


def _check_features(builder: Builder) -> None:
    """Raises UserError if the set does not consist of 8-bit images of one size."""
    features = builder.info.features
    image = features["image"] if "image" in features else None
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"--dataset={builder.name} is not a set of 8-bit images.")
    if image.shape[-1] not in (1, 3):
        raise UserError(f"--dataset={builder.name} holds images that are neither grey nor RGB.")
    if None in image.shape:
        raise UserError(f"--dataset={builder.name} holds images of different sizes.")


def _integer_features(builder: Builder, label: str) -> dict[str, str]:
    """The integer features that are read, the label and the factors: our name -> TFDS's name."""
    features = builder.info.features
    names = {"label": label} if label in features else {}
    for name, feature in features.items():
        if not name.startswith(FACTOR) or feature.shape != ():
            continue
        if np.issubdtype(feature.np_dtype, np.integer):
            names[name] = name
    return names


def _check_memory(builder: Builder, number: int) -> None:
    """Raises UserError if the images do not fit into memory, which holds two copies for a while.

    Args:
      builder: the builder of the set.
      number: images of all splits that are read.
    """
    needed = 2 * number * math.prod(builder.info.features["image"].shape)
    if needed > psutil.virtual_memory().available:
        raise UserError(
            f"--dataset={builder.name} needs {needed / 2**30:.0f} GiB of memory, which is more "
            "than is available."
        )


def _read_split(
    builder: Builder,
    split: str,
    features: dict[str, str],
    convert: Callable[[np.ndarray], np.ndarray] | None,
) -> Arrays:
    """The images and integer features of one split, from the array_record files."""
    channels = builder.info.features["image"].shape[-1]
    # Unlike TFDS, Pillow decodes all formats, and black and white to 0 and 255.
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    number = len(source)
    order = _stored_order(builder, split, number)
    arrays: Arrays = {}
    for first in range(0, number, BLOCK):
        places = order[first : first + BLOCK]
        block = source.__getitems__(range(first, first + len(places)))
        images = [_decode(example["image"], channels) for example in block]
        values = {"image": np.stack(images if convert is None else [convert(x) for x in images])}
        for name, feature in features.items():
            values[name] = np.array([example[feature] for example in block], np.int32)
        for name, value in values.items():
            # Filled in place, since a list of all images would be another copy.
            if name not in arrays:
                arrays[name] = np.empty((number, *value.shape[1:]), value.dtype)
            arrays[name][places] = value
    return arrays


def _decode(encoded: bytes, channels: int) -> np.ndarray:
    """The pixels [H, W, C] of an encoded image."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image.convert({1: "L", 3: "RGB"}[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _stored_order(builder: Builder, split: str, number: int) -> np.ndarray:
    """The position in the official files of each stored image [number].

    TFDS stores examples sorted by a hash of their keys.
    """
    if builder.info.disable_shuffling or not builder.numbered:
        return np.arange(number)
    hasher = hashing.Hasher(split)
    return np.asarray(sorted(range(number), key=hasher.hash_key))


def _cache_path(builder: Builder) -> Path:
    return Path(builder.data_dir) / "elbo_lab_images.npz"


def _read_cache(builder: Builder) -> dict[str, Arrays] | None:
    """The splits that `_write_cache` stored; None if the file is missing or damaged."""
    splits: dict[str, Arrays] = {}
    try:
        # If np.load opened the file itself, it would stay open if it is damaged.
        with open(_cache_path(builder), "rb") as file, np.load(file) as archive:
            for key in archive.files:
                split, feature = key.split(":")
                splits.setdefault(split, {})[feature] = archive[key]
    except DAMAGE_ERRORS:
        return None
    return splits or None


def _has_all(arrays: dict[str, Arrays], splits: Sequence[str], features: dict[str, str]) -> bool:
    """True if stored arrays have the splits with all features; caches once had no factors."""
    return all({"image", *features} <= set(arrays.get(split, ())) for split in splits)


def _write_cache(builder: Builder, splits: dict[str, Arrays]) -> None:
    """Stores the decoded splits beside the prepared ones, unless that folder is read-only.

    Decoding 70,000 images takes about ten seconds, reading them from this file 0.1 seconds.
    """
    path = _cache_path(builder)
    arrays: dict[str, Any] = {}
    for split, features in splits.items():
        for feature, array in features.items():
            arrays[f"{split}:{feature}"] = array
    try:
        file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False)
    except OSError:
        return
    try:
        with file:
            np.savez(file, **arrays)
        os.chmod(file.name, 0o664)
        os.replace(file.name, path)
    except BaseException as error:
        os.unlink(file.name)
        if not isinstance(error, OSError):
            raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses TFDS's output on standard output, and its warnings about unprepared sets."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
