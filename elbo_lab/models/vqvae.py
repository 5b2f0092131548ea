"""Networks of a VQ-VAE (van den Oord et al. 2017), for images of any size and colour.

For 28 x 28 images, channels (32, 64) and E = code_dim:
  x -> 14 x 14 x 32 -> 7 x 7 x 64 -> 7 x 7 x E = z;
  codes 7 x 7 x E -> 7 x 7 x 64 -> 14 x 14 x 32 -> x.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Distribution
from elbo_lab.models.base import Given, Params
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.models.mlp import OUTPUT_BIASES
from elbo_lab.models.networks import ACTIVATIONS, NORMS, ConvDecoder, ConvEncoder, grid_sizes
from elbo_lab.models.networks.mlp import dense
from elbo_lab.options import option

# How a codebook is trained: by moving averages or by a loss.
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

    num_codes: int = option(128, "K, vectors of the codebook", least=1)
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
    channels: tuple[int, ...] = option(
        (32, 64), "channels after each convolution that halves height and width", least=1
    )
    residual_blocks: int = option(
        1,
        "residual blocks (3 x 3 and 1 x 1 convolutions) on the coarsest grid",
        least=0,
        most=100,
    )
    norm: str = option("none", "normalization between convolution and activation", NORMS)
    activation: str = option("relu", "of the hidden layers", tuple(ACTIVATIONS))
    likelihood: str = option("bernoulli", "p(x|z)", tuple(LIKELIHOODS))
    output_bias: str = option(
        "train_mean",
        "start of the output bias: where p(x|z) has the training mean, or zero",
        OUTPUT_BIASES,
    )


class VectorEncoder(nn.Module):
    """`ConvEncoder` and a linear layer at each cell: [*batch, D] -> [*batch, M, code_dim].

    M is the number of cells of the coarsest grid, row by row.
    """

    code_dim: int
    shape: tuple[int, ...]  # (H, W) or (H, W, C)
    channels: Sequence[int]
    activation: str = "relu"
    norm: str = "none"
    residual_blocks: int = 0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        grid = ConvEncoder(
            self.shape,
            self.channels,
            self.activation,
            self.norm,
            self.residual_blocks,
            name="trunk",
        )(x)
        cells = grid.reshape(*x.shape[:-1], -1, grid.shape[-1])
        return dense(self.code_dim, "vectors")(cells)


def make(options: VQVAEOptions, spec: Spec) -> Quantized:
    """Strided convolutions to a grid of vectors, and back to p(x|codes), one of `LIKELIHOODS`.

    Args:
      options: reads the sizes of the codebook and the settings of the networks.
      spec: of images (H, W) or (H, W, C), of any size. Each of the channels halves height and
        width, rounded up, which gives the shape of the codes.

    Raises:
      ValueError: data that are not images, or no channels.
    """
    if spec.kind == "token":
        raise ValueError("The model vqvae takes images, not tokens.")
    if not options.channels:
        raise ValueError("channels is empty: the model vqvae has one convolution at least.")
    blocks = {
        "shape": spec.shape,
        "channels": options.channels,
        "activation": options.activation,
        "norm": options.norm,
        "residual_blocks": options.residual_blocks,
    }
    law = LIKELIHOODS[options.likelihood]
    encoder = VectorEncoder(options.code_dim, **blocks)
    decoder = ConvDecoder(heads=law.heads, **blocks)
    code_shape = grid_sizes(spec.shape, len(options.channels))[-1]

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
