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
from elbo_lab.models import common
from elbo_lab.models.base import Given, Model, Params
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.models.networks import GaussianConv, LatentConvDecoder, gaussian
from elbo_lab.options import option

# Rows that the evaluation decodes at once: three to four times as fast on a CPU as 1000 rows.
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
    output_bias: str = common.output_bias_option()


def make(options: ConvOptions, spec: Spec) -> Model:
    """Gaussian q(z|x) by strided convolutions, standard normal prior, p(x|z) one of `LIKELIHOODS`.

    Args:
      options: the family's settings.
      spec: of images (H, W) or (H, W, C), of any size.

    Raises:
      ValueError: data that are not images, several latent layers, or no channels.
    """
    settings = common.conv_settings("conv", options, spec)
    if len(options.latent_dims) != 1:
        shown = ",".join(map(str, options.latent_dims))
        raise ValueError(f"latent_dims={shown}: the model conv has one layer of latents.")
    (latent_dim,) = options.latent_dims
    law = LIKELIHOODS[options.likelihood]
    encoder = GaussianConv(latent_dim, settings, options.scale)
    decoder = LatentConvDecoder(settings, law.heads)

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        params = {
            "encoder": encoder.init(encoder_key, jnp.zeros(spec.dim))["params"],
            "decoder": decoder.init(decoder_key, jnp.zeros(latent_dim))["params"],
            "prior": {},
        }
        if options.output_bias == "train_mean":
            mean = jnp.mean(batch.x, axis=0) if mean is None else mean
            law.start_bias(params["decoder"], mean)
        return params

    def prior(params: Params, given: Given) -> Distribution:
        return gaussian(jnp.zeros(latent_dim), jnp.ones(latent_dim))

    def posterior(params: Params, x: Array, given: Given) -> Distribution:
        return gaussian(*encoder.apply({"params": params["encoder"]}, x))

    def likelihood(params: Params, z: Array, given: Given) -> Distribution:
        return law.distribution(*decoder.apply({"params": params["decoder"]}, z))

    return Model(init, prior, posterior, likelihood, rows=ROWS)
