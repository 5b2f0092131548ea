"""Convolutional models with one stochastic layer, for images of any size and colour.

For 28 x 28 images and channels (32, 64):
  x -> 14 x 14 x 32 -> 7 x 7 x 64 -> z;  z -> 7 x 7 x 64 -> 14 x 14 x 32 -> x.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Distribution
from elbo_lab.models import common, conditions, conv_latents, laws
from elbo_lab.models.base import Given, Model, Params
from elbo_lab.models.networks import ConvCritic, LatentConvDecoder
from elbo_lab.options import option

# Rows that the evaluation decodes at once, where p(x|z) has one number for each value: three to
# four times as fast on a CPU as 1000 rows.
ROWS = 100


@dataclasses.dataclass(frozen=True)
class ConvOptions:
    """Settings of `--model=conv`."""

    latent_dims: tuple[int, ...] = option((50,), "latent dimensions, one number", least=1)
    channels: tuple[int, ...] = common.channels_option()
    residual_blocks: int = common.residual_blocks_option(0)
    norm: str = common.norm_option()
    activation: str = common.activation_option("tanh")
    scale: str = common.scale_option()
    likelihood: str = common.likelihood_option()
    likelihood_variance: float = common.likelihood_variance_option()
    likelihood_components: int = common.likelihood_components_option()
    posterior: str = common.posterior_option()
    posterior_rank: int = common.posterior_rank_option()
    posterior_depth: int = common.posterior_depth_option()
    posterior_width: tuple[int, ...] = common.posterior_width_option()
    posterior_min_kl: float = common.posterior_min_kl_option()
    prior: str = common.prior_option()
    prior_components: int = common.prior_components_option()
    prior_flow: str = common.prior_flow_option()
    prior_depth: int = common.prior_depth_option()
    prior_width: tuple[int, ...] = common.prior_width_option()
    output_bias: str = common.output_bias_option()
    condition: str = common.condition_option()


def make(options: ConvOptions, spec: Spec) -> Model:
    """q(z|x) by strided convolutions; its kind, the prior and p(x|z) are those of the settings
    (`conv_latents`, `laws`).

    A model that is conditioned on labels is p(x|y, z), q(z|x, y) and p(z).

    Args:
      options: the family's settings.
      spec: of images (H, W) or (H, W, C), of any size.

    Raises:
      ValueError: data that are not images, several latent layers, no channels, a law of levels
        for data without, a least KL where there is none (`posteriors.make`), a condition for data
        without labels, or a VampPrior with labels or of flows.
    """
    latents = conv_latents.make("conv", options, spec)
    law = laws.make(options, spec)
    decoder = LatentConvDecoder(latents.settings, law.heads)

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        params = latents.init(key, encoder_key, batch)
        params["decoder"] = decoder.init(decoder_key, jnp.zeros(latents.input_size))["params"]
        common.start_at_mean(params, law, batch, mean, options.output_bias)
        return params

    def likelihood(params: Params, z: Array, given: Given) -> Distribution:
        inputs = conditions.beside(z, given, latents.classes)
        return law.distribution(*decoder.apply({"params": params["decoder"]}, inputs))

    return Model(
        init,
        latents.prior,
        latents.posterior,
        likelihood,
        rows=max(1, ROWS // law.numbers),
        critic=ConvCritic(latents.settings),
        classes=latents.classes,
    )
