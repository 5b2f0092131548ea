"""A flow of images under any bound of log p(x) that is a function of log-weights of the noise."""

from typing import Any

import jax
from jax import Array

from elbo_lab.configs import Config
from elbo_lab.data.dataset import Batch
from elbo_lab.methods import importance, variational
from elbo_lab.methods.base import Loss, Method
from elbo_lab.models.base import Model

# Quantities that say nothing here: p(x|v) is 1, so that the KL is minus the ELBO.
_EMPTY = ("kl", "reconstruction")


def make(config: Config, model: Model, num_train: int | None = None) -> Method:
    """The variational method without what is about latent variables of few dimensions.

    Loss: minus the bound (term "bound"). Quantities: ELBO, IWAE-k and L_K of log p(x), in nats, and
    the effective sample size of the noise. Picture: samples.

    Args:
      config: as of `variational.make`.
      model: of `models.pixel_flow`.
      num_train: training examples.
    """
    method = variational.make(config, model, num_train)
    measure_all = importance.make_measure(model, config.k, config.eval_k, with_means=False)

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Loss:
        value = method.loss(key, params, stats, batch, hparams)
        return value._replace(terms={"bound": value.terms["bound"]})

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        measured = measure_all(key, params, stats, batch)
        return {name: array for name, array in measured.items() if name not in _EMPTY}

    def samples(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        del batch
        return variational.sample(model, key, params, stats, variational.SAMPLES)

    picture = method.pictures["samples"]._replace(draw=jax.jit(samples), title="Samples")
    return method._replace(
        loss=loss,
        terms=("bound",),
        measure=measure,
        pictures={"samples": picture},
        layer_means=None,
        encode=None,
        posterior=None,
        decode=None,
    )
