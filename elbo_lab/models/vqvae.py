"""Networks of a VQ-VAE (van den Oord et al. 2017), for images of any size and colour, and of
VQ-VAE-2 (Razavi et al. 2019), which has several levels of codes.

For 28 x 28 images, channels (32, 64) and E = code_dim:
  x -> 14 x 14 x 32 -> 7 x 7 x 64 -> 7 x 7 x E = z;
  codes 7 x 7 x E -> 7 x 7 x 64 -> 14 x 14 x 32 -> x.

Each further level halves the grid below it. With two, of 4 x 4 and 7 x 7 codes:
  x -> 14 x 14 x 32 -> 7 x 7 x 64 = f -> 4 x 4 x 64 -> 4 x 4 x E = z_top;
  codes e_top -> 7 x 7 x 64 beside f -> 7 x 7 x E = z_bottom;
  e_top -> 7 x 7 x 64 beside e_bottom -> 7 x 7 x 64 -> 14 x 14 x 32 -> x.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Distribution
from elbo_lab.models import common, laws
from elbo_lab.models.base import Given, Params
from elbo_lab.models.networks import ConvSettings
from elbo_lab.models.networks.conv import gradient_batch
from elbo_lab.models.networks.levels import LevelsDecoder, LevelsEncoder, settings_of_levels
from elbo_lab.options import option

# Ways to train a codebook: by moving averages or by a loss.
CODEBOOKS = ("ema", "loss")


class Quantized(NamedTuple):
    """The networks on both sides of the codebooks, as pure functions; `methods.vqvae` trains them.

    There are L levels of codes, and a codebook for each. **Levels are always ordered from the top,
    the coarsest grid, down**: in this order they are quantized, modelled and drawn. Params are
    {"encoder": ..., "decoder": ...}: the codebooks are the method's. M_l is the number of codes of
    an example in level l, the product of `grids[l]`; E is `code_dim`.
    """

    init: Callable[..., Params]
    """(key, batch, mean=None) -> params; as in `Model`."""

    features: Callable[..., Any]
    """(params, x [*batch, D], given) -> what `vectors` of every level needs of x, any tuple."""

    vectors: Callable[..., Array]
    """(params, features, above) -> vectors [*batch, M_l, E] of the level below those of `above`,
    the tuple of the chosen codes [*batch, M_i, E] of each level above it: () for the top level."""

    likelihood: Callable[..., Any]
    """(params, (vectors [*batch, M_l, E] of each level), given) -> p(x|vectors), batch shape
    [*batch], event [D]."""

    grids: tuple[tuple[int, ...], ...]  # (h, w) of each level
    num_codes: int  # K, of each codebook
    code_dim: int  # E

    gradient_batch: int | None = None
    """As in `Density`."""


@dataclasses.dataclass(frozen=True)
class VQVAEOptions:
    """Settings of `--model=vqvae`."""

    code_levels: int = option(
        1,
        "levels of codes, each with a codebook; a level has half the grid of the one below it",
        least=1,
    )
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
    """Strided convolutions to one grid or several, and back to p(x|codes), a law of `laws`.

    Args:
      options: the family's settings; reads the sizes of the codebook and those of the networks.
      spec: of images (H, W) or (H, W, C), of any size. Each of the channels halves height and
        width, rounded up, which gives the grid of the lowest level of codes. Each further level
        halves it again.

    Raises:
      ValueError: data that are not images, no channels, more levels than the image has grids, or a
        law of levels for data without.
    """
    settings = common.conv_settings("vqvae", options, spec)
    _check_levels(options, settings)
    levels = settings_of_levels(settings, options.code_levels)
    law = laws.make(options, spec)
    encoder = LevelsEncoder(options.code_dim, levels)
    decoder = LevelsDecoder(settings, law.heads, levels[:-1])
    grids = tuple(own.sizes[-1] for own in levels)

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        vectors = tuple(jnp.zeros((h * w, options.code_dim)) for h, w in grids)
        params = {
            "encoder": encoder.init(encoder_key, jnp.zeros(spec.dim))["params"],
            "decoder": decoder.init(decoder_key, vectors)["params"],
        }
        if options.output_bias == "train_mean":
            mean = jnp.mean(batch.x, axis=0) if mean is None else mean
            law.start_bias(params["decoder"], mean)
        return params

    def features(params: Params, x: Array, given: Given) -> tuple[Array, ...]:
        return encoder.apply({"params": params["encoder"]}, x, method="upwards")

    def vectors(params: Params, features: tuple[Array, ...], above: tuple[Array, ...]) -> Array:
        return encoder.apply({"params": params["encoder"]}, features, above, method="downwards")

    def likelihood(params: Params, vectors: tuple[Array, ...], given: Given) -> Distribution:
        return law.distribution(*decoder.apply({"params": params["decoder"]}, vectors))

    return Quantized(
        init,
        features,
        vectors,
        likelihood,
        grids,
        options.num_codes,
        options.code_dim,
        gradient_batch(settings),
    )


def _check_levels(options: VQVAEOptions, settings: ConvSettings) -> None:
    """Raises a ValueError for a level above a grid of a single code."""
    height, width = settings.sizes[-1]
    most = 1 + math.ceil(math.log2(max(height, width)))  # the top level then has one code
    if options.code_levels > most:
        shown = ",".join(map(str, options.channels))
        raise ValueError(
            f"code_levels must be at most {most}, since channels={shown} take images of "
            f"{settings.shape} to a grid of {height} x {width}, which each further level halves; "
            f"got {options.code_levels}."
        )
