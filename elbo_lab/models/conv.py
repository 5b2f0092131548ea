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
from elbo_lab.models.base import Given, Model, Params
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.models.mlp import OUTPUT_BIASES
from elbo_lab.models.networks import (
    ACTIVATIONS,
    NORMS,
    SCALES,
    GaussianConv,
    LatentConvDecoder,
    gaussian,
    image_shape,
)
from elbo_lab.options import option

# Rows that the evaluation decodes at once: three to four times as fast on a CPU as 1000 are.
ROWS = 100


@dataclasses.dataclass(frozen=True)
class ConvOptions:
    """Settings of `--model=conv`."""

    latent_dims: tuple[int, ...] = option((50,), "latent dimensions, one number", least=1)
    channels: tuple[int, ...] = option(
        (32, 64), "channels after each convolution that halves height and width", least=1
    )
    residual_blocks: int = option(
        0,
        "residual blocks (3 x 3 and 1 x 1 convolutions) on the coarsest grid",
        least=0,
        most=100,
    )
    norm: str = option("none", "normalization between convolution and activation", NORMS)
    activation: str = option("tanh", "of the hidden layers", tuple(ACTIVATIONS))
    scale: str = option(
        "log_std",
        "what a Gaussian's scale output is: log sigma, log sigma^2, softplus's sigma^2",
        tuple(SCALES),
    )
    likelihood: str = option("bernoulli", "p(x|z)", tuple(LIKELIHOODS))
    output_bias: str = option(
        "train_mean",
        "start of the output bias: where p(x|z) has the training mean, or zero",
        OUTPUT_BIASES,
    )


def make(options: ConvOptions, spec: Spec) -> Model:
    """Gaussian q(z|x) by strided convolutions, standard normal prior, p(x|z) one of `LIKELIHOODS`.

    Args:
      options: the family's settings.
      spec: of images (H, W) or (H, W, C), of any size.

    Raises:
      ValueError: data that are not images, several latent layers, or no channels.
    """
    _check(options, spec)
    (latent_dim,) = options.latent_dims
    blocks = {
        "shape": spec.shape,
        "channels": options.channels,
        "activation": options.activation,
        "norm": options.norm,
        "residual_blocks": options.residual_blocks,
    }
    law = LIKELIHOODS[options.likelihood]
    encoder = GaussianConv(latent_dim, scale=options.scale, **blocks)
    decoder = LatentConvDecoder(heads=law.heads, **blocks)

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


def _check(options: ConvOptions, spec: Spec) -> None:
    if spec.kind == "token":
        raise ValueError("The model conv takes images, not tokens.")
    image_shape(spec.shape)
    if len(options.latent_dims) != 1:
        shown = ",".join(map(str, options.latent_dims))
        raise ValueError(f"latent_dims={shown}: the model conv has one layer of latents.")
    if not options.channels:
        raise ValueError("channels is empty: the model conv has one convolution at least.")
