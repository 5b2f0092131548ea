"""Texts of equal length with a Gaussian code: the poem writer of the lecture notes.

  x -> embeddings -> gated convolutions -> mean over the positions -> q(z|x) = N(m, diag s^2)
  z -> a layer for each position -> logits of each character            (positionwise)
  z, x_<t -> causal gated convolutions, each given z -> logits of x_t   (autoregressive)

Given z, the characters of the position-wise decoder are independent: all that they share has to go
through z. The autoregressive one sees the characters before each, and can do without z: then q(z|x)
becomes p(z) (posterior collapse; Bowman et al. 2016).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Autoregressive, Distribution, Steps, TokenCategorical
from elbo_lab.models import common, posteriors
from elbo_lab.models.base import Given, Model, Params
from elbo_lab.models.networks import gaussian
from elbo_lab.models.networks.text import CausalDecoder, PositionwiseDecoder, TextEncoder
from elbo_lab.options import option

DECODERS = POSITIONWISE, AUTOREGRESSIVE = ("positionwise", "autoregressive")
# Logits that the evaluation computes at once: 16 MB.
LOGITS = 4_000_000


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Settings of `--model=text`."""

    latent_dims: tuple[int, ...] = option((32,), "latent dimensions, one number", least=1)
    text_decoder: str = option(
        POSITIONWISE,
        "p(x|z): characters that are independent given z, or each given z and those before it",
        DECODERS,
    )
    embedding_dim: int = option(64, "of the embeddings of characters and positions", least=1)
    width: int = option(64, "features of a position", least=1)
    layers: int = option(
        3,
        "gated convolutions of the inference network, and of the autoregressive decoder",
        least=1,
        most=100,
    )
    kernel_size: int = option(3, "of the gated convolutions, odd", least=3, most=99, odd=True)
    decoder_dropout: float = option(
        0.0,
        "part of the characters that the autoregressive decoder does not see, drawn anew in each "
        "step of training; in the evaluation it sees all",
        least=0,
        below=1,
    )
    activation: str = common.activation_option("tanh")
    scale: str = common.scale_option()
    posterior_min_kl: float = common.posterior_min_kl_option()


def make(options: TextOptions, spec: Spec) -> Model:
    """Gaussian q(z|x) by gated convolutions, p(z) = N(0, I), and p(x|z) by one of two decoders.
    q(z|x) may have a least KL to p(z) (`posteriors.least_divergence`).

    The logits start at the frequencies of the characters in the first rows of the training data.

    Under a key in `Given`, that of a training step, the autoregressive decoder does not see a part
    of the characters. All draws of z for an example share the unseen ones, so that a bound is one
    of the model that misses them.

    Args:
      options: the family's settings.
      spec: of tokens (T,).

    Raises:
      ValueError: data that are not tokens in a row, several latent layers, an even kernel, or
        characters hidden from a decoder that sees none.
    """
    _check(options, spec)
    latent_dim = common.one_layer("text", options.latent_dims)
    levels, length = spec.levels, spec.dim
    sizes = (options.embedding_dim, options.width, options.layers, options.kernel_size)
    encoder = TextEncoder(levels, latent_dim, *sizes, options.scale)
    positionwise = PositionwiseDecoder(levels, length, options.width, options.activation)
    causal = CausalDecoder(levels, length, *sizes)
    min_kl = options.posterior_min_kl
    law_of_z = posteriors.least_divergence(min_kl) if min_kl else gaussian
    is_positionwise = options.text_decoder == POSITIONWISE

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        del mean  # of tokens it says nothing
        encoder_key, decoder_key = jax.random.split(key)
        tokens, z = batch.x.reshape(-1, length), jnp.zeros((1, latent_dim))
        if is_positionwise:
            decoder = positionwise.init(decoder_key, z)["params"]
        else:
            decoder = causal.init(decoder_key, tokens[:1], z)["params"]
        # One is added to each count: a character that the rows lack would have the logit -inf.
        counts = jnp.bincount(tokens.reshape(-1), length=levels) + 1
        decoder["logits"]["bias"] = jnp.log(counts / jnp.sum(counts))
        encoder_params = encoder.init(encoder_key, tokens[:1])["params"]
        return {"encoder": encoder_params, "decoder": decoder, "prior": {}}

    def prior(params: Params, given: Given) -> Distribution:
        return gaussian(jnp.zeros(latent_dim), jnp.ones(latent_dim))

    def posterior(params: Params, x: Array, given: Given) -> Distribution:
        return law_of_z(*encoder.apply({"params": params["encoder"]}, x))

    def likelihood(params: Params, z: Array, given: Given) -> Distribution:
        variables = {"params": params["decoder"]}
        if is_positionwise:
            return TokenCategorical(positionwise.apply(variables, z))

        apply = functools.partial(causal.apply, variables)

        def beside(x: Array) -> tuple[Array, Array | None]:
            """z, and what the decoder sees, for the rows of tokens x."""
            rows = jnp.broadcast_to(z, (*x.shape[:-1], latent_dim)).reshape(-1, latent_dim)
            is_seen = None
            if options.decoder_dropout and given.key is not None:
                is_seen = _seen(given.key, x, options.decoder_dropout).reshape(-1, length)
            return rows, is_seen

        def shaped(y: Array, x: Array) -> Array:
            """Logits [rows, positions, levels] of tokens x as those of a law."""
            y = y.reshape(*x.shape[:-1], -1, levels)
            # A law of two levels has one logit for each value.
            return y[..., 1] - y[..., 0] if levels == 2 else y

        def logits(x: Array) -> Array:
            return shaped(apply(x.reshape(-1, length), *beside(x)), x)

        def position(state: Any, x: Array, row: Array, column: Array) -> tuple[Array, Any]:
            y, state = apply(state, x.reshape(-1, length), column, method="position")
            return shaped(y, x), state

        steps = Steps(
            (1, length, 1),
            lambda x: apply(*beside(x), method="start"),
            lambda state, x, row: state,
            position,
        )
        return Autoregressive(logits, spec, z.shape[:-1], steps)

    return Model(init, prior, posterior, likelihood, rows=max(1, LOGITS // (length * levels)))


def _seen(key: Array, x: Array, dropout: float) -> Array:
    """For tokens x [*draws, B, T] or [T], True where the decoder sees them; the draws share it."""
    # Cloned: a likelihood may be evaluated several times, and misses the same characters each time.
    seen = jax.random.bernoulli(jax.random.clone(key), 1 - dropout, x.shape[-2:])
    return jnp.broadcast_to(seen, x.shape)


def _check(options: TextOptions, spec: Spec) -> None:
    if spec.kind != "token" or len(spec.shape) != 1:
        raise ValueError(
            "The model text takes texts, tokens in a row; these are of kind "
            f"{spec.kind} and of the shape {spec.shape}."
        )
    if options.kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd; got {options.kernel_size}.")
    if options.decoder_dropout and options.text_decoder == POSITIONWISE:
        raise ValueError(
            f"decoder_dropout={options.decoder_dropout:g} hides characters from the decoder, and "
            f"text_decoder={POSITIONWISE} sees none."
        )
