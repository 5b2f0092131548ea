"""Builders of tensorflow-datasets (TFDS) that need no TensorFlow.

The builders of TFDS, called stock builders here, use TensorFlow to unpack and read the files of
some sets, and to encode all arrays as PNG. The builders of this module do these steps with the
standard library and Pillow. They inherit name, version, features and checksums, so that they
prepare the same examples in the same folder as the stock builders.
"""

import functools
import gzip
import importlib.util
import inspect
import io
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered

from elbo_lab.errors import UserError

Builder = tfds.core.GeneratorBasedBuilder

# Files of MNIST, Fashion-MNIST and KMNIST, for each split: images, labels.
IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
AMAT_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
AMAT_FILES = {
    "train": "binarized_mnist_train.amat",
    "validation": "binarized_mnist_valid.amat",
    "test": "binarized_mnist_test.amat",
}
CIFAR10_FILES = {
    "train": [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["cifar-10-batches-bin/test_batch.bin"],
}
OMNIGLOT_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
OMNIGLOT_FILES = {
    "train": "images_background.zip",
    "test": "images_evaluation.zip",
    "small1": "images_background_small1.zip",
    "small2": "images_background_small2.zip",
}
# Sets in one HDF5 file, which their stock builders read as a whole: set -> number of images.
HDF5_IMAGES = {"dsprites": 737_280, "shapes3d": 480_000}
# Uses of TensorFlow in a stock builder's code: direct calls, and calls of TFDS's code that unpacks
# files, which uses it too.
_USES_TENSORFLOW = r"\btf\.\w|\biter_archive\b|\bdownload_and_extract\b|\.extract\("
# Packages whose modules have another name: module -> package.
_PACKAGES = {"bs4": "beautifulsoup4", "cv2": "opencv-python", "skimage": "scikit-image"}
# The first drawers of each alphabet's 20, whose images are the training set of omniglot_small.
TRAINING_DRAWERS = 15


@functools.cache
def builder_class_for(name: str) -> type[Builder]:
    """The class that prepares a set: one of this module, which inherits from the stock builder.

    It has two attributes more than the stock builder: `numbered` is True if the keys of the
    examples are their positions in the official files; `urls` are the URLs of the official files,
    or () if these are not known.

    Raises:
      KeyError: TFDS has no such set.
      UserError: the stock builder cannot be imported.
    """
    stock_name = "omniglot" if name == "omniglot_small" else name
    try:
        stock = tfds.builder_cls(stock_name)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise KeyError(name) from error
    except ImportError as error:
        raise UserError(import_message(name, error)) from error
    if stock.name != stock_name:  # TFDS accepts MNIST and Mnist for mnist.
        raise KeyError(name)
    with registered.skip_registration():
        return _MAKERS.get(name, _other)(stock)


def missing_packages(builder_class: type[Builder]) -> list[str]:
    """The packages that a builder's code uses and that are not installed."""
    if builder_class.urls:
        return []  # It does not run the stock builder's code.
    stock = builder_class.__mro__[1]
    code = inspect.getsource(sys.modules[stock.__module__])
    # TFDS names lazy imports after their modules, but PIL.Image as PIL_Image.
    modules = {name.partition("_")[0] for name in re.findall(r"\blazy_imports\.(\w+)", code)}
    if re.search(_USES_TENSORFLOW, code):
        modules.add("tensorflow")
    missing = (name for name in modules if importlib.util.find_spec(name) is None)
    return sorted(_PACKAGES.get(name, name) for name in missing)


def import_message(name: str, error: ImportError) -> str:
    """The error message for a set that needs a package that is not installed."""
    if not error.name:
        return f"--dataset={name} needs a package that is not installed ({error})."
    module = error.name.partition(".")[0]
    return f"--dataset={name} needs {module}: pip install {_PACKAGES.get(module, module)}."


def _idx(stock: type[Builder]) -> type[Builder]:
    """A set of images and labels in four gzipped IDX files."""

    class Idx(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = tuple(stock.URL + file for files in IDX_FILES.values() for file in files)
        numbered = True

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            paths = dl_manager.download({url: url for url in self.urls})
            splits = {}
            for split, (image_file, label_file) in IDX_FILES.items():
                images = _read_idx(open(paths[stock.URL + image_file], "rb"))
                labels = _read_idx(open(paths[stock.URL + label_file], "rb"))
                splits[split] = _idx_examples(images, labels)
            return splits

    return Idx


def _emnist(stock: type[Builder]) -> type[Builder]:
    """EMNIST: one zip file with four gzipped IDX files for each configuration."""

    class Emnist(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = (stock.URL,)
        numbered = True

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            archive = zipfile.ZipFile(dl_manager.download(stock.URL))
            splits = {}
            for split in ("train", "test"):
                stem = f"gzip/emnist-{self.builder_config.name}-{split}"
                images = _read_idx(archive.open(f"{stem}-images-idx3-ubyte.gz"))
                labels = _read_idx(archive.open(f"{stem}-labels-idx1-ubyte.gz"))
                splits[split] = _idx_examples(images, labels)
            return splits

    return Emnist


def _amat(stock: type[Builder]) -> type[Builder]:
    """Larochelle's binary images: one text file per split, one image of zeros and ones per line."""

    class Amat(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = tuple(AMAT_URL + file for file in AMAT_FILES.values())
        numbered = True

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            paths = dl_manager.download({s: AMAT_URL + file for s, file in AMAT_FILES.items()})
            return {split: self._generate_examples(path) for split, path in paths.items()}

        def _generate_examples(self, path: Any) -> Iterator:
            for i, image in enumerate(read_amat(path).reshape(-1, 28, 28)):
                yield i, {"image": Image.fromarray(image)}

    return Amat


def _cifar10(stock: type[Builder]) -> type[Builder]:
    """CIFAR-10: binary files with one byte of label and 3 x 32 x 32 bytes of pixels per image."""

    class Cifar10(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = tuple(stock.url_infos)
        numbered = True

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            path = dl_manager.download(self.urls[0])
            with tarfile.open(path) as archive:
                names = archive.extractfile("cifar-10-batches-bin/batches.meta.txt").read().decode()
                self.info.features["label"].names = [n for n in names.split("\n") if n]
                contents = {
                    split: b"".join(archive.extractfile(file).read() for file in files)
                    for split, files in CIFAR10_FILES.items()
                }
            return {s: self._generate_examples(s, content) for s, content in contents.items()}

        def _generate_examples(self, split: str, content: bytes) -> Iterator:
            rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for i, image in enumerate(images):
                picture = Image.fromarray(np.ascontiguousarray(image))
                yield i, {"id": f"{split}_{i:05d}", "image": picture, "label": int(rows[i, 0])}

    return Cifar10


def _omniglot(stock: type[Builder]) -> type[Builder]:
    """OMNIGLOT: one zip file per split, with a folder for each alphabet and character."""

    class Omniglot(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = tuple(OMNIGLOT_URL + file for file in OMNIGLOT_FILES.values())
        numbered = False

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            paths = dl_manager.download({s: OMNIGLOT_URL + f for s, f in OMNIGLOT_FILES.items()})
            splits = {split: dict(read_omniglot(path)) for split, path in paths.items()}
            examples = [e for split in splits.values() for e in split.values()]
            _name_classes(self.info.features, examples)
            return {split: iter(keyed.items()) for split, keyed in splits.items()}

    return Omniglot


def _omniglot_small(stock: type[Builder]) -> type[Builder]:
    """The union of OMNIGLOT's two small background sets, split by drawers.

    Greek and Latin are in both sets: 4,840 of 5,840 files are distinct, and each is used once.
    """

    class OmniglotSmall(stock):
        name = "omniglot_small"
        url_infos = stock.url_infos
        urls = tuple(OMNIGLOT_URL + OMNIGLOT_FILES[part] for part in ("small1", "small2"))
        numbered = False

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            examples = {}
            for path in dl_manager.download(list(self.urls)):
                examples |= dict(read_omniglot(path))
            _name_classes(self.info.features, list(examples.values()))
            splits = {"train": [], "test": []}
            for key, example in sorted(examples.items()):
                drawer = int(key.removesuffix(".png").rsplit("_", 1)[1])
                splits["train" if drawer <= TRAINING_DRAWERS else "test"].append((key, example))
            return {split: iter(keyed) for split, keyed in splits.items()}

    return OmniglotSmall


def _other(stock: type[Builder]) -> type[Builder]:
    """Any other set: the stock builder's examples, with arrays encoded by Pillow."""

    class Other(stock):
        name = stock.name
        url_infos = stock.url_infos
        urls = ()
        numbered = False

        def _generate_examples(self, *args: Any, **kwargs: Any) -> Any:
            examples = super()._generate_examples(*args, **kwargs)
            return map(_with_picture, examples) if inspect.isgenerator(examples) else examples

    return Other


def _hdf5(stock: type[Builder]) -> type[Builder]:
    """A set in one HDF5 file: the stock builder's examples, whose keys are their positions."""
    builder_class = _other(stock)
    builder_class.numbered = True
    return builder_class


# Set -> function of the stock builder that makes its builder; `_other` for other sets.
_MAKERS = {
    "mnist": _idx,
    "fashion_mnist": _idx,
    "kmnist": _idx,
    "emnist": _emnist,
    "binarized_mnist": _amat,
    "cifar10": _cifar10,
    "omniglot": _omniglot,
    "omniglot_small": _omniglot_small,
    **dict.fromkeys(HDF5_IMAGES, _hdf5),
}


def _with_picture(keyed: tuple[Any, Any]) -> tuple[Any, Any]:
    """The (key, example) pair with a uint8 image array made a Pillow image."""
    key, example = keyed
    image = example.get("image") if isinstance(example, dict) else None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        grey = image.ndim == 3 and image.shape[2] == 1
        example = {**example, "image": Image.fromarray(image[:, :, 0] if grey else image)}
    return key, example


def _idx_examples(images: np.ndarray, labels: np.ndarray) -> Iterator:
    """Yields (key, example) pairs; the key is the position."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield i, {"image": Image.fromarray(image), "label": int(label)}


def _read_idx(packed: Any) -> np.ndarray:
    """Reads a gzipped IDX file of bytes: 0, 0, 8 (the type), the rank, the sizes, the values.

    Args:
      packed: the open file, which is closed here.

    Returns:
      uint8, of the shape that the file gives.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with packed, gzip.open(packed) as file:
            content = file.read()
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not begin with the bytes 0, 0, 8")
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise UserError(f"{packed.name} is not a gzipped IDX file of bytes ({error}).") from error


def read_amat(path: Any) -> np.ndarray:
    """Reads lines of 784 digits, zero or one, separated by spaces: [N, 784], uint8.

    Raises:
      UserError: the file is damaged.
    """
    with open(path, "rb") as file:
        content = np.frombuffer(file.read(), np.uint8)
    width = 2 * 784  # a digit, and a space or the line's end
    if content.size == 0 or content.size % width:
        raise UserError(f"{path} does not consist of lines of 784 digits.")
    images = content.reshape(-1, width)[:, ::2] - np.uint8(ord("0"))
    if images.max() > 1:
        raise UserError(f"{path} holds values other than zero and one.")
    return images


def read_omniglot(path: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the (key, example) pairs of one of OMNIGLOT's zip files, equal to the stock builder's.

    A file's name, such as FOLDER/Greek/character01/0394_01.png, gives the alphabet, the character's
    number in its alphabet, its number among all characters, and the drawer.
    """
    with zipfile.ZipFile(path) as archive:
        for file in sorted(archive.namelist()):
            parts = file.split("/")
            if len(parts) != 4 or not parts[3].endswith(".png"):
                continue
            _, alphabet, character, image = parts
            number = int(character.removeprefix("character")) - 1
            example = {
                "image": io.BytesIO(archive.read(file)),
                "alphabet": alphabet,
                "alphabet_char_id": number,
                "label": int(image.split("_")[0]) - 1,
            }
            yield f"{alphabet}_{number}_{image}", example


def _name_classes(features: Any, examples: list[dict[str, Any]]) -> None:
    """Replaces each example's alphabet by its index, and names the classes of the features.

    Alphabets and characters are each named only if all of them occur: 50 and 1,623.
    """
    alphabets = sorted({e["alphabet"] for e in examples})
    if len(alphabets) == features["alphabet"].num_classes:
        features["alphabet"].names = alphabets
    for example in examples:
        example["alphabet"] = alphabets.index(example["alphabet"])
    names = {e["label"]: f"{alphabets[e['alphabet']]}_{e['alphabet_char_id']}" for e in examples}
    if len(names) == features["label"].num_classes:
        features["label"].names = [names[label] for label in sorted(names)]
