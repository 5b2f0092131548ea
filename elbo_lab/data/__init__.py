"""Data sets as arrays, and their binarization."""

from elbo_lab.data.dataset import Dataset, digest, hold_out, is_binary
from elbo_lab.data.datasets import DATASETS, load

__all__ = ["DATASETS", "Dataset", "digest", "hold_out", "is_binary", "load"]
