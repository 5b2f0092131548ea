"""Draws samples from a stored run, and writes them to files."""

import io
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import Array

from elbo_lab import data, files
from elbo_lab.errors import UserError
from elbo_lab.methods import class_rows
from elbo_lab.reports import figures
from elbo_lab.runs.loading import Trained

# Number of examples that are drawn at once.
CHUNK = 500
# Images in a row of a picture whose rows are not classes.
COLUMNS = 8


def sample(
    trained: Trained,
    key: Array,
    number: int,
    on_progress: Callable[[float], None] = lambda done: None,
    label: np.ndarray | None = None,
) -> np.ndarray:
    """Draws [number, *shape] from the model, in chunks. Codes and features are decoded to images by
    the run that encoded them.

    Args:
      trained: a run.
      key: one typed PRNG key.
      number: of draws.
      on_progress: called with the number of draws that are done, which may be fractional.
      label: the class of each draw, [number], of a model that is conditioned on labels.

    Raises:
      ValueError: the method gives no samples, or there is no such class.
    """
    starts = range(0, number, CHUNK)
    chunks = []
    for chunk_key, start in zip(jax.random.split(key, len(starts)), starts, strict=True):
        size = min(CHUNK, number - start)
        own = None if label is None else label[start : start + size]
        draws = trained.draws(
            chunk_key, size, lambda part, a=start, n=size: on_progress(a + part * n), own
        )
        chunks.append(data.decoded(trained.dataset, draws.x, draws.context))
    return np.concatenate(chunks)


def check_label(trained: Trained, label: int | None) -> None:
    """Raises a UserError for a class that the run's model does not have."""
    classes = trained.method.classes
    if label is None:
        return
    if classes is None:
        raise UserError(
            f"--label={label} needs a run with --condition=label; {trained.path} is conditioned on "
            "nothing."
        )
    if label >= classes:
        raise UserError(f"--label must lie in 0..{classes - 1} for {trained.path}; got {label}.")


def labels(trained: Trained, number: int, label: int | None) -> tuple[np.ndarray | None, int]:
    """The class of each draw, and the images in a row of their picture.

    Without --label a model that is conditioned on labels draws equally many of every class, which
    are a row: the number is rounded down.

    Args:
      trained: a run.
      number: the value of --num.
      label: the value of --label.

    Returns:
      [n], or None for a model that is conditioned on nothing, and the images in a row.

    Raises:
      UserError: the model has no such class or is not conditioned on labels, or there are more
        classes than draws.
    """
    check_label(trained, label)
    classes = trained.method.classes
    if classes is None:
        return None, COLUMNS
    if label is not None:
        return np.full(number, label), COLUMNS
    if number < classes:
        raise UserError(
            f"--num must be at least {classes}, one for each class of {trained.path} (--label=0 "
            f"draws a single class); got {number}."
        )
    return np.repeat(np.arange(classes), number // classes), number // classes


def check_out(path: Path, trained: Trained) -> None:
    """Raises a UserError for a picture of draws that are not images."""
    if path.suffix == ".npz" or data.has_images(trained.dataset):
        return
    codes = trained.dataset.codes
    if codes is not None and not codes.is_lowest:
        raise UserError(
            f"--out={path} is a picture, which takes all {len(codes.specs)} levels of codes, and "
            f"{trained.path} models level {codes.level + 1}: give a run of "
            f"--dataset=codes:{trained.path}, the level below, or a path ending in .npz."
        )
    raise UserError(
        f"--out={path} is a picture, but {trained.path} is a model of {trained.spec.kind} "
        "examples; give a path ending in .npz."
    )


def write(
    path: Path, x: np.ndarray, trained: Trained, columns: int, label: np.ndarray | None = None
) -> None:
    """Writes draws as a picture, or, if the path ends in .npz, as its arrays `x` and, of a model
    that is conditioned on labels, `label`.

    Args:
      path: the file, which `check_out` passes.
      x: draws, [n, *shape].
      trained: the run.
      columns: images in a row of the picture.
      label: the class of each draw, [n], the same within a row, which is named by it; or None.

    Raises:
      UserError: the file cannot be written.
    """
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        arrays = {"x": x} if label is None else {"x": x, "label": label}
        np.savez_compressed(buffer, **arrays)
        files.write_atomically(path, buffer.getvalue())
        return
    rows = () if label is None else class_rows.names(label[::columns])
    figures.image_grid(path, x, columns, f"Samples from {trained.path.name}", rows)
