"""Data sets as arrays, and their binarization."""

from elbo_lab.data.dataset import (
    Batch,
    Dataset,
    Spec,
    changed,
    digest,
    hold_out,
    is_binary,
    spec_of,
)
from elbo_lab.data.datasets import DATASETS, load

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "Spec",
    "changed",
    "digest",
    "hold_out",
    "is_binary",
    "load",
    "spec_of",
]
