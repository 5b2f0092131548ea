"""Pictures of models that are conditioned on labels: a row for each class."""

from collections.abc import Callable, Iterable

import jax.numpy as jnp
from jax import Array

from elbo_lab.methods.base import Picture

# Images of each class, and the most classes that are shown.
COLUMNS, MOST_CLASSES = 8, 20


def shown(classes: int) -> Array:
    """The classes that a picture shows, 0, 1, ..., [min(classes, MOST_CLASSES)]."""
    return jnp.arange(min(classes, MOST_CLASSES))


def names(labels: Iterable[int]) -> tuple[str, ...]:
    """The names of rows of these classes."""
    return tuple(f"class {label}" for label in labels)


def picture(draw: Callable[..., Array], classes: int, columns: str = "") -> Picture:
    """A picture of COLUMNS images for each of the shown classes.

    Args:
      draw: (key, params, stats, batch) -> [n COLUMNS, D], class by class.
      classes: of the labels.
      columns: what the images of a column share, for the title.
    """
    rows = "a row for each class"
    if classes > MOST_CLASSES:
        rows = f"a row for each of the first {MOST_CLASSES} of {classes} classes"
    own = names(range(min(classes, MOST_CLASSES)))
    return Picture(draw, f"Samples, {rows}{columns}", columns=COLUMNS, rows=own)
