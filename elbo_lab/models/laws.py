"""p(x|z) over pixels: for each law, the outputs of a network of z and their meaning.

bernoulli             mass    binary pixels, by logits
discretized_logistic  mass    8-bit grey levels; location and scale of each pixel by the network
gaussian              density grey levels; means by the network, one learned scale for all pixels
continuous_bernoulli  density grey levels in [0, 1], by logits

Log-likelihoods of masses compare with each other on the same images. Log-likelihoods of densities
do not compare with those of masses: without added noise they are unbounded on 8-bit images. This is
why the Gaussian's scale has a floor and is not learned for each pixel: the scale of a pixel that is
always black would go to that floor.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
from elbo_lab.models.networks import Head

# The Gaussian's least standard deviation: one grey level.
LEAST_SCALE = 1 / 255
# The logistic law's least log-scale: -7 for pixels in [-1, 1] (the code of PixelCNN++, Salimans et
# al. 2017), here for pixels in [0, 1]. The level at its mean then has .97 of the mass.
LEAST_LOG_SCALE = -7.0 - math.log(2)


class Likelihood(NamedTuple):
    """One law of p(x|z)."""

    heads: tuple[Head, ...]  # the network's outputs, in the order of `distribution`'s arguments
    distribution: Callable[..., Any]  # the heads' outputs -> p(x|z)
    bias: Callable[[Array], Array]  # the mean image [D] -> the first head's bias, with that mean
    density: bool  # True: p(x|z) is a density; False: it is a mass
    binary: bool  # True: for binary images; False: for grey levels

    def start_bias(self, decoder: dict[str, Any], mean: Array) -> None:
        """Sets the first head's bias in a decoder's parameters, for the mean image [D]."""
        decoder[self.heads[0].name]["bias"] = self.bias(mean)


def _gaussian(mean: Array, log_scale: Array) -> dist.Distribution:
    # NumPyro computes in the precision of its arguments.
    mean, log_scale = to_common_rank(*to_common_float(mean, log_scale))
    return dist.Normal(mean, LEAST_SCALE + jnp.exp(log_scale)).to_event(1)


def _discretized_logistic(location: Array, log_scale: Array) -> dist.Distribution:
    return DiscretizedLogistic(location, jnp.maximum(log_scale, LEAST_LOG_SCALE))


def _itself(mean: Array) -> Array:
    return mean


def _bernoulli_logits(mean: Array) -> Array:
    # Clipped, since pixels that are never (or always) lit have infinite logits.
    return jax.scipy.special.logit(jnp.clip(mean, 0.001, 0.999))


def _continuous_bernoulli_logits(mean: Array) -> Array:
    """The logits of a continuous Bernoulli with this mean, by bisection."""
    # Clipped, since black pixels have infinite logits.
    target = jnp.clip(mean, 0.01, 0.99)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        above = continuous_bernoulli_mean(middle) > target
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    ends = jnp.full_like(target, -128), jnp.full_like(target, 128)
    low, high = jax.lax.fori_loop(0, 32, halve, ends)
    return (low + high) / 2


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(
        heads=(Head("logits"),),
        distribution=BernoulliVector,
        bias=_bernoulli_logits,
        density=False,
        binary=True,
    ),
    "gaussian": Likelihood(
        # The scale starts at about the spread of a grey level over images.
        heads=(Head("location"), Head("log_scale", start=-1.4, shared=True)),
        distribution=_gaussian,
        bias=_itself,
        density=True,
        binary=False,
    ),
    "discretized_logistic": Likelihood(
        # Zero weights: at first all pixels have one scale.
        heads=(Head("location"), Head("log_scale", start=-2.0, zero_weights=True)),
        distribution=_discretized_logistic,
        bias=_itself,
        density=False,
        binary=False,
    ),
    "continuous_bernoulli": Likelihood(
        heads=(Head("logits"),),
        distribution=ContinuousBernoulli,
        bias=_continuous_bernoulli_logits,
        density=True,
        binary=False,
    ),
}
