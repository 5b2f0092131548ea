"""Image datasets as NumPy arrays: the registered ones, and any user's .npz file.

Grey levels are kept as they are stored (uint8 0..255 or float32 in [0, 1]); scaling and
binarization happen later, on the device.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from elbo_lab.data import npz
from elbo_lab.data.dataset import Dataset
from elbo_lab.errors import UserError


def load(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    in_file: bool = False,
    resolve: Callable[[str, str | None, str | None], Dataset | None] | None = None,
) -> Dataset:
    """Loads a dataset by its registered name, from a path that ends in .npz, or any other image set
    of tensorflow-datasets by its name there ("kmnist", "emnist/letters", "cifar10").

    A .npz file holds images by one of these names, and may hold labels; other arrays in it are
    ignored:

    - `x_train` and `x_test`, with labels `y_train` and `y_test`;
    - `train_images` and `test_images` (or, without those, `val_images`), with labels `train_labels`
      and so on, as in MedMNIST's files;
    - one split, `imgs`, as in dSprites' file; its labels are the shapes, in `latents_classes`. Then
      `x_test` is empty, and `hold_out` makes the test images.

    Images are [N, D], [N, H, W], [N, H, W, C] or, in PyTorch's order, [N, C, H, W], with C = 1 or
    3 channels; where a shape can be read in both orders, the channels are last. A flat D has the
    image shape (s, s) if D is the square of s, else (1, D). Labels are [N] or [N, 1]; of several
    columns they are left out. Both image arrays hold values of one kind:

    - integers in 0..255, kept as uint8 grey levels. If no value of the arrays together exceeds
      1, they are taken for binary images, not for almost black ones, and become 0 and 255;
    - bool, which becomes 0 and 255 as well;
    - floats in [0, 1], kept as float32.

    Args:
      name: a key of `DATASETS`, or the path of a .npz file (a leading ~ is expanded).
      data_dir: where tensorflow-datasets keeps prepared sets; its own place if None.
      manual_dir: a folder with a set's official files, which then are not downloaded.
      in_file: leave the images of an .npz in the file, if they are not compressed, and read them
        when they are used; they are checked all the same.
      resolve: (name, data_dir, manual_dir) -> a data set made from a run, or None for other names.

    Returns:
      The Dataset: images [N, D] and [N', D], labels [N] and [N'] or None. Its notes say what was
      recognized.

    Raises:
      UserError: the name is unknown, the file is not as described, or the set can be neither found
        nor prepared; one sentence says where.
    """
    if resolve is not None and (made := resolve(name, data_dir, manual_dir)) is not None:
        return made
    if name in DATASETS:
        return DATASETS[name](data_dir, manual_dir)
    if name.lower().endswith(".npz"):
        return npz.load(name, in_file)
    if re.fullmatch(r"\w+(/[\w.-]+)?", name):
        from elbo_lab.data import image_sets

        if image_sets.is_known(name):
            return image_sets.load(name, data_dir, manual_dir)
    what = "is a folder, not a dataset" if os.path.isdir(name) else "is not a known dataset"
    raise UserError(
        f"{name!r} {what}; choose from {', '.join(sorted(DATASETS))}, "
        "or give the path of a file ending in .npz or the name of another image set of "
        "tensorflow-datasets."
    )


def _load_mnist_small(data_dir: str | None, manual_dir: str | None) -> Dataset:
    """10,000 + 2,000 images of MNIST, balanced over the digits; see NOTICE.mnist_small.md."""
    del data_dir, manual_dir  # it comes with the package
    return npz.load(str(Path(__file__).with_name("mnist_small.npz")))


def _of_tfds(name: str) -> Callable[[str | None, str | None], Dataset]:
    def load_set(data_dir: str | None, manual_dir: str | None) -> Dataset:
        from elbo_lab.data import image_sets  # which imports tensorflow_datasets

        return image_sets.load(name, data_dir, manual_dir)

    return load_set


# Dataset name -> function of data_dir and manual_dir. Flags offer the keys as choices.
DATASETS: dict[str, Callable[[str | None, str | None], Dataset]] = {
    "mnist_small": _load_mnist_small,
    "mnist": _of_tfds("mnist"),
    "fashion_mnist": _of_tfds("fashion_mnist"),
    "binarized_mnist": _of_tfds("binarized_mnist"),
    "omniglot": _of_tfds("omniglot"),
    "omniglot_small": _of_tfds("omniglot_small"),
}
