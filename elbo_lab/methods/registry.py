"""The method of a configuration."""

from elbo_lab import models
from elbo_lab.configs import Config
from elbo_lab.data.dataset import Spec
from elbo_lab.methods import autoencoder, density, dequantized, gan, mixture, variational, vqvae
from elbo_lab.methods.base import Method
from elbo_lab.models.base import Density
from elbo_lab.models.mixture import EMMixture, MixtureOptions
from elbo_lab.models.pixel_flow import FlowOptions
from elbo_lab.models.vqvae import Quantized
from elbo_lab.objective_options import AUTOENCODER, GAN


def make(config: Config, spec: Spec, num_train: int | None = None) -> Method:
    """The method that trains and measures the configured model.

    Args:
      config: a checked and resolved configuration.
      spec: of the data.
      num_train: training examples, which some objectives of whole batches and EM need.

    Raises:
      ValueError: the model family cannot model data of this spec.
    """
    model = models.make(config, spec)
    if isinstance(model, EMMixture):
        return mixture.by_em(model, spec, _em_decay(config, num_train))
    if isinstance(config.model_options, MixtureOptions):
        return mixture.by_gradient(model, spec)
    if isinstance(model, Density):
        return density.make(model, spec)
    if isinstance(model, Quantized):
        return vqvae.make(model, config.model_options, spec)
    if config.objective == AUTOENCODER:
        return autoencoder.make(model, variational.has_plane(config, model))
    if config.objective == GAN:
        is_plane = variational.has_plane(config, model)
        return gan.make(model, spec, config.objective_options.gan_loss, is_plane)
    if isinstance(config.model_options, FlowOptions):
        return dequantized.make(config, model, num_train)
    return variational.make(config, model, num_train)


def _em_decay(config: Config, num_train: int | None) -> float:
    """The weight of the old statistics in a step of EM: the setting, else 1 - B / N."""
    if config.model_options.em_decay is not None:
        return config.model_options.em_decay
    if num_train is None:
        raise ValueError("em_decay is not given, and depends on the number of training examples.")
    return 1 - config.batch_size / num_train
