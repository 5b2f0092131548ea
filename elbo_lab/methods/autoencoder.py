"""The deterministic autoencoder over a latent-variable model's networks.

    loss(x) = -log p(x | E_q[z|x])

The code is the mean of the inference network's q(z|x), and the likelihood is the model's own. The
loss is the squared error up to scale and constant for a Gaussian p(x|z), the cross-entropy for a
Bernoulli p(x|z), and the negative log mass for a discretized law. No draw enters, and nothing keeps
the codes near the prior: decoded draws from the prior show the cost (textbook section 13.1).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch
from elbo_lab.distributions import Chain
from elbo_lab.distributions.means import closed_form_mean, mean_or_draw
from elbo_lab.methods import variational
from elbo_lab.methods.base import Loss, Method, Picture
from elbo_lab.models.base import Model, given_of

TERMS = ("reconstruction",)
# Examples that are measured at once.
MEASURE_BATCH = 500


def make(model: Model, is_plane: bool = False) -> Method:
    """The method of an autoencoder.

    Args:
      model: its posterior's means are the codes, its likelihood decodes; its prior is never fitted.
      is_plane: True if codes are [*batch, 2].

    Raises:
      ValueError: (when traced) a layer of q(z|x) has no mean in closed form.
    """

    def init(key: Array, batch: Batch, mean: Array | None = None) -> tuple[Any, Any]:
        return model.init(key, batch, mean), ()

    def log_px_code(params: Any, batch: Batch, key: Array | None) -> Array:
        given = given_of(batch, key)
        z = codes(model.posterior(params, batch.x, given))
        return model.likelihood(params, z, given).log_prob(batch.x)

    def loss(key: Array, params: Any, stats: Any, batch: Batch, hparams: dict[str, Array]) -> Loss:
        del hparams
        log_px = log_px_code(params, batch, key)
        return Loss(-log_px, {"reconstruction": log_px})

    def measure(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        del key, stats
        layers = _layers(codes(model.posterior(params, batch.x, given_of(batch))))
        means = {f"means_{i}": layer for i, layer in enumerate(layers, 1)}
        return {"log_px_mean": log_px_code(params, batch, None), **means}

    def layer_means(key: Array, params: Any, stats: Any, batch: Batch) -> dict[str, Array]:
        measured = measure(key, params, stats, batch)
        return {name: array for name, array in measured.items() if name.startswith("means_")}

    def reconstructions(key: Array, params: Any, stats: Any, batch: Batch) -> Array:
        del stats
        given = given_of(batch)
        z = codes(model.posterior(params, batch.x, given))
        return mean_or_draw(key, model.likelihood(params, z, given))

    pictures = variational.pictures(model, is_plane)
    pictures["reconstructions"] = Picture(reconstructions, "Reconstructions", beside_inputs=True)
    pictures["samples"] = pictures["samples"]._replace(title="Decoded draws from the prior")
    return Method(
        init=init,
        loss=loss,
        terms=TERMS,
        measure=measure,
        measure_batch=MEASURE_BATCH,
        pictures=pictures,
        headline="log_px_mean",
        layer_means=layer_means,
        sample=functools.partial(variational.sample_compiled, model),
        encode=functools.partial(variational.encode, model),
        decode=lambda params, stats, z, given: model.likelihood(params, z, given),
        classes=model.classes,
    )


def codes(posterior: Any) -> Any:
    """The means of every layer of q(z|x), each given the means below it; shaped as one draw.

    Raises:
      ValueError: a layer has no mean in closed form.
    """
    if not isinstance(posterior, Chain):
        return _mean(posterior)
    z = [_mean(posterior.first)]
    for conditional in posterior.conditionals:
        z.append(_mean(conditional(z[-1])))
    return tuple(z)


def _mean(layer: Any) -> Any:
    mean = closed_form_mean(layer)
    if mean is None:
        raise ValueError("autoencoder needs a q(z|x) with a closed-form mean.")
    return mean


def _layers(z: Any) -> list[Array]:
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(z)]
