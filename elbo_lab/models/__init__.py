"""Models as four pure functions. One file is one family; each exports `make`."""

from elbo_lab.models.base import Model
from elbo_lab.models.registry import MODELS, make

__all__ = ["MODELS", "Model", "make"]
