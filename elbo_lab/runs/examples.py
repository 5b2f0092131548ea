"""The examples of a run as the device stores them, and as its model sees them."""

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import keys
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Dataset, Spec, binarization

# Number of training examples that initialization sees.
FIRST_ROWS = 100


def stored(
    x: np.ndarray, split: int, mode: str, seed: int = keys.FIXED_BINARIZATION_SEED
) -> jax.Array:
    """A split's images as they lie on the device.

    Images that are drawn once are drawn by a key that does not depend on the run's seed, unless a
    seed is given.
    """
    images = jnp.asarray(x)
    if mode in ("dynamic", "none"):
        return images  # A key, which takes time to compile, is not needed.
    return binarization.binarize_once(keys.binarization_key(split, seed), images, mode)


def first_rows(dataset: Dataset) -> tuple[Batch, np.ndarray | None]:
    """The arguments of initialization, the same for all replicates: the first training examples and
    the mean of all training examples (None for tokens). Images are not binarized.
    """
    x, label = dataset.x_train[:FIRST_ROWS], dataset.y_train
    label = None if label is None else label[:FIRST_ROWS]
    if dataset.kind == "token":
        return Batch(x.astype(np.int32), label), None
    scale = 255 if x.dtype == np.uint8 else 1
    mean = np.asarray(dataset.x_train.mean(axis=0) / scale, np.float32)
    return Batch(np.asarray(x / scale, np.float32), label), mean


def test_examples(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The test split as every evaluation of a run of one seed sees it."""
    by_seed = config.test_draw == "by_seed"
    seed = config.seed if by_seed else keys.FIXED_BINARIZATION_SEED
    x = stored(dataset.x_test, keys.TEST_SPLIT, _drawn_once(config, spec), seed)
    return _as_model_sees(x, dataset.y_test, spec)


def all_of_train(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The training split, with images binarized once."""
    return _of_train(config, dataset, spec, len(dataset.x_train))


def first_of_train(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The first `au_images` training examples, over which active units are counted, with images
    binarized once.
    """
    return _of_train(config, dataset, spec, config.au_images)


def _of_train(config: Config, dataset: Dataset, spec: Spec, number: int) -> Batch:
    label = dataset.y_train
    x = stored(dataset.x_train[:number], keys.TRAIN_SPLIT, _drawn_once(config, spec))
    return _as_model_sees(x, None if label is None else label[:number], spec)


def _drawn_once(config: Config, spec: Spec) -> str:
    """The binarization in which every image is drawn once: "fixed" in place of "dynamic"."""
    mode = binarization.mode_for_kind(config.binarization, spec.kind)
    return "fixed" if mode == "dynamic" else mode


def _as_model_sees(x: jax.Array, label: np.ndarray | None, spec: Spec) -> Batch:
    label = None if label is None else jnp.asarray(label)
    return Batch(binarization.model_input(x, spec.kind), label)
