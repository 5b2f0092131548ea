"""Types of a data set, a batch and a spec, and the functions that split and identify a data set."""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from elbo_lab.data.text import Text

Array = Any  # of NumPy or JAX; data sets are read without importing JAX

# Images that `is_binary` checks at once.
_BLOCK = 4096
# Seed of the draw of test images from a data set with one split.
_SPLIT_SEED = 123


class Spec(NamedTuple):
    """What a model knows of the data before it sees any: static and hashable."""

    kind: str  # "image": float32 in [0, 1]; "token": int32 in 0..levels-1; "real": float32
    shape: tuple[int, ...]  # (28, 28), (32, 32, 3), (20,) characters, (7, 7) codes
    levels: int | None  # values of a coordinate (2, 256, vocabulary or codebook size); None: real
    classes: int | None = None  # number of classes, if there are labels
    # The levels of codes on which examples are conditioned, from the top down; (): none
    context: tuple["Spec", ...] = ()

    @property
    def dim(self) -> int:
        """D, the product of the shape."""
        return math.prod(self.shape)


class Batch(NamedTuple):
    """Examples as the training loop and the evaluation pass them on."""

    x: Array  # [B, D], of the kind's type; networks reshape it to the spec's shape
    label: Array | None = None  # [B], int32
    factors: Array | None = None  # [B, F]
    context: Array | None = None  # [B, M], the codes of all levels above side by side, int32


class Factors(NamedTuple):
    """The factors that images were made from: the values of each as 0 .. n - 1."""

    names: tuple[str, ...]  # F
    train: np.ndarray  # [N, F], int32
    test: np.ndarray  # [N', F], int32


class Codes(NamedTuple):
    """All levels of codes of images, from the top down; the examples of a data set are one of them.

    The levels above that one are the examples' context.
    """

    specs: tuple[Spec, ...]  # of each level
    level: int  # index of the level that the examples are
    train: np.ndarray  # [N, M_1 + M_2 + ...], int32, the codes of all levels side by side
    test: np.ndarray  # [N', M_1 + M_2 + ...]
    # [N'], nats: log p of the codes above under the runs that model them, 0 at the top level; None:
    # not known
    log_pz_above: np.ndarray | None
    # (key, number, on_progress) -> draws of the codes above, [number, M]; None at the top level
    draw_above: Callable[..., np.ndarray] | None
    # Codes of all levels [n, M_1 + M_2 + ...] -> images [n, H, W, ...]
    decode: Callable[[Any], np.ndarray]

    @property
    def is_lowest(self) -> bool:
        """True if the examples are the last level, with which images can be decoded."""
        return self.level == len(self.specs) - 1

    def x(self, codes: Array) -> Array:
        """The columns of `train` or `test` that are the examples."""
        return split_levels(codes, self.specs)[self.level]

    def context(self, codes: Array) -> Array | None:
        """The columns of the levels above; None at the top level."""
        size = sum(spec.dim for spec in self.specs[: self.level])
        return codes[..., :size] if self.level else None


class Dataset(NamedTuple):
    """Training and test images, flattened, with labels if there are any."""

    name: str
    x_train: np.ndarray  # [N, D], uint8 in 0..255 or float32 in [0, 1]
    x_test: np.ndarray  # [N', D], of x_train's dtype; [0, D] until `hold_out` splits a single split
    y_train: np.ndarray | None  # [N], int32, or None
    y_test: np.ndarray | None  # [N'], int32, or None
    image_shape: tuple[int, ...]  # (H, W), or (H, W, C) if there are colours; their product is D
    notes: tuple[str, ...] = ()  # for reports: how names, axes and splits of a file were read
    kind: str = "image"  # as in `Spec`; x is of integers for "token", of floats for "real"
    levels: int | None = None  # for tokens: the number of values
    # For features and codes: decoder [n, D] -> images [n, H, W, ...]; of codes given those above,
    # all of them side by side. None: there is none, or codes of a lower level are missing.
    decode: Callable[[Any], np.ndarray] | None = None
    # For codes: [N'], log p(x|z) of each test example's image x given all its codes z, nats
    log_px_z: np.ndarray | None = None
    checkpoint: str | None = None  # for features and codes: digest of the checkpoint that made them
    # For texts: how tokens are read; for features and codes of texts: how decoded tokens are read
    text: Text | None = None
    factors: Factors | None = None  # of images whose factors are known
    codes: Codes | None = None  # for codes: those of all levels


def spec_of(dataset: Dataset, binarization: str) -> Spec:
    """The `Spec` of a data set under a binarization.

    Args:
      dataset: its labels, if any, are 0 .. classes - 1.
      binarization: the mode for its images; "none" for other kinds.
    """
    levels = dataset.levels
    if dataset.kind == "image":
        if binarization != "none" or is_binary(dataset.x_train):
            levels = 2
        else:
            levels = 256 if dataset.x_train.dtype == np.uint8 else None
    codes = dataset.codes
    context = () if codes is None else codes.specs[: codes.level]
    return Spec(dataset.kind, tuple(dataset.image_shape), levels, num_classes(dataset), context)


def split_levels(codes: Array, specs: Sequence[Spec]) -> list[Array]:
    """The codes of each level [*any, M_l], of those of all side by side [*any, M_1 + M_2 + ...]."""
    ends = itertools.accumulate(spec.dim for spec in specs)
    return [codes[..., end - spec.dim : end] for spec, end in zip(specs, ends, strict=True)]


