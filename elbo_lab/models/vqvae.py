"""Networks of a VQ-VAE (van den Oord et al. 2017), for images of any size and colour.

For 28 x 28 images, channels (32, 64) and E = code_dim:
  x -> 14 x 14 x 32 -> 7 x 7 x 64 -> 7 x 7 x E = z;
  codes 7 x 7 x E -> 7 x 7 x 64 -> 14 x 14 x 32 -> x.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Distribution
from elbo_lab.models import common, laws
from elbo_lab.models.base import Given, Params
from elbo_lab.models.networks import ConvDecoder, VectorEncoder
from elbo_lab.options import option

# Ways to train a codebook: by moving averages or by a loss.
CODEBOOKS = ("ema", "loss")


class Quantized(NamedTuple):
    """The networks on both sides of a codebook, as pure functions; `methods.vqvae` trains them.

    Params are {"encoder": ..., "decoder": ...}: the codebook is the method's. M is the number of
    codes of an example, the product of `code_shape`; E is `code_dim`.
    """

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params; as in `Model`."""

    encode: Callable[..., Any]
    """(params, x [*batch, D], given) -> vectors [*batch, M, E], one for each code."""

    likelihood: Callable[..., Any]
    """(params, vectors [*batch, M, E], given) -> p(x|vectors), batch shape [*batch], event [D]."""

    code_shape: tuple[int, ...]  # (h, w)
    num_codes: int  # K
    code_dim: int  # E


@dataclasses.dataclass(frozen=True)
class VQVAEOptions:
    """Settings of `--model=vqvae`."""

    num_codes: int = option(128, "K, vectors of the codebook", least=2)
    code_dim: int = option(16, "E, dimension of the vectors of the codebook", least=1)
    codebook: str = option(
        "ema",
        "how the codebook is trained: by moving averages of the encoder's outputs, or by a loss",
        CODEBOOKS,
    )
    codebook_decay: float = option(
        0.99, "decay of the moving averages of the codebook and of its use", least=0, most=1
    )
    commitment: float = option(
        0.25, "weight of the squared distances of encoder outputs to codes", least=0, traced=True
    )
    restart_below: float = option(
        0.1,
        "codes used less than this part of an equal share become encoder outputs; 0: none",
        least=0,
        most=1,
    )
    channels: tuple[int, ...] = common.channels_option()
    residual_blocks: int = common.residual_blocks_option(1)
    norm: str = common.norm_option()
    activation: str = common.activation_option("relu")
    likelihood: str = common.likelihood_option()
    likelihood_variance: float = common.likelihood_variance_option()
    likelihood_components: int = common.likelihood_components_option()
    output_bias: str = common.output_bias_option()


def make(options: VQVAEOptions, spec: Spec) -> Quantized:
    """Strided convolutions to a grid of vectors, and back to p(x|codes), a law of `laws`.

    Args:
      options: the family's settings; reads the sizes of the codebook and those of the networks.
      spec: of images (H, W) or (H, W, C), of any size. Each of the channels halves height and
        width, rounded up, which gives the shape of the codes.

    Raises:
      ValueError: data that are not images, no channels, or a law of levels for data without.
    """
    settings = common.conv_settings("vqvae", options, spec)
    law = laws.make(options, spec)
    encoder = VectorEncoder(options.code_dim, settings)
    decoder = ConvDecoder(settings, law.heads)
    code_shape = settings.sizes[-1]

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        grid = jnp.zeros((*code_shape, options.code_dim))
        params = {
            "encoder": encoder.init(encoder_key, jnp.zeros(spec.dim))["params"],
            "decoder": decoder.init(decoder_key, grid)["params"],
        }
        if options.output_bias == "train_mean":
            mean = jnp.mean(batch.x, axis=0) if mean is None else mean
            law.start_bias(params["decoder"], mean)
        return params

    def encode(params: Params, x: Array, given: Given) -> Array:
        return encoder.apply({"params": params["encoder"]}, x)

    def likelihood(params: Params, vectors: Array, given: Given) -> Distribution:
        grid = vectors.reshape(*vectors.shape[:-2], *code_shape, options.code_dim)
        return law.distribution(*decoder.apply({"params": params["decoder"]}, grid))

    return Quantized(init, encode, likelihood, code_shape, options.num_codes, options.code_dim)
