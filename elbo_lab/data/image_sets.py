"""Data sets that tensorflow-datasets knows, as `Dataset`s.

It is imported only when such a set is asked for.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from elbo_lab.data import tfds, tfds_builders
from elbo_lab.data.dataset import Dataset
from elbo_lab.errors import UserError

CHARDATA = "chardata.mat"
# OMNIGLOT's training and test images in Burda et al. (2016).
OMNIGLOT_SIZES = (24_345, 8_070)
OMNIGLOT_SEED = 123
SIDE = 28


def load(name: str, data_dir: str | None, manual_dir: str | None) -> Dataset:
    """A set by its name in tensorflow-datasets; `datasets.load` documents the arguments."""
    if name in _SPECIAL:
        return _SPECIAL[name](data_dir, manual_dir)
    # EMNIST's images lie on their side.
    convert = _transposed if name.partition("/")[0] == "emnist" else None
    train, test = tfds.load(name, data_dir, manual_dir, convert=convert).values()
    return _dataset(name, train, test)


def is_known(name: str) -> bool:
    """Whether tensorflow-datasets has a set of this name; a configuration may follow it."""
    try:
        tfds_builders.of_set(name.partition("/")[0])
    except KeyError:
        return False
    return True


def _dataset(name: str, train: tfds.Arrays, test: tfds.Arrays) -> Dataset:
    shape = train["image"].shape[1:]
    return Dataset(
        name,
        _flat(train["image"]),
        _flat(test["image"]),
        train.get("label"),
        test.get("label"),
        shape[:2] if shape[2] == 1 else shape,
    )


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _transposed(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 0, 2)


def _binarized_mnist(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """MNIST binarized once (Salakhutdinov and Murray 2008; Larochelle and Murray 2011): 60,000 +
    10,000 images, 0 and 255, no labels.

    The last 10,000 training images are the published validation images: held_out=10000 leaves the
    published 50,000 to train on.
    """
    names = ("train", "validation", "test")
    splits = tfds.load("binarized_mnist", data_dir, manual_dir, splits=names)
    train, validation, test = (splits[name]["image"] * np.uint8(255) for name in names)
    train = np.concatenate([train, validation])
    return _dataset("binarized_mnist", {"image": train}, {"image": test})


def _omniglot(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """OMNIGLOT (Lake et al. 2015), 24,345 + 8,070 images of 28 x 28 grey levels; labels: alphabets.

    If `manual_dir` holds chardata.mat, these are the very images of Burda et al. (2016), and
    held_out=1345 gives their split: see `read_chardata`. Otherwise all 32,460 drawings, 105 x 105,
    are made smaller by `smaller`, put into the order of RandomState(123).permutation, and the first
    24,345 are for training, the next 8,070 for testing. Neither these images nor this split are
    Burda et al.'s, so that likelihoods compare only roughly; the last 45 are left out to have their
    numbers, since their file has so many fewer than OMNIGLOT.
    """
    if manual_dir is not None:
        path = Path(manual_dir).expanduser() / CHARDATA
        if path.is_file():
            return read_chardata(path)
    splits = tfds.load(
        "omniglot", data_dir, manual_dir, ("train", "test"), label="alphabet", convert=smaller
    )
    both = {key: np.concatenate([splits[s][key] for s in splits]) for key in ("image", "label")}
    return _dataset("omniglot", *_permuted_split(both, OMNIGLOT_SIZES))


def _permuted_split(both: tfds.Arrays, sizes: tuple[int, int]) -> tuple[tfds.Arrays, tfds.Arrays]:
    order = np.random.RandomState(OMNIGLOT_SEED).permutation(len(both["image"]))
    train, test = order[: sizes[0]], order[sizes[0] : sum(sizes)]
    return {k: x[train] for k, x in both.items()}, {k: x[test] for k, x in both.items()}


def _omniglot_small(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """The small background sets of OMNIGLOT: 3,630 + 1,210 images of 28 x 28 grey levels, eight
    alphabets, each by 15 drawers for training and by 5 others for testing; labels: alphabets.
    """
    splits = tfds.load("omniglot_small", data_dir, manual_dir, label="alphabet", convert=smaller)
    return _dataset("omniglot_small", splits["train"], splits["test"])


_SPECIAL: dict[str, Callable[[str | None, str | None], Dataset]] = {
    "binarized_mnist": _binarized_mnist,
    "omniglot": _omniglot,
    "omniglot_small": _omniglot_small,
}


def smaller(image: np.ndarray) -> np.ndarray:
    """A drawing, black ink on white [H, W, C], as 28 x 28 grey levels [28, 28, 1]: a pixel's is the
    share of its area that ink covers, 255 for all of it.
    """
    ink = image[:, :, 0] < 128
    rows, columns = (_overlaps(side) for side in ink.shape)
    return np.round(255 * (rows @ ink @ columns.T)).astype(np.uint8)[:, :, None]


@functools.cache
def _overlaps(side: int) -> np.ndarray:
    """Share that each pixel has of each of 28 equal parts of a line of pixels: [28, side].

    Pillow's box filter would take whole pixels, three or four of 3.75.
    """
    ends = np.linspace(0, side, SIDE + 1)
    low = np.maximum(ends[:-1, None], np.arange(side))
    high = np.minimum(ends[1:, None], np.arange(side) + 1)
    return np.maximum(high - low, 0) * SIDE / side


def read_chardata(path: os.PathLike) -> Dataset:
    """The file of OMNIGLOT that Burda et al. (2016) publish with their code.

    Its arrays `data` [784, 24345] and `testdata` [784, 8070] hold an image a column, in [0, 1], and
    each image column after column. As in their code the training images are permuted by
    RandomState(123); its last 1,345 are those on which they do not train.

    Raises:
      UserError: the file is damaged, or another one.
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
        train, test = (_upright(content[key]) for key in ("data", "testdata"))
        labels = [_positions(content.get(key)) for key in ("target", "testtarget")]
    except Exception as error:  # the parser raises much more than ValueError on foreign bytes
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise UserError(
            f"{path} is not the file of OMNIGLOT with the arrays data and testdata [784, N] in "
            f"[0, 1] ({reason})."
        ) from error
    order = np.random.RandomState(OMNIGLOT_SEED).permutation(len(train))
    y_train, y_test = labels
    y_train = None if y_train is None else y_train[order]
    return Dataset("omniglot", train[order], test, y_train, y_test, (SIDE, SIDE))


def _upright(columns: np.ndarray) -> np.ndarray:
    """[784, N], each column an image column by column -> [N, 784], row by row, float32."""
    if columns.ndim != 2 or columns.shape[0] != SIDE**2 or columns.shape[1] == 0:
        raise ValueError(f"an array of the shape {columns.shape}")
    if not (columns.min() >= 0 and columns.max() <= 1):
        raise ValueError("values outside of [0, 1]")
    images = columns.T.reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
    return np.ascontiguousarray(_flat(images), dtype=np.float32)


def _positions(one_hot: np.ndarray | None) -> np.ndarray | None:
    """Alphabets as one-hot columns [50, N] -> [N], int32."""
    return None if one_hot is None else one_hot.argmax(axis=0).astype(np.int32)
