"""q(z|x) by strided convolutions, and p(z): the half that `conv` and `pixelvae` share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Distribution
from elbo_lab.models import common, conditions, posteriors, priors
from elbo_lab.models.base import Given, Params
from elbo_lab.models.networks import ConvSettings, GaussianConv


class ConvLatents(NamedTuple):
    """q(z|x, y) and p(z) of one stochastic layer as pure functions of a model's params, of which
    they read "encoder" and "prior".
    """

    init: Callable[..., Params]
    """(the model's key, the encoder network's key, batch) -> {"encoder": ..., "prior": ...}."""

    prior: Callable[..., Distribution]
    """As in `Model`."""

    posterior: Callable[..., Distribution]
    """As in `Model`."""

    settings: ConvSettings
    size: int  # L
    classes: int | None  # C, of the labels that q(z|x, y) sees; None: none
    input_size: int  # of z with a one-hot label beside it: what a decoder of p(x|z, y) sees


def make(family: str, options: Any, spec: Spec) -> ConvLatents:
    """Gaussian q(z|x) or a flow, and the prior, as the settings name them.

    Args:
      family: the model's name, for messages.
      options: has the fields of `common.conv_settings`, `posteriors.make` and `priors.make`, scale
        and condition.
      spec: of images (H, W) or (H, W, C).

    Raises:
      ValueError: data that are not images, several latent layers, no channels, a condition for data
        without labels, or a VampPrior with labels or of flows.
    """
    settings = common.conv_settings(family, options, spec)
    size = common.one_layer(family, options.latent_dims)
    classes = conditions.num_classes(options, spec)
    num_labels = classes or 0  # the length of the one-hot vector beside an input
    law_of_z = posteriors.make(options, size)
    top = priors.make(options, size, spec)
    encoder = GaussianConv(size, settings, options.scale, law_of_z.heads)

    def init(key: Array, encoder_key: Array, batch: Batch) -> Params:
        prior_key, posterior_key = common.latent_keys(key)
        network = encoder.init(encoder_key, jnp.zeros(spec.dim + num_labels))["params"]
        return {
            "encoder": network | law_of_z.init(posterior_key),
            "prior": top.init(prior_key, batch),
        }

    def prior(params: Params, given: Given) -> Distribution:
        return top.distribution(params["prior"], lambda x: posterior(params, x, given))

    def posterior(params: Params, x: Array, given: Given) -> Distribution:
        inputs = conditions.beside(x, given, classes)
        outputs = encoder.apply({"params": params["encoder"]}, inputs)
        return law_of_z.distribution(params["encoder"], *outputs)

    return ConvLatents(init, prior, posterior, settings, size, classes, size + num_labels)
