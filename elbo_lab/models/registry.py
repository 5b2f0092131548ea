"""Models by name, for flags and tables."""

from collections.abc import Callable

from elbo_lab.configs import Config
from elbo_lab.models import mlp
from elbo_lab.models.base import Model

MODELS: dict[str, Callable[[Config, int], Model]] = {"mlp": mlp.make}


def make(config: Config, data_dim: int) -> Model:
    """The model that `config.model` names, for data of `data_dim` dimensions."""
    return MODELS[config.model](config, data_dim)
