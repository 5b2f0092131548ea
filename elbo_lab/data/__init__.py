"""Data sets as arrays, and their binarization."""

from elbo_lab.data.datasets import DATASETS, Dataset, digest, hold_out, is_binary, load

__all__ = ["DATASETS", "Dataset", "digest", "hold_out", "is_binary", "load"]
