"""PixelVAE: p(x|z) = prod_d p(x_d | x_<d, z), autoregressive given z (Gulrajani et al. 2016).

  x -> convolutions of `conv` -> z;   z -> features of each pixel -> gates of masked convolutions.

What a pixel sees of the image is limited by the receptive field; what lies beyond it has to come
through z. With a short receptive field and an autoregressive-flow prior it is VLAE, the variational
lossy autoencoder (Chen et al. 2017): z keeps the global structure, and the decoder draws texture.

Binary images have a logit for each value, images of more levels one for each level.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions import Autoregressive
from elbo_lab.models import common, conditions, conv_latents, raster
from elbo_lab.models.base import Given, Model, Params
from elbo_lab.models.networks import Head, LatentConvDecoder, image_shape
from elbo_lab.models.networks.latent_pixels import LatentPixels
from elbo_lab.models.networks.masked import gradient_batch
from elbo_lab.options import option

# Rows (draws x examples) that the evaluation computes at once, of binary images: about 50 MB.
ROWS = 100
# The layers whose gates see z.
LATENT_GATES = ("all", "first")
# The value of a dropped pixel: the networks scale values to [-1, 1], so that it becomes 0.
_DROPPED = 0.5


@dataclasses.dataclass(frozen=True)
class PixelVAEOptions:
    """Settings of `--model=pixelvae`."""

    latent_dims: tuple[int, ...] = option((50,), "latent dimensions, one number", least=1)
    receptive_field: int = option(
        19,
        "R, odd: given z, a pixel depends on earlier pixels within the R x R window around it, "
        "(R - 1) / 2 rows up and as many columns to either side",
        least=3,
        most=199,
        odd=True,
    )
    decoder_dropout: float = option(
        0.0,
        "part of the pixels that the autoregressive decoder does not see, drawn anew in each step "
        "of training; in the evaluation it sees all",
        least=0,
        below=1,
    )
    layers: int = option(4, "gated layers of the decoder", least=1, most=100)
    width: int = common.gated_width_option()
    output_width: int = common.output_width_option()
    latent_features: int = option(16, "features of z at each pixel, which enter the gates", least=1)
    latent_gates: str = option(
        "all",
        "the layers of the decoder whose gates the features of z enter: all (skip connections from "
        "z, as in skip-VAE), or the first alone",
        LATENT_GATES,
    )
    channels: tuple[int, ...] = common.channels_option()
    residual_blocks: int = common.residual_blocks_option(0)
    norm: str = common.norm_option()
    activation: str = common.activation_option("tanh")
    scale: str = common.scale_option()
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
    condition: str = common.condition_option()


def make(options: PixelVAEOptions, spec: Spec) -> Model:
    """q(z|x) by strided convolutions, and p(x|z) by masked ones; the kind of q(z|x) and the prior
    are those of the settings (`conv_latents`).

    A model that is conditioned on labels is p(x|y, z), q(z|x, y) and p(z).

    Under a key in `Given`, that of a training step, the decoder does not see a part of the pixels.
    All draws of z for an example share the dropped pixels, so that a bound is one of the model that
    misses them. Pixels that are seen are not scaled up, since they are what the evaluation sees.

    Args:
      options: the family's settings.
      spec: of images (H, W) or (H, W, C) with levels.

    Raises:
      ValueError: data that are not images with levels, several latent layers, no channels, an even
        receptive field or one below 3, a width below the number of channels, a least KL where there
        is none (`posteriors.make`), a condition for data without labels, or a VampPrior with labels
        or of flows.
    """
    latents = conv_latents.make("pixelvae", options, spec)
    _check(options, spec)
    height, width, colours = image_shape(spec.shape)
    number = options.latent_features
    heads = (Head("features", size=height * width * number),)
    upwards = LatentConvDecoder(latents.settings, heads)
    pixels = LatentPixels(
        spec,
        options.width,
        options.layers,
        output_width=options.output_width,
        receptive_field=options.receptive_field,
        skip=options.latent_gates == "all",
    )

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        encoder_key, upwards_key, pixels_key = jax.random.split(key, 3)
        z, features = jnp.zeros(latents.input_size), jnp.zeros((1, height, width, number))
        decoder = {
            "latents": upwards.init(upwards_key, z)["params"],
            "pixels": pixels.init(pixels_key, batch.x[:1], features)["params"],
        }
        decoder["pixels"]["logits"]["bias"] = raster.marginal_logits(spec, batch.x, mean)
        return latents.init(key, encoder_key, batch) | {"decoder": decoder}

    def likelihood(params: Params, z: Array, given: Given) -> Autoregressive:
        inputs = conditions.beside(z, given, latents.classes)
        (features,) = upwards.apply({"params": params["decoder"]["latents"]}, inputs)
        features = features.reshape(*inputs.shape[:-1], height, width, number)

        def seen(x: Array) -> Array:
            if options.decoder_dropout and given.key is not None:
                return _with_dropped_pixels(given.key, x, options.decoder_dropout, colours)
            return x

        return raster.law_given_features(pixels, params["decoder"]["pixels"], features, spec, seen)

    rows = max(1, ROWS // (1 if spec.levels == 2 else spec.levels))
    return Model(
        init,
        latents.prior,
        latents.posterior,
        likelihood,
        rows=rows,
        classes=latents.classes,
        gradient_batch=gradient_batch(spec, options.width),
    )


def _check(options: PixelVAEOptions, spec: Spec) -> None:
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(
            "model=pixelvae needs images of levels (binary images or 256 grey levels); got "
            f"{common.shown(spec)}."
        )
    if options.receptive_field < 3 or options.receptive_field % 2 == 0:
        raise ValueError(
            "receptive_field must be an odd number of at least 3 (model=conv has a pixel depend on "
            f"z alone); got {options.receptive_field}."
        )
    if options.latent_gates == "first" and options.layers == 1:
        raise ValueError(
            "latent_gates=first needs layers of at least 2, since z enters every gate of a single "
            "layer; got layers=1."
        )
    raster.check_widths(options, spec)


def _with_dropped_pixels(key: Array, x: Array, rate: float, colours: int) -> Array:
    """Images whose pixels are mid-grey, which the networks see as 0, with the probability `rate`.

    All colours of a pixel are dropped together. Leading axes of draws share the dropped pixels.

    Args:
      key: one typed PRNG key, which may be used again for the same pixels.
      x: [*draws, B, D] or [D].
      rate: in (0, 1).
      colours: values of a pixel.
    """
    shape = (*x.shape[-2:-1], x.shape[-1] // colours)
    is_dropped = jax.random.bernoulli(jax.random.clone(key), rate, shape)
    return jnp.where(jnp.repeat(is_dropped, colours, axis=-1), _DROPPED, x)
