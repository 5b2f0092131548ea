"""What a configuration's objective is: a loss per image, and hyper-parameters over the steps."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from elbo_lab import losses
from elbo_lab.configs import Config
from elbo_lab.distributions.means import closed_form_mean
from elbo_lab.models.base import Model
from elbo_lab.options import values_of

LossFn = Callable[[Array, Any, Array, dict[str, Array]], tuple[Array, dict[str, Array]]]


def objective_loss(config: Config, model: Model, num_train: int | None = None) -> LossFn:
    """The configured objective of the configured model as a loss per image.

    Args:
      config: the run's.
      model: whose distributions it takes.
      num_train: training images, which some objectives of whole batches need.

    Returns:
      (key, params, x [B, D], hparams) -> (loss [B], terms {name: [B]}), nats per image.
    """
    objective = losses.OBJECTIVES[config.objective]
    accepted = inspect.signature(objective).parameters
    settings = values_of(config.objective_options) | {"estimator": config.estimator}
    settings |= {"num_samples": config.k, "num_outer": config.m, "dataset_size": num_train}
    options = {n: v for n, v in settings.items() if n in accepted and v is not None}

    def loss_fn(key: Array, params: Any, x: Array, hparams: dict[str, Array]):
        given = {name: hparams[name] for name in accepted if name in hparams}

        def log_likelihood(z: Any) -> Array:
            return model.likelihood(params, z).log_prob(x)

        def decoder_mean(z: Any) -> Array:
            mean = closed_form_mean(model.likelihood(params, z))
            if mean is None:
                raise ValueError(f"{config.objective} needs a p(x|z) with a closed-form mean.")
            return mean

        if "x" in accepted:  # The objective takes mu_G instead, and compares it with x itself.
            given["x"] = x
        if "inference" in accepted:
            given["inference"] = functools.partial(model.posterior, params)
            given["generation"] = functools.partial(model.likelihood, params)
        loss, aux = objective(
            key,
            model.posterior(params, x),
            model.prior(params),
            decoder_mean if "x" in accepted else log_likelihood,
            vectorized=True,
            **options | given,
        )
        reconstruction = jnp.mean(aux.log_px_z, axis=0)
        return loss, {"bound": aux.bound, "kl": aux.kl, "reconstruction": reconstruction}

    return loss_fn
