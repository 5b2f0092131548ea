"""Data sets as NumPy arrays: the registered ones, and users' .npz and .txt files.

Grey levels are kept as they are stored (uint8 0..255 or float32 in [0, 1]); scaling and
binarization happen later, on the device.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from elbo_lab.data import factors, npz, pinwheel, text_files
from elbo_lab.data.dataset import Dataset
from elbo_lab.errors import UserError

# Start of the name of a data set's training images alone.
TRAINING = "training:"


def load(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    in_file: bool = False,
    resolve: Callable[[str, str | None, str | None], Dataset | None] | None = None,
) -> Dataset:
    """Loads a data set by its registered name, by the path of an .npz or .txt file, or by the name
    of another image set of tensorflow-datasets ("kmnist", "emnist/letters", "cifar10").

    An .npz file holds images under one of these sets of names, and may hold labels; other arrays
    are ignored:

    - `x_train` and `x_test`, with labels `y_train` and `y_test`;
    - `train_images` and `test_images` (or, without those, `val_images`), with labels `train_labels`
      and so on, as in MedMNIST's files;
    - `imgs`, as in dSprites' file, which has one split; the shapes in `latents_classes` are the
      labels, and its five factors the `factors`. The loaded `x_test` is empty, and `hold_out` draws
      the test images.

    Images are [N, D], [N, H, W], [N, H, W, C] or, in PyTorch's order, [N, C, H, W], with C = 1 or
    3 channels; a shape that fits both orders is read with the channels last. A flat D has the image
    shape (s, s) if D is the square of s, else (1, D). Labels are [N] or [N, 1]; labels of several
    columns are ignored. Both image arrays hold values of the same kind:

    - integers in 0..255, kept as uint8 grey levels. If no value of either array exceeds 1, the
      images are taken as binary, not as almost black, and become 0 and 255;
    - bool, which becomes 0 and 255;
    - floats in [0, 1], kept as float32.

    A set of tensorflow-datasets with the split train alone has an empty `x_test` too. Integer
    features named label_*, if at least two have several values, are the `factors`, and the shape or
    the category is the label (dsprites, shapes3d, smallnorb).

    A .txt file holds one example a line, all of the same number of characters, in UTF-8; it has one
    split. Every character of the file is a token.

    "training:NAME" is the training split of the data set NAME alone, as a set with one split. Runs
    with --held_out are then measured by held-out training images, for choices that must not depend
    on the test images.

    Args:
      name: a key of `DATASETS`, the path of an .npz or .txt file (a leading ~ is expanded), a name
        in tensorflow-datasets, or "training:" and one of these.
      data_dir: folder of tensorflow-datasets' prepared sets; its default folder if None.
      manual_dir: folder with a set's official files, which are then not downloaded.
      in_file: memory-map the images of an uncompressed .npz file instead of reading them; they are
        checked all the same.
      resolve: (name, data_dir, manual_dir) -> the data set that a name such as "codes:RUN" derives
        from a run, or None for other names.

    Returns:
      The Dataset: images [N, D] and [N', D], labels [N] and [N'] or None. Its notes say how a file
      was read.

    Raises:
      UserError: the name is unknown, the file is not as described, or the set can be neither found
        nor prepared; the message says which.
    """
    if name.startswith(TRAINING):
        whole = load(name.removeprefix(TRAINING), data_dir, manual_dir, in_file, resolve)
        return _without_test_images(whole)
    if resolve is not None:
        derived = resolve(name, data_dir, manual_dir)
        if derived is not None:
            return derived
    if name in DATASETS:
        return DATASETS[name](data_dir, manual_dir)
    if name.lower().endswith(".npz"):
        return npz.load(name, in_file)
    if text_files.is_path(name):
        return text_files.load(name)
    if re.fullmatch(r"\w+(/[\w.-]+)?", name):
        from elbo_lab.data import image_sets  # imports tensorflow_datasets, which is slow

        if image_sets.is_known(name):
            return image_sets.load(name, data_dir, manual_dir)
    problem = "is a folder, not a dataset" if os.path.isdir(name) else "is not a known dataset"
    raise UserError(
        f"{name!r} {problem}; choose from {', '.join(sorted(DATASETS))}, "
        "or give the path of a file ending in .npz (images) or .txt (text), or the name of another "
        "image set of tensorflow-datasets."
    )


def short_name(name: str) -> str:
    """The name of a data set in the name of a folder: "blobs" for "training:data/blobs.npz"."""
    return Path(name.removeprefix(TRAINING)).stem


def is_codes(name: str) -> bool:
    """True for the name of the codes of a run, "codes:RUN", also of their training split alone."""
    return name.removeprefix(TRAINING).startswith("codes:")


def _without_test_images(dataset: Dataset) -> Dataset:
    """The training split as a data set with one split; log p(x|z) of test images is left out."""
    name, no_images = f"{TRAINING}{dataset.name}", dataset.x_train[:0]
    known, codes = dataset.factors, dataset.codes
    if known is not None:
        known = known._replace(test=known.train[:0])
    if codes is not None:
        codes = codes._replace(test=codes.train[:0], log_pz_above=None)
    return dataset._replace(
        name=name, x_test=no_images, y_test=None, log_px_z=None, factors=known, codes=codes
    )


def _load_mnist_small(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """10,000 + 2,000 images of MNIST, balanced over the digits; see NOTICE.mnist_small.md."""
    del data_dir, manual_dir  # the file is part of the package
    return npz.load(str(Path(__file__).with_name("mnist_small.npz")))


def _load_pinwheel(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """Points in two dimensions, made by a seed."""
    del data_dir, manual_dir  # nothing is read
    return pinwheel.load()


def _load_tang_quatrains(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """3,400 + 372 poems of 20 characters; see NOTICE.tang_quatrains.md."""
    del data_dir, manual_dir  # the file is part of the package
    return text_files.load_quatrains()


def _factors_loader(size: int) -> Callable[[str | None, str | None], Dataset]:
    def load_set(data_dir: str | None, manual_dir: str | None) -> Dataset:
        del data_dir, manual_dir  # nothing is read
        return factors.load(size)

    return load_set


def _tfds_loader(name: str) -> Callable[[str | None, str | None], Dataset]:
    def load_set(data_dir: str | None, manual_dir: str | None) -> Dataset:
        from elbo_lab.data import image_sets  # imports tensorflow_datasets, which is slow

        return image_sets.load(name, data_dir, manual_dir)

    return load_set


# Name -> function (data_dir, manual_dir) -> Dataset. The keys are the registered names.
DATASETS: dict[str, Callable[[str | None, str | None], Dataset]] = {
    "mnist_small": _load_mnist_small,
    "pinwheel": _load_pinwheel,
    "tang_quatrains": _load_tang_quatrains,
    "factors": _factors_loader(32),
    "factors64": _factors_loader(64),
    "mnist": _tfds_loader("mnist"),
    "fashion_mnist": _tfds_loader("fashion_mnist"),
    "binarized_mnist": _tfds_loader("binarized_mnist"),
    "omniglot": _tfds_loader("omniglot"),
    "omniglot_small": _tfds_loader("omniglot_small"),
}
