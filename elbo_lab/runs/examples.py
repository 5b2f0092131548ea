"""The examples of a run as the device has them, and as its model sees them."""

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import keys
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Dataset, Spec, binarization

# Training examples from which parameters may start.
FIRST_ROWS = 100


def stored(
    x: np.ndarray, split: int, mode: str, seed: int = keys.FIXED_BINARIZATION_SEED
) -> jax.Array:
    """A split's images as they lie on the device. What is drawn once is drawn by a key that does
    not depend on the run's seed, unless another seed is given.
    """
    images = jnp.asarray(x)
    if mode in ("dynamic", "none"):
        return images  # and no key is made, which takes a start's time
    return binarization.stored(keys.binarization_key(split, seed), images, mode)


def first_rows(dataset: Dataset) -> tuple[Batch, np.ndarray | None]:
    """What parameters start from, the same for all replicates: the first training examples, and the
    mean of all of them, None of tokens. Images are not binarized.
    """
    x, label = dataset.x_train[:FIRST_ROWS], dataset.y_train
    label = None if label is None else label[:FIRST_ROWS]
    if dataset.kind == "token":
        return Batch(x.astype(np.int32), label), None
    scale = 255 if x.dtype == np.uint8 else 1
    mean = np.asarray(dataset.x_train.mean(axis=0) / scale, np.float32)
    return Batch(np.asarray(x / scale, np.float32), label), mean


def of_test(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The test split as every evaluation of a run of one seed sees it; images as grey levels."""
    by_seed = config.test_draw == "by_seed"
    seed = config.seed if by_seed else keys.FIXED_BINARIZATION_SEED
    x = stored(dataset.x_test, keys.TEST_SPLIT, _drawn_once(config, spec), seed)
    return _as_model_sees(x, dataset.y_test, spec)


def all_of_train(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The training split, images binarized once."""
    return _of_train(config, dataset, spec, len(dataset.x_train))


def first_of_train(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The `au_images` training examples over which active units are counted, binarized once."""
    return _of_train(config, dataset, spec, config.au_images)


def _of_train(config: Config, dataset: Dataset, spec: Spec, number: int) -> Batch:
    label = dataset.y_train
    x = stored(dataset.x_train[:number], keys.TRAIN_SPLIT, _drawn_once(config, spec))
    return _as_model_sees(x, None if label is None else label[:number], spec)


def _drawn_once(config: Config, spec: Spec) -> str:
    # Dynamic binarization draws the test images once too.
    mode = binarization.of_kind(config.binarization, spec.kind)
    return "fixed" if mode == "dynamic" else mode


def _as_model_sees(x: jax.Array, label: np.ndarray | None, spec: Spec) -> Batch:
    label = None if label is None else jnp.asarray(label)
    return Batch(binarization.as_model_sees(x, spec.kind), label)
