"""How a model is trained and measured. One file is one method."""

from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.methods.registry import make

__all__ = ["Loss", "Method", "Picture", "make"]
