"""Exact densities of pixels in raster order, p(x) = prod_d p(x_d | x_<d), by a causal network.

Binary images, images of 256 levels (each pixel and colour a categorical variable) and grids or rows
of tokens, such as the codes of a VQ-VAE.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions.autoregressive import Autoregressive, Steps
from elbo_lab.models import common, conditions
from elbo_lab.models.base import Density, Given, Params
from elbo_lab.models.networks.pixels import grid


def density(network: Any, spec: Spec, classes: int | None) -> Density:
    """The density of a network that gives the logits of each value given those before it.

    The bias of its last layer starts at the frequencies of the levels.

    Args:
      network: a Flax module with the methods of `networks.masked.GatedPixelCNN`.
      spec: checked by `check`.
      classes: C, the number of classes on which it is conditioned; None: on none.
    """

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        label = None if classes is None else jnp.zeros(classes)
        params = network.init(key, batch.x[:1], label)["params"]
        params["logits"]["bias"] = marginal_logits(spec, batch.x, mean)
        return params

    def distribution(params: Params, stats: tuple, given: Given) -> Autoregressive:
        label = None if classes is None else conditions.one_hot(given, classes)  # [*batch, C]
        apply = functools.partial(network.apply, {"params": params})
        steps = Steps(
            grid(spec.shape),
            functools.partial(apply, method="start"),
            functools.partial(apply, label=label, method="new_row"),
            functools.partial(apply, label=label, method="pixel"),
        )
        batch_shape = () if label is None else label.shape[:-1]
        return Autoregressive(functools.partial(apply, label=label), spec, batch_shape, steps)

    return Density(init, distribution, classes)


def density_given_context(network: Any, above: Any, spec: Spec) -> Density:
    """p(x|context) = prod_d p(x_d | x_<d, context), of codes given those of the levels above.

    Args:
      network: a Flax module with the methods of `networks.latent_pixels.FeaturePixels`.
      above: a Flax module, context [*batch, M] -> features of each pixel, [*batch, H, W, F].
      spec: checked by `check`, with a context.
    """

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        above_key, network_key = jax.random.split(key)
        features, variables = above.init_with_output(above_key, batch.context[:1])
        pixels = network.init(network_key, batch.x[:1], features)["params"]
        pixels["logits"]["bias"] = marginal_logits(spec, batch.x, mean)
        return {"context": variables["params"], "pixels": pixels}

    def distribution(params: Params, stats: tuple, given: Given) -> Autoregressive:
        if given is None or given.context is None:
            raise ValueError(
                "a model of codes given those above needs the context of each example."
            )
        features = above.apply({"params": params["context"]}, given.context)
        return law_given_features(network, params["pixels"], features, spec)

    return Density(init, distribution)


def law_given_features(
    network: Any,
    params: Params,
    features: Array,
    spec: Spec,
    seen: Callable[[Array], Array] = lambda x: x,
) -> Autoregressive:
    """prod_d p(x_d | x_<d, features), batch shape [*batch].

    Args:
      network: a Flax module with the methods of `networks.latent_pixels.FeaturePixels`.
      params: of the network.
      features: of each pixel, [*batch, H, W, F].
      spec: of x.
      seen: x -> what the network sees of it where it is computed for whole images.
    """
    apply = functools.partial(network.apply, {"params": params})

    def features_for(x: Array) -> Array:
        return jnp.broadcast_to(features, (*x.shape[:-1], *features.shape[-3:]))

    def logits(x: Array) -> Array:
        return apply(seen(x), features_for(x))

    def new_row(state: Any, x: Array, row: Array) -> Any:
        return apply(state, x, row, features_for(x), method="new_row")

    def pixel(state: Any, x: Array, row: Array, column: Array) -> tuple[Array, Any]:
        return apply(state, x, row, column, features_for(x), method="pixel")

    start = functools.partial(apply, method="start")
    steps = Steps(grid(spec.shape), start, new_row, pixel)
    return Autoregressive(logits, spec, features.shape[:-3], steps)


def check(family: str, options: Any, spec: Spec) -> None:
    """Raises a ValueError for data or sizes that a network of pixels does not take.

    Args:
      family: the model's name, for messages.
      options: the family's settings; has kernel_size, first_kernel_size, width and output_width.
      spec: of kind "image" or "token", with levels, of one to three axes.
    """
    if spec.kind not in ("image", "token") or spec.levels is None:
        raise ValueError(
            f"model={family} needs data of levels (binary images, 256 grey levels, tokens); got "
            f"{common.shown(spec)}."
        )
    if not 1 <= len(spec.shape) <= 3:
        raise ValueError(
            f"model={family} needs data of one to three axes, such as (28, 28) or (32, 32, 3); "
            f"these have the shape {spec.shape}."
        )
    for name in ("kernel_size", "first_kernel_size"):
        if getattr(options, name) % 2 == 0:
            raise ValueError(f"{name} must be odd; got {getattr(options, name)}.")
    check_widths(options, spec)


def check_widths(options: Any, spec: Spec) -> None:
    """Raises a ValueError for a width or an output_width that is less than the number of channels,
    each of which has features of its own.
    """
    channels = grid(spec.shape)[2]
    for name in ("width", "output_width"):
        if getattr(options, name) < channels:
            raise ValueError(
                f"{name} must be at least the number of channels, {channels}; "
                f"got {getattr(options, name)}."
            )


def marginal_logits(spec: Spec, x: Array, mean: Array | None) -> Array:
    """Output bias, [C] or [C levels]: logits of the frequencies of levels over all pixels of x.

    Args:
      spec: of data with levels; C is the number of channels.
      x: [*batch, D], the first rows of the training data.
      mean: [D], of all training data, for binary ones; None: that of x.
    """
    channels = grid(spec.shape)[2]
    if spec.levels == 2:
        mean = jnp.mean(x, axis=0) if mean is None else mean
        # Clipped, since a value that never (or always) occurs has infinite logits.
        mean = jnp.clip(jnp.mean(mean.reshape(-1, channels), axis=0), 0.001, 0.999)
        return jax.scipy.special.logit(mean)
    values = x.reshape(-1, channels)
    if spec.kind == "image":
        values = jnp.round(values * (spec.levels - 1)).astype(jnp.int32)
    # One is added to each count, since a value that the batch lacks would have the logit -inf.
    counts = jax.vmap(lambda v: jnp.bincount(v, length=spec.levels), 1)(values) + 1
    return jnp.log(counts / jnp.sum(counts, axis=1, keepdims=True)).reshape(-1)
