"""Data sets as arrays, and their binarization."""

from elbo_lab.data.dataset import (
    Batch,
    Dataset,
    Spec,
    changed,
    digest,
    has_images,
    hold_out,
    is_binary,
    num_classes,
    spec_of,
)
from elbo_lab.data.datasets import DATASETS, TRAINING, load, short_name
from elbo_lab.data.text import Text

__all__ = [
    "DATASETS",
    "TRAINING",
    "Batch",
    "Dataset",
    "Spec",
    "Text",
    "changed",
    "digest",
    "has_images",
    "hold_out",
    "is_binary",
    "load",
    "num_classes",
    "short_name",
    "spec_of",
]
