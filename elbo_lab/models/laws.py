"""p(x|z) over pixels: for each law, the outputs of a network of z and their meaning.

bernoulli             mass    binary pixels, by logits
discretized_logistic  mass    8-bit levels; location and scale of each value by the network
logistic_mixture      mass    8-bit levels; a mixture of those, whose colours depend on each other
categorical           mass    levels; one logit for each of them by the network
gaussian              density numbers; means by the network, one learned variance for all
gaussian_fixed        density numbers; means by the network, the variance a setting
gaussian_predicted    density numbers; mean and variance of each value by the network
continuous_bernoulli  density grey levels in [0, 1], by logits

Log-likelihoods of masses compare with each other on the same images. Log-likelihoods of densities
do not compare with those of masses: without added noise they are unbounded on 8-bit images. This is
why learned variances have a floor: at a pixel that is always black the mean becomes exact, and the
log density rises without limit as the variance falls. With sigma of at least one grey level, d, the
density times d is below 1 / sqrt(2 pi): log p(x|z) is at most D (log 255 - log(2 pi) / 2), 4.62
nats a pixel, as if a mass smaller than one lay in each level. A predicted variance reaches that
floor pixel by pixel, a shared one for all pixels only at once.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from elbo_lab.data.dataset import Spec
from elbo_lab.distributions import (
    BernoulliVector,
    ContinuousBernoulli,
    DiscretizedLogistic,
    LevelCategorical,
    LogisticMixture,
    continuous_bernoulli_mean,
)
from elbo_lab.losses.arrays import to_common_float, to_common_rank
from elbo_lab.models.networks import Head

# The Gaussian's least learned standard deviation: one grey level.
LEAST_SCALE = 1 / 255
# The logistic law's least log-scale: -7 for pixels in [-1, 1] (the code of PixelCNN++, Salimans et
# al. 2017), here for pixels in [0, 1]. The level at its mean then has .97 of the mass.
LEAST_LOG_SCALE = -7.0 - math.log(2)
# The mixture's greatest log-scale, far beyond that of a law that is uniform within the levels.
MOST_LOG_SCALE = 10.0
# The logarithm of the standard deviation, or of the logistic law's scale, at which learned scales
# start: about the spread of a grey level over images.
_START_LOG_STD, _START_LOG_SCALE = -1.4, -2.0


class Likelihood(NamedTuple):
    """One law of p(x|z), for data of one spec."""

    heads: tuple[Head, ...]  # the network's outputs, in the order of `distribution`'s arguments
    distribution: Callable[..., Any]  # the heads' outputs -> p(x|z)
    bias: Callable[[Array], Array]  # the mean image [D] -> the first head's bias, with that mean
    has_mean: bool = True  # False: p(x|z) has no mean in closed form
    numbers: int = 1  # numbers for each coordinate in the widest head

    def start_bias(self, decoder: dict[str, Any], mean: Array) -> None:
        """Sets the first head's bias in a decoder's parameters, for the mean image [D]."""
        decoder[self.heads[0].name]["bias"] = self.bias(mean)


class Kind(NamedTuple):
    """What is known of a law without settings and data, and its constructor."""

    make: Callable[[Any, Spec], Likelihood]  # (a family's settings, spec) -> the law
    density: bool  # True: p(x|z) is a density; False: it is a mass
    binary: bool = False  # True: for binary images; False: for grey levels
    real: bool = False  # True: for real numbers too


def make(options: Any, spec: Spec) -> Likelihood:
    """The law of p(x|z) that a model family's settings name.

    Args:
      options: reads likelihood, likelihood_variance and likelihood_components.
      spec: of the data.

    Raises:
      ValueError: the law needs levels, and the data have none.
    """
    return LIKELIHOODS[options.likelihood].make(options, spec)


def pixels_of(spec: Spec) -> tuple[int, int]:
    """Numbers of pixels and of colours; data that are no colour images have one colour."""
    colours = spec.shape[2] if spec.kind == "image" and len(spec.shape) == 3 else 1
    return spec.dim // colours, colours


def _bernoulli(options: Any, spec: Spec) -> Likelihood:
    return Likelihood((Head("logits"),), BernoulliVector, _bernoulli_logits)


def _gaussian(options: Any, spec: Spec) -> Likelihood:
    def distribution(mean: Array, log_scale: Array) -> dist.Distribution:
        # NumPyro computes in the precision of its arguments.
        mean, log_scale = to_common_rank(*to_common_float(mean, log_scale))
        return dist.Normal(mean, LEAST_SCALE + jnp.exp(log_scale)).to_event(1)

    heads = Head("location"), Head("log_scale", start=_START_LOG_STD, shared=True)
    return Likelihood(heads, distribution, _itself)


def _gaussian_fixed(options: Any, spec: Spec) -> Likelihood:
    scale = math.sqrt(options.likelihood_variance)

    def distribution(mean: Array) -> dist.Distribution:
        (mean,) = to_common_float(mean)
        return dist.Normal(mean, scale).to_event(1)

    return Likelihood((Head("location"),), distribution, _itself)


def _gaussian_predicted(options: Any, spec: Spec) -> Likelihood:
    def distribution(mean: Array, raw_scale: Array) -> dist.Distribution:
        mean, raw_scale = to_common_float(mean, raw_scale)
        # softplus grows linearly: no output of a network makes it infinite.
        return dist.Normal(mean, LEAST_SCALE + jax.nn.softplus(raw_scale)).to_event(1)

    # At first all pixels have the variance at which the shared one starts.
    start = math.log(math.expm1(math.exp(_START_LOG_STD)))
    heads = Head("location"), Head("raw_scale", start=start, zero_weights=True)
    return Likelihood(heads, distribution, _itself)


def _discretized_logistic(options: Any, spec: Spec) -> Likelihood:
    def distribution(location: Array, log_scale: Array) -> dist.Distribution:
        return DiscretizedLogistic(location, jnp.maximum(log_scale, LEAST_LOG_SCALE))

    # Zero weights: at first all pixels have one scale.
    heads = Head("location"), Head("log_scale", start=_START_LOG_SCALE, zero_weights=True)
    return Likelihood(heads, distribution, _itself)


def _logistic_mixture(options: Any, spec: Spec) -> Likelihood:
    (pixels, colours), components = pixels_of(spec), options.likelihood_components
    pairs = colours * (colours - 1) // 2

    def distribution(
        location: Array, log_scale: Array, logits: Array, *coefficients: Array
    ) -> LogisticMixture:
        batch = location.shape[:-1]

        def shaped(output: Array, *shape: int) -> Array:
            return output.reshape(*batch, pixels, *shape, components)

        dependence = jnp.zeros((*batch, pixels, 0, components), location.dtype)
        if coefficients:
            dependence = jnp.tanh(shaped(coefficients[0], pairs))
        log_scale = jnp.clip(shaped(log_scale, colours), LEAST_LOG_SCALE, MOST_LOG_SCALE)
        return LogisticMixture(shaped(logits), shaped(location, colours), log_scale, dependence)

    def bias(mean: Array) -> Array:
        # All components start at the mean; the weights of their locations tell them apart.
        return jnp.repeat(mean, components)

    size = spec.dim * components
    heads = [
        Head("location", size=size),
        Head("log_scale", start=_START_LOG_SCALE, zero_weights=True, size=size),
        Head("logits", zero_weights=True, size=pixels * components),
    ]
    if pairs:  # At first the colours are independent within a component.
        heads.append(Head("coefficients", zero_weights=True, size=pixels * pairs * components))
    return Likelihood(tuple(heads), distribution, bias, has_mean=colours == 1, numbers=components)


def _categorical(options: Any, spec: Spec) -> Likelihood:
    levels = spec.levels
    if levels is None:
        raise ValueError("likelihood=categorical needs data of levels, such as 8-bit images.")

    def distribution(logits: Array) -> LevelCategorical:
        return LevelCategorical(logits.reshape(*logits.shape[:-1], spec.dim, levels))

    def bias(mean: Array) -> Array:
        """The logits of the greatest entropy with this mean, linear in the level."""
        values = jnp.arange(levels, dtype=mean.dtype) / (levels - 1)

        def mean_of(slope: Array) -> Array:
            return LevelCategorical(slope[:, None] * values[None, :]).mean

        slope = _solved(mean_of, mean, 0.01, 256.0)
        return (slope[:, None] * values[None, :]).reshape(-1)

    heads = (Head("logits", size=spec.dim * levels),)
    return Likelihood(heads, distribution, bias, numbers=levels)


def _continuous_bernoulli(options: Any, spec: Spec) -> Likelihood:
    return Likelihood((Head("logits"),), ContinuousBernoulli, _continuous_bernoulli_logits)


def _itself(mean: Array) -> Array:
    return mean


def _bernoulli_logits(mean: Array) -> Array:
    # Clipped, since pixels that are never (or always) lit have infinite logits.
    return jax.scipy.special.logit(jnp.clip(mean, 0.001, 0.999))


def _continuous_bernoulli_logits(mean: Array) -> Array:
    """The logits of a continuous Bernoulli with this mean."""
    return _solved(continuous_bernoulli_mean, mean, 0.01, 128.0)


def _solved(mean_of: Callable[[Array], Array], mean: Array, margin: float, end: float) -> Array:
    """The parameters l in [-end, end] of means `mean_of(l)`, elementwise, by bisection.

    Args:
      mean_of: rises with its argument.
      mean: [D]; clipped to [margin, 1 - margin], since black pixels have infinite parameters.
      margin: in (0, 1/2).
      end: whose means lie beyond the margins.
    """
    target = jnp.clip(mean, margin, 1 - margin)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        above = mean_of(middle) > target
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    ends = jnp.full_like(target, -end), jnp.full_like(target, end)
    low, high = jax.lax.fori_loop(0, 32, halve, ends)
    return (low + high) / 2


LIKELIHOODS: dict[str, Kind] = {
    "bernoulli": Kind(_bernoulli, density=False, binary=True),
    "gaussian": Kind(_gaussian, density=True, real=True),
    "gaussian_fixed": Kind(_gaussian_fixed, density=True, real=True),
    "gaussian_predicted": Kind(_gaussian_predicted, density=True, real=True),
    "discretized_logistic": Kind(_discretized_logistic, density=False),
    "logistic_mixture": Kind(_logistic_mixture, density=False),
    "categorical": Kind(_categorical, density=False),
    "continuous_bernoulli": Kind(_continuous_bernoulli, density=True),
}
