"""Gated PixelCNN, an exact p(x) = prod_d p(x_d | x_<d) (van den Oord et al. 2016b).

Binary images, images of 256 levels (each pixel and colour a categorical variable) and grids or rows
of tokens, such as the codes of a VQ-VAE.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.data.dataset import Batch, Spec
from elbo_lab.distributions.autoregressive import Autoregressive
from elbo_lab.models import common, conditions
from elbo_lab.models.base import Density, Given, Params
from elbo_lab.models.networks.masked import GatedPixelCNN, grid
from elbo_lab.options import option, values_of


@dataclasses.dataclass(frozen=True)
class PixelCNNOptions:
    """Settings of `--model=pixelcnn`."""

    width: int = option(16, "features of the vertical and of the horizontal stack", least=1)
    layers: int = option(7, "gated layers", least=1, most=100)
    kernel_size: int = option(3, "of the layers after the first, odd", least=3, most=99)
    first_kernel_size: int = option(7, "of the first layer, odd", least=3, most=99)
    output_width: int = option(32, "features between the two 1 x 1 output layers", least=1)
    embedding_dim: int = option(16, "of the embedding of a token", least=1)
    condition: str = common.condition_option()


def make(options: PixelCNNOptions, spec: Spec) -> Density:
    """An exact density of images with levels, or of tokens; p(x|y) if it is conditioned on labels.

    Args:
      options: the family's settings.
      spec: of kind "image" or "token", with levels, of one to three axes.

    Raises:
      ValueError: the data have no levels or too many axes, a kernel size is even, a width is below
        the number of channels, or the model is conditioned on labels that the data lack.
    """
    _check(options, spec)
    classes = conditions.num_classes(options, spec)
    sizes = values_of(options)
    del sizes["condition"]
    network = GatedPixelCNN(spec, **sizes)

    def init(key: Array, batch: Batch, mean: Array | None = None) -> Params:
        label = None if classes is None else jnp.zeros(classes)
        params = network.init(key, batch.x[:1], label)["params"]
        params["logits"]["bias"] = marginal_logits(spec, batch.x, mean)
        return params

    def distribution(params: Params, stats: tuple, given: Given) -> Autoregressive:
        label = None if classes is None else conditions.one_hot(given, classes)  # [*batch, C]

        def apply(x: Array, *above: list[Array | None], method: str) -> Array:
            return network.apply({"params": params}, x, *above, label=label, method=method)

        def row_logits(x: Array, i: Array | int):
            def row_of(features: Array) -> Array:
                return jax.lax.dynamic_slice_in_dim(features, i, 1, axis=1)

            above = jax.tree.map(row_of, apply(x, method="above"))
            return lambda row: apply(row, above, method="row")

        return Autoregressive(
            functools.partial(apply, method="__call__"),
            spec,
            batch_shape=() if label is None else label.shape[:-1],
            row_logits=row_logits,
            num_rows=grid(spec.shape)[0],
        )

    return Density(init, distribution, classes)


def _check(options: PixelCNNOptions, spec: Spec) -> None:
    if spec.kind not in ("image", "token") or spec.levels is None:
        raise ValueError(
            f"model=pixelcnn needs data of levels (binary images, 256 grey levels, tokens); these "
            f"are of kind {spec.kind!r} with levels={spec.levels}."
        )
    if not 1 <= len(spec.shape) <= 3:
        raise ValueError(
            f"model=pixelcnn needs data of one to three axes, such as (28, 28) or (32, 32, 3); "
            f"these have the shape {spec.shape}."
        )
    for name in ("kernel_size", "first_kernel_size"):
        if getattr(options, name) % 2 == 0:
            raise ValueError(f"{name} must be odd; got {getattr(options, name)}.")
    channels = grid(spec.shape)[2]
    for name in ("width", "output_width"):
        if getattr(options, name) < channels:
            raise ValueError(
                f"{name} must be at least the number of channels, {channels}; "
                f"got {getattr(options, name)}."
            )


def marginal_logits(spec: Spec, x: Array, mean: Array | None) -> Array:
    """Output bias, [C] or [C levels]: logits of the frequencies of levels over all pixels of x."""
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
