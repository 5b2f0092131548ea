"""What a data set is, and the parts of it that are trained and tested on."""

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any  # NumPy's or JAX's; data sets are read without importing JAX

# Images that are looked at together.
_BLOCK = 4096
# Draws which images of a single split are the test images.
_SPLIT_SEED = 123


class Spec(NamedTuple):
    """What a model knows of the data before it sees any: static and hashable."""

    kind: str  # "image": float32 in [0, 1]; "token": int32 in 0..levels-1; "real": float32
    shape: tuple[int, ...]  # (28, 28), (32, 32, 3), (20,) characters, (7, 7) codes
    levels: int | None  # values of a coordinate: 2, 256, a vocabulary, a codebook; None: real
    classes: int | None = None  # of the labels, where there are any

    @property
    def dim(self) -> int:
        """D, the product of the shape."""
        return math.prod(self.shape)


class Batch(NamedTuple):
    """Examples as the training loop and the evaluation pass them on."""

    x: Array  # [B, D], of the kind's type; networks reshape it to the spec's shape
    label: Array | None = None  # [B], int32
    factors: Array | None = None  # [B, F]
    context: Array | None = None  # [B, M], e.g. codes of a layer above


class Dataset(NamedTuple):
    """Training and test images, flattened, with their labels where there are any."""

    name: str
    x_train: np.ndarray  # [N, D], uint8 in 0..255 or float32 in [0, 1]
    x_test: np.ndarray  # [N', D], of x_train's dtype; [0, D] until `hold_out` splits a single split
    y_train: np.ndarray | None  # [N], int32, or None
    y_test: np.ndarray | None  # [N'], int32, or None
    image_shape: tuple[int, ...]  # (H, W), or (H, W, C) if there are colours; their product is D
    notes: tuple[str, ...] = ()  # how the images were read, where that was recognized, in words
    kind: str = "image"  # as in `Spec`; x of "token" is of integers, of "real" of floats
    levels: int | None = None  # of tokens
    # Decoder of features and codes: [n, D] of them -> images [n, H, W, ...]
    decode: Callable[[Any], np.ndarray] | None = None
    # [N'], of codes: log p(x|z) of the image that each test example is the code of, nats
    log_px_z: np.ndarray | None = None
    checkpoint: str | None = None  # of features and codes: the digest of that which made them


def spec_of(dataset: Dataset, binarization: str) -> Spec:
    """What a model has to know of a data set.

    Args:
      dataset: its labels, if any, are 0 .. classes - 1.
      binarization: what is done to images before a model sees them; "none" for other kinds.
    """
    levels = dataset.levels
    if dataset.kind == "image":
        if binarization != "none" or is_binary(dataset.x_train):
            levels = 2
        else:
            levels = 256 if dataset.x_train.dtype == np.uint8 else None
    labels = [y for y in (dataset.y_train, dataset.y_test) if y is not None and len(y)]
    classes = 1 + int(max(y.max() for y in labels)) if labels else None
    return Spec(dataset.kind, tuple(dataset.image_shape), levels, classes)


def hold_out(dataset: Dataset, number: int) -> Dataset:
    """The dataset without the last so many training images.

    Where there are no test images, so many images are drawn, by a fixed seed, to be the test
    images: a set of one split is often sorted, and its last images unlike the others.
    """
    if len(dataset.x_test):
        kept = len(dataset.x_train) - number
        y_train = None if dataset.y_train is None else dataset.y_train[:kept]
        return dataset._replace(x_train=dataset.x_train[:kept], y_train=y_train)
    total = len(dataset.x_train)
    is_test = np.zeros(total, bool)
    is_test[np.random.RandomState(_SPLIT_SEED).permutation(total)[:number]] = True
    labels = (None, None)
    if dataset.y_train is not None:
        labels = dataset.y_train[~is_test], dataset.y_train[is_test]
    note = f"{number:,} of its {total:,} images, drawn once, are the test images"
    return dataset._replace(
        x_train=dataset.x_train[~is_test],
        x_test=dataset.x_train[is_test],
        y_train=labels[0],
        y_test=labels[1],
        notes=(*dataset.notes, note),
    )


def digest(dataset: Dataset) -> str:
    """sha256 of the images of both splits, types and shapes included, as 64 hexadecimal digits; of
    features and codes, "-" and the digest of the checkpoint that made them follow, since the same
    codes of another checkpoint are decoded to other images.
    """
    value = hashlib.sha256()
    for images in (dataset.x_train, dataset.x_test):
        value.update(f"{images.dtype} {images.shape}".encode())
        value.update(np.ascontiguousarray(images).data)
    return "-".join([value.hexdigest(), *filter(None, [dataset.checkpoint])])


def changed(name: str, stored_digest: str, new_digest: str) -> str:
    """What happened to a data set whose digest is another one, in words that end in "since".

    Args:
      name: of the data set, as --dataset names it.
      stored_digest: what `digest` gave when a run was made of it.
      new_digest: what it gives now.
    """
    checkpoints = [text.partition("-")[2] for text in (stored_digest, new_digest)]
    kind, _, run = name.partition(":")
    if checkpoints[0] != checkpoints[1]:
        return f"{run}, whose {kind} these are, was trained again since"
    return f"the images of {name} have changed since"


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
