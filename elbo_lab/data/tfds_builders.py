"""Builders of tensorflow-datasets that need no TensorFlow.

Those of MNIST's family need it to unpack, to read and to encode files. These here inherit name,
version, features and checksums, so that what they prepare is what the stock builder would
have prepared, in the same place, and each does those three things with the standard library.
"""

import functools
import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered

from elbo_lab.errors import UserError

# The official names of an IDX set's files, for each split: images, labels.
IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
IDX_SETS = ("mnist", "fashion_mnist", "kmnist")
AMAT_FILES = {
    split: f"binarized_mnist_{part}.amat"
    for split, part in [("train", "train"), ("validation", "valid"), ("test", "test")]
}
AMAT_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"


def make(name: str, data_dir: str | None, file_format: str) -> tfds.core.DatasetBuilder:
    """The builder of a set by its name: ours where there is one.

    Raises:
      UserError: the data in `data_dir` are prepared in another format.
    """
    builder_class = _ours(name)
    try:
        return builder_class(data_dir=data_dir, file_format=file_format)
    except ValueError as error:
        raise UserError(
            f"--data_dir={data_dir} holds {name} in another format than array_record, which only "
            "TensorFlow reads; give another folder."
        ) from error


def is_numbered(name: str) -> bool:
    """Whether the keys of a set's examples are their positions in the official files."""
    return name in (*IDX_SETS, "binarized_mnist")


@functools.cache
def _ours(name: str) -> type[tfds.core.DatasetBuilder]:
    stock = tfds.builder_cls(name)
    with registered.skip_registration():
        if name == "binarized_mnist":
            return _amat(stock)
        return _idx(stock)


def _idx(stock: type[tfds.core.GeneratorBasedBuilder]) -> type[tfds.core.GeneratorBasedBuilder]:
    """A builder of images and labels in four gzipped IDX files, as MNIST's are."""

    class Idx(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = tuple(stock.URL + file for files in IDX_FILES.values() for file in files)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            paths = dl_manager.download({url: url for url in self.urls})
            return {
                split: self._generate_examples(*(paths[stock.URL + file] for file in files))
                for split, files in IDX_FILES.items()
            }

        def _generate_examples(self, images: Any, labels: Any) -> Iterator:
            for i, (image, label) in enumerate(
                zip(read_idx(images), read_idx(labels), strict=True)
            ):
                yield i, {"image": Image.fromarray(image), "label": int(label)}

    return Idx


def _amat(stock: type[tfds.core.GeneratorBasedBuilder]) -> type[tfds.core.GeneratorBasedBuilder]:
    """Larochelle's binary images: a text file for each split, an image of zeros and ones a line."""

    class Amat(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = tuple(AMAT_URL + file for file in AMAT_FILES.values())

        def _info(self) -> tfds.core.DatasetInfo:
            shape = (28, 28, 1)
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=shape)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            paths = dl_manager.download({s: AMAT_URL + file for s, file in AMAT_FILES.items()})
            return {split: self._generate_examples(path) for split, path in paths.items()}

        def _generate_examples(self, path: Any) -> Iterator:
            for i, image in enumerate(read_amat(path).reshape(-1, 28, 28)):
                yield i, {"image": Image.fromarray(image)}

    return Amat


def read_idx(path: Any) -> np.ndarray:
    """A gzipped IDX file of bytes: two zero bytes, the type 8, the rank, the sizes, the values.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
        if content[:3] != b"\0\0\x08":
            raise ValueError("another magic number")
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise UserError(f"{path} is not a gzipped IDX file of bytes ({error}).") from error


def read_amat(path: Any) -> np.ndarray:
    """Lines of 784 digits zero or one with spaces between them: [N, 784], uint8.

    Raises:
      UserError: the file is damaged.
    """
    with open(path, "rb") as file:
        content = np.frombuffer(file.read(), np.uint8)
    width = 2 * 784  # a digit, and a space or the line's end
    if content.size % width:
        raise UserError(f"{path} is not made of lines of 784 digits.")
    images = content.reshape(-1, width)[:, ::2] - ord("0")
    if images.max(initial=0) > 1:
        raise UserError(f"{path} holds other values than zero and one.")
    return images
