"""p(z) of the highest stochastic layer.

standard  N(0, I)
mixture   sum_m pi_m N(z; m_m, diag s_m^2), weights, means and standard deviations learned
vamp      1/M sum_m q(z|u_m), pseudo-inputs u_m in the range of the data, learned (VampPrior,
          Tomczak and Welling 2018, equation 9): a mixture of the inference network's own Gaussians
flow      z = T(y), y ~ N(0, I), T a masked autoregressive flow or couplings (`models.flows`)

The KL from a Gaussian to a mixture or a flow has no closed form: objectives take it from draws.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Flow
from elbo_lab.models import flows
from elbo_lab.models.base import Params
from elbo_lab.models.conditions import is_conditional
from elbo_lab.models.networks import gaussian
from elbo_lab.models.posteriors import IAF

# The variance of the mixture's means at the start. With 1 minus it as the components' variance, the
# prior starts with the mean and variance of N(0, I), up to the draw of the means.
_MEANS_VARIANCE = 0.25
# Pseudo-inputs start at training examples, moved off 0 and 1 by this margin and by noise of this
# standard deviation: copies of one example would never part.
_MARGIN, _NOISE = 0.05, 0.1


class Prior(NamedTuple):
    """p(z) as pure functions."""

    init: Callable[[Array, Batch], Params]
    """(key, first rows of the training data) -> its parameters."""

    distribution: Callable[[Params, Callable[[Array], Any]], Any]
    """(its parameters, inference network x -> q(z|x)) -> p(z), batch shape ()."""


def make(options: Any, latent_dim: int, spec: Spec) -> Prior:
    """The prior that a model family's settings name.

    Args:
      options: reads prior, latent_dims and condition; posterior and prior_components of mixtures;
        prior_flow, prior_depth, prior_width and activation of a flow.
      latent_dim: L, of the highest layer.
      spec: of the data.

    Raises:
      ValueError: a VampPrior of several stochastic layers, of a model that is conditioned on
        labels, or of flows.
    """
    if options.prior == "vamp" and len(options.latent_dims) > 1:
        shown = ",".join(map(str, options.latent_dims))
        raise ValueError(
            f"prior=vamp mixes the q(z|u) of one stochastic layer; got latent_dims={shown}."
        )
    if options.prior == "vamp" and is_conditional(options):
        raise ValueError(
            "prior=vamp mixes q(z|u), but the inference network of condition=label is q(z|u, y), "
            "and p(z) has no label."
        )
    if options.prior == "vamp" and getattr(options, "posterior", None) == IAF:
        raise ValueError(
            "prior=vamp mixes the densities q(z|u) at other draws than their own, each of which is "
            "a search of latent_dims passes for posterior=iaf."
        )
    return PRIORS[options.prior](options, latent_dim, spec)


def _standard(options: Any, latent_dim: int, spec: Spec) -> Prior:
    return Prior(
        lambda key, batch: {},
        lambda params, infer: gaussian(jnp.zeros(latent_dim), jnp.ones(latent_dim)),
    )


def _mixture(options: Any, latent_dim: int, spec: Spec) -> Prior:
    components = options.prior_components

    def init(key: Array, batch: Batch) -> Params:
        shape = (components, latent_dim)
        return {
            "logits": jnp.zeros(components),
            "means": math.sqrt(_MEANS_VARIANCE) * jax.random.normal(key, shape),
            "log_scales": jnp.full(shape, 0.5 * math.log(1 - _MEANS_VARIANCE)),
        }

    def distribution(params: Params, infer: Callable[[Array], Any]) -> dist.Distribution:
        parts = gaussian(params["means"], jnp.exp(params["log_scales"]))
        return dist.MixtureSameFamily(dist.Categorical(logits=params["logits"]), parts)

    return Prior(init, distribution)


def _vamp(options: Any, latent_dim: int, spec: Spec) -> Prior:
    components = options.prior_components
    is_image = spec.kind == "image"

    def init(key: Array, batch: Batch) -> Params:
        rows_key, noise_key = jax.random.split(key)
        x = jnp.reshape(batch.x, (-1, spec.dim))
        rows = jax.random.choice(rows_key, len(x), (components,), replace=components > len(x))
        start = x[rows]
        if is_image:
            start = jax.scipy.special.logit(jnp.clip(start, _MARGIN, 1 - _MARGIN))
        return {"pseudo_inputs": start + _NOISE * jax.random.normal(noise_key, start.shape)}

    def distribution(params: Params, infer: Callable[[Array], Any]) -> dist.Distribution:
        inputs = params["pseudo_inputs"]
        parts = infer(jax.nn.sigmoid(inputs) if is_image else inputs)
        return dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(components)), parts)

    return Prior(init, distribution)


def _flow(options: Any, latent_dim: int, spec: Spec) -> Prior:
    make_step = flows.PRIOR_STEPS[options.prior_flow]
    step = make_step(latent_dim, options.prior_width, options.activation)

    def init(key: Array, batch: Batch) -> Params:
        return {"flow": flows.init(step, options.prior_depth, key)}

    def distribution(params: Params, infer: Callable[[Array], Any]) -> Flow:
        base = gaussian(jnp.zeros(latent_dim), jnp.ones(latent_dim))
        return Flow(base, flows.bijections(step, params["flow"], [None] * options.prior_depth))

    return Prior(init, distribution)


PRIORS: dict[str, Callable[[Any, int, Spec], Prior]] = {
    "standard": _standard,
    "mixture": _mixture,
    "vamp": _vamp,
    "flow": _flow,
}
