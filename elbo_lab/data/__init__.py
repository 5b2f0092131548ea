"""Data sets as arrays, and their binarization."""

from elbo_lab.data.datasets import DATASETS, Dataset, is_binary, load

__all__ = ["DATASETS", "Dataset", "is_binary", "load"]
