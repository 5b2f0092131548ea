"""The examples of a run as the device stores them, and as its model sees them."""

import jax
import jax.numpy as jnp
import numpy as np

from elbo_lab import keys
from elbo_lab.configs import Config
from elbo_lab.data import Batch, Dataset, Spec, binarization, contexts

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
    x, label, context = dataset.x_train[:FIRST_ROWS], dataset.y_train, contexts(dataset)[0]
    label = None if label is None else label[:FIRST_ROWS]
    context = None if context is None else context[:FIRST_ROWS]
    if dataset.kind == "token":
        return Batch(x.astype(np.int32), label, context=context), None
    scale = 255 if x.dtype == np.uint8 else 1
    mean = np.asarray(dataset.x_train.mean(axis=0) / scale, np.float32)
    return Batch(np.asarray(x / scale, np.float32), label), mean


def blank(spec: Spec, number: int) -> Batch:
    """Zeros in the place of examples of a spec, for their shapes and types."""
    x = jnp.zeros((number, spec.dim), jnp.int32 if spec.kind == "token" else jnp.float32)
    label = None if spec.classes is None else jnp.zeros(number, jnp.int32)
    size = sum(own.dim for own in spec.context)
    return Batch(x, label, context=jnp.zeros((number, size), jnp.int32) if size else None)


def test_examples(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The test split as every evaluation of a run of one seed sees it."""
    by_seed = config.test_draw == "by_seed"
    seed = config.seed if by_seed else keys.FIXED_BINARIZATION_SEED
    x = stored(dataset.x_test, keys.TEST_SPLIT, _drawn_once(config, spec), seed)
    return _as_model_sees(x, dataset.y_test, contexts(dataset)[1], spec)


def all_of_train(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The training split, with images binarized once."""
    return _of_train(config, dataset, spec, len(dataset.x_train))


def first_of_train(config: Config, dataset: Dataset, spec: Spec) -> Batch:
    """The first `au_images` training examples, over which active units are counted, with images
    binarized once.
    """
    return _of_train(config, dataset, spec, config.au_images)


def _of_train(config: Config, dataset: Dataset, spec: Spec, number: int) -> Batch:
    x = stored(dataset.x_train[:number], keys.TRAIN_SPLIT, _drawn_once(config, spec))
    label, context = (
        None if array is None else array[:number]
        for array in (dataset.y_train, contexts(dataset)[0])
    )
    return _as_model_sees(x, label, context, spec)


def _drawn_once(config: Config, spec: Spec) -> str:
    """The binarization in which every image is drawn once: "fixed" in place of "dynamic"."""
    mode = binarization.mode_for_kind(config.binarization, spec.kind)
    return "fixed" if mode == "dynamic" else mode


def _as_model_sees(
    x: jax.Array, label: np.ndarray | None, context: np.ndarray | None, spec: Spec
) -> Batch:
    label, context = (None if array is None else jnp.asarray(array) for array in (label, context))
    return Batch(binarization.model_input(x, spec.kind), label, context=context)
