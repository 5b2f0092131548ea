"""p(x|z) over pixels: for each law a network of z, and what its outputs mean.

bernoulli             mass    binary pixels, by logits
discretized_logistic  mass    8-bit grey levels; location and scale of each pixel by the network
gaussian              density grey levels; means by the network, one learned scale for all pixels
continuous_bernoulli  density grey levels in [0, 1], by logits

Log-likelihoods of masses compare with each other on the same images. Those of densities do not
compare with masses: without added noise they have no bound on 8-bit images, which is why the
scale of the Gaussian has a floor, and is not learned for each pixel (a pixel that is always black
would go to that floor).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.distributions import (
    BernoulliVector,
    ContinuousBernoulli,
    DiscretizedLogistic,
    continuous_bernoulli_mean,
)
from elbo_lab.losses.arrays import to_common_float, to_common_rank
from elbo_lab.models.networks import BernoulliMLP, LocationScaleMLP

# The Gaussian's least standard deviation: one grey level.
LEAST_SCALE = 1 / 255
# The logistic law's least log-scale: -7 for pixels in [-1, 1] (the code of PixelCNN++, Salimans et
# al. 2017), here for pixels in [0, 1]. The level at its mean then has .97 of the mass.
LEAST_LOG_SCALE = -7.0 - math.log(2)


class Likelihood(NamedTuple):
    """One law of p(x|z)."""

    network: Callable[..., nn.Module]  # (data_dim, hidden_dims, activation) -> of z
    distribution: Callable[[Any], dist.Distribution]  # what the network returns -> p(x|z)
    head: str  # the name of the layer whose bias starts at the training mean
    bias: Callable[[Array], Array]  # the mean image [D] -> that bias
    density: bool  # whether log p(x|z) is that of a density
    binary: bool  # whether it is for binary images, or for grey levels


def _gaussian(outputs: tuple[Array, Array]) -> dist.Distribution:
    # NumPyro would compute in the outputs' precision.
    mean, log_scale = to_common_rank(*to_common_float(*outputs))
    return dist.Normal(mean, LEAST_SCALE + jnp.exp(log_scale)).to_event(1)


def _discretized_logistic(outputs: tuple[Array, Array]) -> dist.Distribution:
    location, log_scale = outputs
    return DiscretizedLogistic(location, jnp.maximum(log_scale, LEAST_LOG_SCALE))


def _bernoulli_logits(mean: Array) -> Array:
    # Clipped, since pixels that are never (or always) lit have infinite logits.
    return jax.scipy.special.logit(jnp.clip(mean, 0.001, 0.999))


def _continuous_bernoulli_logits(mean: Array) -> Array:
    """The logits with these means, by bisection; clipped, since black pixels have infinite ones."""
    target = jnp.clip(mean, 0.01, 0.99)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        above = continuous_bernoulli_mean(middle) > target
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    ends = jnp.full_like(target, -128), jnp.full_like(target, 128)
    low, high = jax.lax.fori_loop(0, 32, halve, ends)
    return (low + high) / 2


def _one_scale(data_dim: int, hidden_dims: tuple[int, ...], activation: str) -> nn.Module:
    # At first about the spread of a grey level over images.
    return LocationScaleMLP(data_dim, hidden_dims, activation, shared_scale=True, log_scale=-1.4)


def _scale_of_each(data_dim: int, hidden_dims: tuple[int, ...], activation: str) -> nn.Module:
    return LocationScaleMLP(data_dim, hidden_dims, activation, log_scale=-2.0)


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(
        BernoulliMLP, BernoulliVector, "logits", _bernoulli_logits, density=False, binary=True
    ),
    "gaussian": Likelihood(
        _one_scale, _gaussian, "location", lambda mean: mean, density=True, binary=False
    ),
    "discretized_logistic": Likelihood(
        _scale_of_each,
        _discretized_logistic,
        "location",
        lambda mean: mean,
        density=False,
        binary=False,
    ),
    "continuous_bernoulli": Likelihood(
        BernoulliMLP,
        ContinuousBernoulli,
        "logits",
        _continuous_bernoulli_logits,
        density=True,
        binary=False,
    ),
}
