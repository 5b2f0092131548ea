"""The method of a configuration."""

from elbo_lab import models
from elbo_lab.configs import Config
from elbo_lab.data.dataset import Spec
from elbo_lab.methods import autoencoder, density, variational, vqvae
from elbo_lab.methods.base import Method
from elbo_lab.models.base import Density
from elbo_lab.models.vqvae import Quantized
from elbo_lab.objective_options import AUTOENCODER


def make(config: Config, spec: Spec, num_train: int | None = None) -> Method:
    """The method that trains and measures the configured model.

    Args:
      config: a checked and resolved configuration.
      spec: of the data.
      num_train: training examples, which some objectives of whole batches need.

    Raises:
      ValueError: the model family cannot model data of this spec.
    """
    model = models.make(config, spec)
    if isinstance(model, Density):
        return density.make(model, spec)
    if isinstance(model, Quantized):
        return vqvae.make(model, config.model_options, spec)
    if config.objective == AUTOENCODER:
        return autoencoder.make(model, variational.has_plane(config, model))
    return variational.make(config, model, num_train)
