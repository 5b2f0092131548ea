"""Image sets of tensorflow-datasets as `Dataset`s.

Imported only when such a set is loaded, since importing tensorflow-datasets is slow.
"""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from elbo_lab.data import tfds, tfds_builders
from elbo_lab.data.dataset import Dataset, Factors
from elbo_lab.errors import UserError

CHARDATA = "chardata.mat"
# Numbers of training and test images of OMNIGLOT in Burda et al. (2016).
OMNIGLOT_SIZES = (24_345, 8_070)
OMNIGLOT_SEED = 123
SIDE = 28
# Features that are the label, the first that a set has; of sets with factors, the object's class.
LABELS = ("label", "label_shape", "label_category")


def load(name: str, data_dir: str | None, manual_dir: str | None) -> Dataset:
    """Loads a set by its name in tensorflow-datasets; `datasets.load` documents the arguments."""
    if name in _LOADERS:
        return _LOADERS[name](data_dir, manual_dir)
    # EMNIST's files hold transposed images.
    convert = _transposed if name.partition("/")[0] == "emnist" else None
    return _dataset(name, *tfds.load(name, data_dir, manual_dir, convert=convert).values())


def is_known(name: str) -> bool:
    """True if tensorflow-datasets has a set of this name; "NAME/CONFIGURATION" is valid too."""
    try:
        tfds_builders.builder_class_for(name.partition("/")[0])
    except KeyError:
        return False
    return True


def _dataset(name: str, train: tfds.Arrays, test: tfds.Arrays | None = None) -> Dataset:
    """The data set of arrays as `tfds.load` gives them; of one split without `test`."""
    y_test = None if test is None else _label(test)
    if test is None:
        test = {feature: array[:0] for feature, array in train.items()}
    x_train, x_test = _full_scale(train["image"], test["image"])
    shape = x_train.shape[1:]
    return Dataset(
        name=name,
        x_train=_flat(x_train),
        x_test=_flat(x_test),
        y_train=_label(train),
        y_test=y_test,
        image_shape=shape[:2] if shape[2] == 1 else shape,
        factors=_factors(train, test),
    )


def _label(arrays: tfds.Arrays) -> np.ndarray | None:
    return next((arrays[name] for name in LABELS if name in arrays), None)


def _factors(train: tfds.Arrays, test: tfds.Arrays) -> Factors | None:
    """The factors of a set that has several of them; one of a single value is left out."""
    names = [n for n in train if n.startswith(tfds.FACTOR) and np.ptp(train[n]) > 0]
    if len(names) < 2:
        return None
    values = [np.stack([arrays[n] for n in names], axis=1) for arrays in (train, test)]
    return Factors(tuple(n.removeprefix(tfds.FACTOR) for n in names), *values)


def _full_scale(*splits: np.ndarray) -> list[np.ndarray]:
    """The images of all splits; where none exceeds 1 they are binary, and become 0 and 255."""
    if max(x.max(initial=0) for x in splits) > 1:
        return list(splits)
    return [x * np.uint8(255) for x in splits]


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _transposed(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 0, 2)


