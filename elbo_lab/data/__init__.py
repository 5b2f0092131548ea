"""Data sets as arrays, and their binarization."""

from elbo_lab.data.dataset import (
    Batch,
    Codes,
    Dataset,
    Spec,
    changed,
    checkpoint_in,
    contexts,
    decoded,
    digest,
    first_of_test,
    has_images,
    hold_out,
    is_binary,
    num_classes,
    spec_of,
    split_levels,
)
from elbo_lab.data.datasets import DATASETS, TRAINING, is_codes, load, short_name
from elbo_lab.data.text import Text

__all__ = [
    "DATASETS",
    "TRAINING",
    "Batch",
    "Codes",
    "Dataset",
    "Spec",
    "Text",
    "changed",
    "checkpoint_in",
    "contexts",
    "decoded",
    "digest",
    "first_of_test",
    "has_images",
    "hold_out",
    "is_binary",
    "is_codes",
    "load",
    "num_classes",
    "short_name",
    "spec_of",
    "split_levels",
]
