"""Models as four pure functions. One file is one family; each exports `make`."""

from elbo_lab.models.base import NOTHING_GIVEN, Density, Given, Model
from elbo_lab.models.registry import MODELS, make

__all__ = ["MODELS", "NOTHING_GIVEN", "Density", "Given", "Model", "make"]
