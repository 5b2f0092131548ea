"""Draws samples from a stored run, and writes them to files."""

import io
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import Array

from elbo_lab import files
from elbo_lab.errors import UserError
from elbo_lab.reports import figures
from elbo_lab.runs.loading import Trained

# Number of examples that are drawn at once.
CHUNK = 500


def sample(
    trained: Trained,
    key: Array,
    number: int,
    on_progress: Callable[[float], None] = lambda done: None,
) -> np.ndarray:
    """Draws [number, *shape] from the model, in chunks. Codes and features are decoded to images by
    the run that encoded them.

    Args:
      trained: a run.
      key: one typed PRNG key.
      number: of draws.
      on_progress: called with the number of draws that are done, which may be fractional.

    Raises:
      ValueError: the method gives no samples.
    """
    starts = range(0, number, CHUNK)
    chunks = []
    decode = trained.dataset.decode
    for chunk_key, start in zip(jax.random.split(key, len(starts)), starts, strict=True):
        size = min(CHUNK, number - start)
        x = trained.sample(chunk_key, size, lambda part, a=start, n=size: on_progress(a + part * n))
        chunks.append(x if decode is None else decode(x.reshape(size, -1)))
    return np.concatenate(chunks)


def write(path: Path, x: np.ndarray, trained: Trained, columns: int) -> None:
    """Writes draws as a picture, or, if the path ends in .npz, as its array `x`.

    Raises:
      UserError: the file cannot be written, or the draws are not images.
    """
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, x=x)
        files.write_atomically(path, buffer.getvalue())
        return
    if trained.spec.kind != "image" and trained.dataset.decode is None:
        raise UserError(
            f"--out={path} is a picture, but {trained.path} is a model of {trained.spec.kind} "
            "examples; give a path ending in .npz."
        )
    figures.image_grid(path, x, columns, f"Samples from {trained.path.name}")