def _binarized_mnist(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """MNIST binarized once (Salakhutdinov and Murray 2008; Larochelle and Murray 2011).

    60,000 + 10,000 images of 0 and 255, without labels. The last 10,000 training images are the
    published validation images, so that held_out=10000 leaves the published 50,000 for training.
    """
    names = ("train", "validation", "test")
    splits = tfds.load("binarized_mnist", data_dir, manual_dir, splits=names)
    train, validation, test = (splits[name]["image"] for name in names)
    train = np.concatenate([train, validation])
    return _dataset("binarized_mnist", {"image": train}, {"image": test})


def _omniglot(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """OMNIGLOT (Lake et al. 2015), 24,345 + 8,070 images of 28 x 28 grey levels; labels: alphabets.

    If `manual_dir` holds chardata.mat, the images are exactly those of Burda et al. (2016), and
    held_out=1345 gives their split: see `read_chardata`.

    Otherwise all 32,460 drawings, 105 x 105, are downscaled by `downscaled` and permuted by
    RandomState(123).permutation. The first 24,345 are the training images and the next 8,070 the
    test images; the last 45 are left out, to match the numbers of Burda et al. Images and split
    differ from theirs, so that likelihoods are only roughly comparable.
    """
    if manual_dir is not None:
        path = Path(manual_dir).expanduser() / CHARDATA
        if path.is_file():
            return read_chardata(path)
    splits = tfds.load(
        "omniglot", data_dir, manual_dir, ("train", "test"), label="alphabet", convert=downscaled
    )
    drawings = {
        key: np.concatenate([splits["train"][key], splits["test"][key]])
        for key in ("image", "label")
    }
    order = np.random.RandomState(OMNIGLOT_SEED).permutation(len(drawings["image"]))
    train_size, test_size = OMNIGLOT_SIZES
    train_rows = order[:train_size]
    test_rows = order[train_size : train_size + test_size]
    train = {key: x[train_rows] for key, x in drawings.items()}
    test = {key: x[test_rows] for key, x in drawings.items()}
    return _dataset("omniglot", train, test)


def _omniglot_small(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """The small background sets of OMNIGLOT: 3,630 + 1,210 images of 28 x 28 grey levels.

    The labels are the eight alphabets. The training images of each are by 15 drawers, the test
    images by 5 other drawers.
    """
    splits = tfds.load("omniglot_small", data_dir, manual_dir, label="alphabet", convert=downscaled)
    return _dataset("omniglot_small", splits["train"], splits["test"])


# Loaders of the sets that need more than `tfds.load` of two splits.
_LOADERS: dict[str, Callable[[str | None, str | None], Dataset]] = {
    "binarized_mnist": _binarized_mnist,
    "omniglot": _omniglot,
    "omniglot_small": _omniglot_small,
}


def downscaled(image: np.ndarray) -> np.ndarray:
    """A drawing, black ink on white [H, W, C], as 28 x 28 grey levels [28, 28, 1], uint8.

    A grey level is 255 times the share of the pixel's area that ink covers.
    """
    ink = image[:, :, 0] < 128
    rows, columns = (_overlaps(side) for side in ink.shape)
    return np.round(255 * (rows @ ink @ columns.T)).astype(np.uint8)[:, :, None]


@functools.cache
def _overlaps(side: int) -> np.ndarray:
    """Weights [28, side]: the share of output pixel i that input pixel j covers, along one axis.

    Pillow's box filter would average whole pixels: three or four, where 105 / 28 = 3.75.
    """
    ends = np.linspace(0, side, SIDE + 1)
    low = np.maximum(ends[:-1, None], np.arange(side))
    high = np.minimum(ends[1:, None], np.arange(side) + 1)
    return np.maximum(high - low, 0) * SIDE / side


def read_chardata(path: os.PathLike) -> Dataset:
    """Reads the file of OMNIGLOT that Burda et al. (2016) publish with their code.

    Its arrays `data` [784, 24345] and `testdata` [784, 8070] hold one image per column, in [0, 1],
    with its pixels in column-major order. As in their code the training images are permuted by
    RandomState(123); they do not train on the last 1,345.

    Raises:
      UserError: the file is damaged, or is a different file.
    """
    import scipy.io  # only this file needs it

    try:
        content = scipy.io.loadmat(path)
        x_train, x_test = (_row_major(content[key]) for key in ("data", "testdata"))
        y_train, y_test = (_classes(content.get(key)) for key in ("target", "testtarget"))
    except Exception as error:  # SciPy's parser raises many types
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise UserError(
            f"{path} is not the file of OMNIGLOT with the arrays data and testdata [784, N] in "
            f"[0, 1] ({reason})."
        ) from error
    order = np.random.RandomState(OMNIGLOT_SEED).permutation(len(x_train))
    return Dataset(
        name="omniglot",
        x_train=x_train[order],
        x_test=x_test,
        y_train=None if y_train is None else y_train[order],
        y_test=y_test,
        image_shape=(SIDE, SIDE),
    )


def _row_major(columns: np.ndarray) -> np.ndarray:
    """Images [784, N] with column-major pixels -> [N, 784] with row-major pixels, float32."""
    if columns.ndim != 2 or columns.shape[0] != SIDE**2 or columns.shape[1] == 0:
        raise ValueError(f"an array of the shape {columns.shape}")
    if not (columns.min() >= 0 and columns.max() <= 1):
        raise ValueError("values outside of [0, 1]")
    images = columns.T.reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
    return np.ascontiguousarray(_flat(images), dtype=np.float32)


def _classes(one_hot: np.ndarray | None) -> np.ndarray | None:
    """Classes [N], int32, of one-hot columns [C, N]."""
    return None if one_hot is None else one_hot.argmax(axis=0).astype(np.int32)