def contexts(dataset: Dataset) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What training and test examples are conditioned on, [N, M] and [N', M]; None: nothing."""
    codes = dataset.codes
    if codes is None:
        return None, None
    return codes.context(codes.train), codes.context(codes.test)


def decoded(dataset: Dataset, x: Any, context: Any = None) -> np.ndarray:
    """The images or texts [n, *shape] of a data set's examples: decoded, if it decodes them.

    Args:
      dataset: whose `decode` is taken.
      x: [n, D].
      context: [n, M], of codes given those above; or None.
    """
    x = np.asarray(x)
    if dataset.decode is None:
        return x.reshape(-1, *dataset.image_shape)
    return dataset.decode(x if context is None else np.concatenate([context, x], axis=1))


def has_images(dataset: Dataset) -> bool:
    """True if examples, decoded where they are features or codes, are images."""
    return dataset.text is None and (dataset.kind == "image" or dataset.decode is not None)


def num_classes(dataset: Dataset) -> int | None:
    """C of the labels 0..C-1 of both splits; None without labels."""
    labels = [y for y in (dataset.y_train, dataset.y_test) if y is not None and len(y)]
    return 1 + int(max(y.max() for y in labels)) if labels else None


def hold_out(dataset: Dataset, number: int) -> Dataset:
    """The data set with some training images held out.

    Args:
      dataset: with test images, its last training images are left out. Without test images, a draw
        by a fixed seed makes some training images the test images, since such a data set is often
        sorted, and its last images are not like the others.
      number: images that are held out.
    """
    if len(dataset.x_test) == 0:
        return _draw_test_images(dataset, number)
    kept = len(dataset.x_train) - number
    y_train = None if dataset.y_train is None else dataset.y_train[:kept]
    factors, codes = dataset.factors, dataset.codes
    if factors is not None:
        factors = factors._replace(train=factors.train[:kept])
    if codes is not None:
        codes = codes._replace(train=codes.train[:kept])
    return dataset._replace(
        x_train=dataset.x_train[:kept], y_train=y_train, factors=factors, codes=codes
    )


def _draw_test_images(dataset: Dataset, number: int) -> Dataset:
    total = len(dataset.x_train)
    is_test = np.zeros(total, bool)
    is_test[np.random.RandomState(_SPLIT_SEED).permutation(total)[:number]] = True
    y_train = y_test = None
    if dataset.y_train is not None:
        y_train, y_test = dataset.y_train[~is_test], dataset.y_train[is_test]
    noun = "images" if dataset.kind == "image" else "examples"
    note = f"{number:,} of its {total:,} {noun}, drawn once, are the test {noun}"
    factors, codes = dataset.factors, dataset.codes
    if factors is not None:
        factors = factors._replace(train=factors.train[~is_test], test=factors.train[is_test])
    if codes is not None:
        codes = codes._replace(train=codes.train[~is_test], test=codes.train[is_test])
    return dataset._replace(
        x_train=dataset.x_train[~is_test],
        x_test=dataset.x_train[is_test],
        y_train=y_train,
        y_test=y_test,
        notes=(*dataset.notes, note),
        factors=factors,
        codes=codes,
    )


def first_of_test(dataset: Dataset, number: int) -> Dataset:
    """The data set with its first test examples alone, and what is known of them.

    Args:
      dataset: with test examples.
      number: of those that are kept, at least 1.
    """

    def first(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[:number]

    factors, codes = dataset.factors, dataset.codes
    if factors is not None:
        factors = factors._replace(test=first(factors.test))
    if codes is not None:
        codes = codes._replace(test=first(codes.test), log_pz_above=first(codes.log_pz_above))
    return dataset._replace(
        x_test=first(dataset.x_test),
        y_test=first(dataset.y_test),
        log_px_z=first(dataset.log_px_z),
        factors=factors,
        codes=codes,
    )


def digest(dataset: Dataset, with_labels: bool = False) -> str:
    """The sha256 of the images of both splits, with types and shapes, as 64 hexadecimal digits.
    The vocabulary of a text is part of it, and so is what examples are conditioned on.

    For features and codes, "-" and the digest of their checkpoint follow, since another checkpoint
    decodes the same codes to other images.

    Args:
      dataset: the data set.
      with_labels: True for a model that is conditioned on labels, whose data they are too.
    """
    value = hashlib.sha256()
    labels = (dataset.y_train, dataset.y_test) if with_labels else ()
    parts = (dataset.x_train, dataset.x_test, *labels, *contexts(dataset))
    for array in (part for part in parts if part is not None):
        value.update(f"{array.dtype} {array.shape}".encode())
        value.update(np.ascontiguousarray(array).data)
    if dataset.text is not None:
        value.update(repr(tuple(dataset.text)).encode())
    if dataset.checkpoint:
        return f"{value.hexdigest()}-{dataset.checkpoint}"
    return value.hexdigest()


def checkpoint_in(stored_digest: str) -> str | None:
    """The checkpoint in a `digest` of features or codes; None in one of other data."""
    return stored_digest.partition("-")[2] or None


def changed(name: str, stored_digest: str, new_digest: str) -> str:
    """A clause, ending in "since", that says how a data set with a new digest has changed.

    Args:
      name: the data set, as --dataset names it.
      stored_digest: its `digest` when a run was trained on it.
      new_digest: its `digest` now.
    """
    if checkpoint_in(stored_digest) != checkpoint_in(new_digest):
        kind, _, run = name.partition(":")
        return f"{run}, whose {kind} these are, was trained again since"
    return f"the examples of {name} have changed since"


def is_binary(x: np.ndarray) -> bool:
    """True if images hold only black and white.

    Args:
      x: images of any shape, uint8 grey levels in 0..255 or floats in [0, 1].

    Returns:
      True if all values are 0 or 255 (uint8), or 0 or 1 (any other type).
    """
    white = 255 if x.dtype == np.uint8 else 1
    # Block by block, since a memory-mapped file may be larger than the memory.
    blocks = (x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK))
    return all(bool(np.all((block == 0) | (block == white))) for block in blocks)
