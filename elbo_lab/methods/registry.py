"""The method of a configuration."""

from elbo_lab import models
from elbo_lab.configs import Config
from elbo_lab.data.dataset import Spec
from elbo_lab.methods import variational
from elbo_lab.methods.base import Method


def make(config: Config, spec: Spec, num_train: int | None = None) -> Method:
    """How the configured model is trained and measured.

    Args:
      config: a checked and resolved configuration.
      spec: of the data.
      num_train: training examples, which some objectives of whole batches need.
    """
    return variational.make(config, models.make(config, spec), num_train)
