"""Mixtures, fitted by EM or by gradients of their exact log-likelihood."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions.mixtures import mixture, responsibilities
from elbo_lab.methods import density
from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.models.base import NOTHING_GIVEN, Density, Given
from elbo_lab.models.mixture import EMMixture

# A covariance that is singular makes the log-likelihood infinite or not a number.
REMEDY = (
    "a component may have a singular covariance, as one on a single point has; a larger "
    "--variance_floor or fewer --components may help"
)


def by_em(model: EMMixture, spec: Spec, decay: float, measure_batch: int = 500) -> Method:
    """EM on the exact log-likelihood (Dempster et al. 1977), online for batches of a part of the
    data (Cappe and Moulines 2009).

    A step's E-step gives the responsibilities p(k|x) of the batch under the parameters before it.
    Its M-step averages their sufficient statistics with the old ones, with the weight `decay` of
    the old. With decay 0 and a batch of all examples it is EM: log p of the data never falls while
    the variance floor changes nothing. The decay is constant: with smaller batches the parameters
    end in a neighbourhood of a maximum whose size falls with 1 - decay.

    Args:
      model: the mixture.
      spec: of the data.
      decay: in [0, 1).
      measure_batch: examples that `measure` sees at once.

    Returns:
      A method without params; its stats are `Statistics`. The loss, and its term "nll", is
      -log p(x) before the step; its gradient has no leaves. `measure` gives "log_px". `encode`
      gives responsibilities, and `decode` the mixture with these weights.
    """

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[tuple[()], Any]:
        return (), model.init(key, batch, mean)

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict) -> Loss:
        rows, log_px = responsibilities(model.distribution(params, stats, NOTHING_GIVEN), batch.x)
        return Loss(-log_px, {"nll": -log_px}, (batch.x, rows))

    def update(key: Array, params: Any, stats: Any, observed: tuple[Array, Array]):
        return model.update(stats, *observed, decay), {}

    method = density.make(Density(model.init, model.distribution), spec, measure_batch)
    return _with_components(method._replace(init=init, loss=loss, update=update), model, spec)


def by_gradient(model: Density, spec: Spec, measure_batch: int = 500) -> Method:
    """Gradient ascent on the exact log-likelihood: `density.make` with responsibilities.

    The gradient of log p(x) is sum_k p(k|x) grad log(w_k p_k(x)) (Fisher's identity): the gradient
    of what EM's M-step maximizes, at the parameters of its E-step.

    Args:
      model: a mixture.
      spec: of the data.
      measure_batch: examples that `measure` sees at once.

    Returns:
      A method with the quantities, pictures and encoding of `by_em`.
    """
    return _with_components(density.make(model, spec, measure_batch), model, spec)


def _with_components(method: Method, model: Any, spec: Spec) -> Method:
    """The method with what the components add to a density."""

    def law_of(params: Any, stats: Any) -> dist.MixtureSameFamily:
        return model.distribution(params, stats, NOTHING_GIVEN)

    def encode(params: Any, stats: Any, batch: Batch) -> Array:
        return responsibilities(law_of(params, stats), batch.x)[0]

    def decode(params: Any, stats: Any, weights: Array, given: Given) -> dist.MixtureSameFamily:
        return mixture(jnp.log(weights), law_of(params, stats).component_distribution)

    def means(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        return jnp.clip(law_of(params, stats).component_mean, 0, 1)

    def samples(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        drawn = law_of(params, stats).sample(key, (len(batch.x),))
        return jnp.clip(drawn, 0, 1)  # A Gaussian's draws may be no grey levels.

    return method._replace(
        pictures={
            "samples": Picture(samples, "Samples"),
            "components": Picture(means, "Means of the components"),
        },
        encode=encode,
        decode=decode,
        remedy=REMEDY,
    )
