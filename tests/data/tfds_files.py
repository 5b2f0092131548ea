"""Tiny files in the official formats of image sets, and registration of their checksums."""

import contextlib
import gzip
import hashlib
import importlib.machinery
import io
import itertools
import struct
import sys
import tarfile
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

TRAIN, TEST = 30, 12


def grey_images(number: int, seed: int) -> np.ndarray:
    """[number, 28, 28], uint8; the first pixel of image i is i."""
    images = np.random.default_rng(seed).integers(0, 256, (number, 28, 28), dtype=np.uint8)
    images[:, 0, 0] = np.arange(number)
    return images


def idx(array: np.ndarray) -> bytes:
    """The content of a gzipped IDX file."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def write_mnist(folder: Path) -> dict[str, np.ndarray]:
    """The four files of MNIST, with 30 and 12 images."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, stem, number, seed in (("train", "train", TRAIN, 0), ("test", "t10k", TEST, 1)):
        arrays[f"x_{split}"] = grey_images(number, seed)
        arrays[f"y_{split}"] = np.arange(number) % 10
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(arrays[f"x_{split}"]))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(arrays[f"y_{split}"]))
    return arrays


def write_binarized_mnist(folder: Path) -> dict[str, np.ndarray]:
    """The three files of binarized MNIST, with 20, 5 and 6 images."""
    arrays = {}
    for part, number in (("train", 20), ("valid", 5), ("test", 6)):
        arrays[part] = grey_images(number, number).reshape(number, 784) % 2
        lines = (" ".join(map(str, row)) + "\n" for row in arrays[part])
        (folder / f"binarized_mnist_{part}.amat").write_text("".join(lines))
    return arrays


def write_emnist(folder: Path) -> dict[str, np.ndarray]:
    """EMNIST's zip file with the configuration "letters", 9 and 4 images."""
    arrays = {}
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for split, number in (("train", 9), ("test", 4)):
            arrays[split] = grey_images(number, number)
            stem = f"gzip/emnist-letters-{split}"
            archive.writestr(f"{stem}-images-idx3-ubyte.gz", idx(arrays[split]))
            archive.writestr(f"{stem}-labels-idx1-ubyte.gz", idx(np.arange(number)))
    return arrays


def write_cifar10(folder: Path) -> dict[str, np.ndarray]:
    """Five training files of 4 images, and a test file of 3."""
    rng = np.random.default_rng(0)
    arrays = {"train": [], "test": []}
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        add("batches.meta.txt", "\n".join(f"class_{i}" for i in range(10)).encode())
        files = [("train", f"data_batch_{i}.bin", 4) for i in range(1, 6)]
        for split, name, number in [*files, ("test", "test_batch.bin", 3)]:
            images = rng.integers(0, 256, (number, 3, 32, 32), dtype=np.uint8)
            rows = [bytes([i]) + image.tobytes() for i, image in enumerate(images)]
            add(name, b"".join(rows))
            arrays[split].append(images.transpose(0, 2, 3, 1))
    return {split: np.concatenate(parts) for split, parts in arrays.items()}


def write_omniglot(path: Path, characters: dict[str, int], drawers: int) -> None:
    """A zip file with a drawing of each character by each drawer.

    A drawing is 105 x 105, white, with a black mark on the left edge for the character and one on
    the lower edge for the drawer.

    Args:
      path: the zip file.
      characters: alphabet -> number of its characters.
      drawers: number of drawers.
    """
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/", "")
        for alphabet, number in characters.items():
            for character in range(number):
                for drawer in range(1, drawers + 1):
                    image = np.full((105, 105), 255, np.uint8)
                    image[15 * character : 15 * character + 15, :5] = 0
                    image[100:, 5 * drawer - 5 : 5 * drawer] = 0
                    content = io.BytesIO()
                    Image.fromarray(image).convert("1").save(content, format="png")
                    label = 100 * (len(alphabet) - 1) + character + 1
                    file = f"{alphabet}/character{character + 1:02d}/{label:04d}_{drawer:02d}.png"
                    archive.writestr(f"{path.stem}/{file}", content.getvalue())


def write_dsprites(folder: Path) -> dict[str, np.ndarray]:
    """A file with the arrays of dSprites, read by `install_h5py`: 24 images of 0 and 1.

    Image i has i + 1 white pixels. Its factors are 3 shapes, 2 scales, 1 orientation, 2 x and 2 y.
    """
    classes = np.array(list(itertools.product(range(1), *map(range, (3, 2, 1, 2, 2)))))
    lit = np.arange(64 * 64) <= np.arange(len(classes))[:, None]
    images = lit.reshape(-1, 64, 64).astype(np.uint8)
    file = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5"
    arrays = {"imgs": images, "latents/classes": classes, "latents/values": 0.5 * classes}
    _write_arrays(folder / file, arrays)
    return {"imgs": images, "latents_classes": classes}


def write_shapes3d(folder: Path) -> dict[str, np.ndarray]:
    """A file with the arrays of Shapes3D, read by `install_h5py`: 12 images of random colours.

    The file has the factors' values alone: here 2 hues of the floor, 1 of the wall, 3 of the
    object, 1 scale, 2 shapes and 1 orientation.
    """
    classes = np.array(list(itertools.product(*map(range, (2, 1, 3, 1, 2, 1)))))
    images = np.random.default_rng(0).integers(0, 256, (len(classes), 64, 64, 3), dtype=np.uint8)
    arrays = {"images": images, "labels": 0.1 * classes - 0.2}
    _write_arrays(folder / "3dshapes.h5", arrays)
    return {"images": images, "classes": classes}


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def install_h5py(monkeypatch) -> None:
    """Puts a module in place of h5py, whose `File` reads the files of `_write_arrays`."""
    module = types.ModuleType("h5py")
    module.__spec__ = importlib.machinery.ModuleSpec("h5py", None)
    module.File = _opened
    monkeypatch.setitem(sys.modules, "h5py", module)


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[dict]:
    """The arrays by name; "group/name" is the array `name` of the group."""
    assert mode == "r"
    content = {}
    with np.load(path) as archive:
        for key in archive.files:
            group, _, name = key.rpartition("/")
            (content.setdefault(group, {}) if group else content)[name] = archive[key]
    yield content


def register(name: str, folder: Path, monkeypatch) -> None:
    """Registers the files of a folder, by their checksums, as the official files of a set."""
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download.checksums import UrlInfo

    from elbo_lab.data import tfds_builders

    builder_class = tfds_builders.builder_class_for(name)
    infos = {}
    for url in builder_class.urls or builder_class.url_infos:
        file = builder_class.url_infos[url].filename
        content = (folder / file).read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        infos[url] = UrlInfo(utils.Size(len(content)), checksum, file)
    monkeypatch.setattr(builder_class, "url_infos", infos)
