"""Draws from a stored run, and the files that hold them."""

import io
from pathlib import Path

import jax
import numpy as np
from jax import Array

from elbo_lab import files
from elbo_lab.errors import UserError
from elbo_lab.reports import figures
from elbo_lab.runs.loading import Trained

# Examples that are drawn at once.
CHUNK = 500


def sample(trained: Trained, key: Array, number: int) -> np.ndarray:
    """Draws [number, *shape] from the model, in chunks.

    Raises:
      ValueError: the method gives no samples.
    """
    sizes = [min(CHUNK, number - start) for start in range(0, number, CHUNK)]
    own = jax.random.split(key, len(sizes))
    return np.concatenate([trained.sample(k, n) for k, n in zip(own, sizes, strict=True)])


def write(path: Path, x: np.ndarray, trained: Trained, columns: int) -> None:
    """Writes draws as a picture, or as the array `x` of an .npz.

    Raises:
      UserError: the disk refuses, or the draws are no images.
    """
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, x=x)
        files.write_atomically(path, buffer.getvalue())
        return
    if trained.spec.kind != "image":
        raise UserError(
            f"--out={path} is a picture, but {trained.path} is a model of {trained.spec.kind} "
            "examples; give a path ending in .npz."
        )
    figures.image_grid(path, x, columns, f"Samples from {trained.path.name}")
