"""What NumPyro's distributions lack: hierarchies, a fast Bernoulli over pixels, and two laws of
grey levels.

A distribution, anywhere in this project, is an object with `sample(key, sample_shape)` and
`log_prob(z)`; NumPyro's are the rule. Batch dimensions of a draw trail its sample dimensions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.custom_derivatives import SymbolicZero
from numpyro.distributions import constraints

from elbo_lab.losses.posteriors import Layered, sample_from


class Distribution(Protocol):
    """What `elbo_lab.losses` asks of a posterior; of a prior it asks `log_prob` alone."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws [*sample_shape, *batch, ...]."""

    def log_prob(self, value: Any) -> Array:
        """Log density of values [*any, *batch, ...], nats, [*any, *batch]."""


@jax.custom_jvp
def bernoulli_log_prob(logits: Array, value: Array) -> Array:
    """sum_d log Bernoulli(value_d; sigmoid(logits_d)) over the last axis (textbook 13.16, 13.17).

    x l - max(l, 0) - log(1 + exp(-|l|)), for any finite logit. Two things make it fast: the
    logarithms of a few pixels are taken as one, of their product, which costs no accuracy beyond
    that of the sum over pixels (each factor lies in [1, 2]); and its derivative is given, as
    x - sigmoid(l), instead of being derived from the formula.

    Args:
      logits: [*batch, D].
      value: [*batch, D], 0 or 1 (broadcastable against the logits).

    Returns:
      [*batch], nats.
    """
    size = max(logits.shape[-1], value.shape[-1])
    logits = jnp.broadcast_to(logits, (*logits.shape[:-1], size))
    group = max(g for g in range(1, 9) if size % g == 0)  # a product of 8 is at most 2^8
    factors = 1 + jnp.exp(-jnp.abs(logits))
    products = jnp.prod(factors.reshape(*logits.shape[:-1], group, size // group), axis=-2)
    linear = jnp.sum(value * logits - jnp.maximum(logits, 0), axis=-1)
    return linear - jnp.sum(jnp.log(products), axis=-1)


@functools.partial(bernoulli_log_prob.defjvp, symbolic_zeros=True)
def _bernoulli_log_prob_jvp(primals, tangents):
    logits, value = primals
    logits_dot, value_dot = tangents
    out = bernoulli_log_prob(logits, value)
    out_dot = jnp.zeros_like(out)
    # Symbolic zeros: nothing is computed for a constant, and integer images have no derivative.
    if not isinstance(logits_dot, SymbolicZero):
        out_dot += jnp.sum((value - jax.nn.sigmoid(logits)) * logits_dot, axis=-1)
    if not isinstance(value_dot, SymbolicZero):
        out_dot += jnp.sum(logits * value_dot, axis=-1)
    return out, out_dot


class BernoulliVector(dist.Distribution):
    """Independent Bernoulli variables over the last axis, by logits [*batch, D].

    The same distribution as NumPyro's `BernoulliLogits(logits).to_event(1)`, with
    `bernoulli_log_prob` as its log-probability.
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (*sample_shape, *self.logits.shape)
        return jax.random.bernoulli(key, self.mean, shape).astype(self.logits.dtype)

    def log_prob(self, value: Array) -> Array:
        return bernoulli_log_prob(self.logits, value)

    @property
    def mean(self) -> Array:
        return jax.nn.sigmoid(self.logits)

    @property
    def variance(self) -> Array:
        return self.mean * (1 - self.mean)


class DiscretizedLogistic(dist.Distribution):
    """Independent grey levels over the last axis: a logistic law's mass in each level's interval.

    P(v) = F((v + 1/2) / 255) - F((v - 1/2) / 255) with F(t) = sigmoid((t - mean) / scale), for
    v = 0, ..., 255; the first and the last interval reach to -inf and inf (Kingma et al. 2016;
    Salimans et al. 2017, equation 2). A value is v / 255. `log_prob` is the logarithm of a mass, in
    nats: at most zero, and comparable with that of any other model of 8-bit images.

    Args:
      location: [*batch, D], on the scale of the values.
      log_scale: [*batch, D] or broadcastable to it.
    """

    arg_constraints = {"location": constraints.real_vector, "log_scale": constraints.real_vector}
    support = constraints.independent(constraints.unit_interval, 1)

    def __init__(self, location: Array, log_scale: Array, *, validate_args: bool | None = None):
        self.location, self.log_scale = location, log_scale
        super().__init__(location.shape[:-1], location.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (*sample_shape, *self.location.shape)
        noise = jax.random.logistic(key, shape, self.location.dtype)
        value = self.location + jnp.exp(self.log_scale) * noise
        return jnp.round(255 * jnp.clip(value, 0, 1)) / 255

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], each v / 255: [*any, *batch]."""
        level, inverse = jnp.round(255 * value), jnp.exp(-self.log_scale)
        lower = (level - 0.5) / 255 - self.location
        lower, upper = lower * inverse, (lower + 1 / 255) * inverse
        # With sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) nothing cancels.
        below, above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
        inside = below + above + jnp.log(-jnp.expm1(-inverse / 255))
        log_mass = jnp.where(level <= 0, below, jnp.where(level >= 255, above, inside))
        return jnp.sum(log_mass, axis=-1)

    @property
    def mean(self) -> Array:
        """E[v] / 255 with E[v] = sum_{i=0}^{254} P(v > i)."""

        def add(total: Array, i: Array) -> tuple[Array, None]:
            exceeds = jax.nn.sigmoid((self.location - (i + 0.5) / 255) * jnp.exp(-self.log_scale))
            return total + exceeds, None

        total, _ = jax.lax.scan(add, jnp.zeros_like(self.location), jnp.arange(255.0))
        return total / 255


def _log_normalizer(logits: Array) -> Array:
    """log of int_0^1 exp(l t) dt = log((exp(l) - 1) / l), elementwise."""
    # = l / 2 + log(sinh(l / 2) / (l / 2)); the series of the latter near zero, where it is 0 / 0.
    size = jnp.abs(logits)
    small = size < 0.5
    squared = (jnp.where(small, logits, 0.0) / 2) ** 2
    series = squared / 6 - squared**2 / 180 + squared**3 / 2835
    size = jnp.where(small, 1.0, size)
    far = size / 2 + jnp.log(-jnp.expm1(-size)) - jnp.log(size)
    return logits / 2 + jnp.where(small, series, far)


class ContinuousBernoulli(dist.Distribution):
    """Independent values in [0, 1] over the last axis, by logits [*batch, D]: the density
    p(x) = exp(l x) / int_0^1 exp(l t) dt, that is C(b) b^x (1 - b)^(1 - x) with b = sigmoid(l).

    Loaiza-Ganem and Cunningham 2019: the Bernoulli's formula is no density on [0, 1]; C(b) makes it
    one. `log_prob` is a density's, in nats: it may be positive, and does not
    compare with that of a Bernoulli or of any other mass.
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.unit_interval, 1)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """By the inverse of the distribution function, log(1 + u (exp(l) - 1)) / l."""
        shape = (*sample_shape, *self.logits.shape)
        u = jax.random.uniform(key, shape, self.logits.dtype)
        # For -|l|, where exp does not overflow; mirrored for l > 0.
        size = jnp.maximum(jnp.abs(self.logits), 1e-3)
        value = jnp.log1p(u * jnp.expm1(-size)) / -size
        value = jnp.where(jnp.abs(self.logits) < 1e-3, u, value)
        return jnp.where(self.logits > 0, 1 - value, value)

    def log_prob(self, value: Array) -> Array:
        """The log density of values [*any, *batch, D]: [*any, *batch]."""
        return jnp.sum(value * self.logits - _log_normalizer(self.logits), axis=-1)

    @property
    def mean(self) -> Array:
        """1 / (1 - exp(-l)) - 1 / l, the derivative of the normalizer's logarithm."""
        return continuous_bernoulli_mean(self.logits)


def continuous_bernoulli_mean(logits: Array) -> Array:
    """The mean of a continuous Bernoulli variable, elementwise: 1 / (1 - exp(-l)) - 1 / l."""
    small = jnp.abs(logits) < 0.5
    near = jnp.where(small, logits, 0.0)
    series = 0.5 + near / 12 - near**3 / 720 + near**5 / 30240
    far = jnp.where(small, 1.0, logits)
    # 1 / (1 - exp(-l)) without overflow, since sigmoid's and expm1's arguments are never positive.
    upper = -1 / jnp.expm1(-jnp.abs(far))
    return jnp.where(small, series, jnp.where(far > 0, upper, 1 - upper) - 1 / far)


class Chain(Layered):
    """A hierarchy of stochastic layers: z = (z_1, ..., z_n), a tuple ordered from the data up.

    log p(z) = log first(z_first) + sum_i log conditionals_i(z_{i-1})(z_i).

    Upwards (an inference network), z_1 ~ first and z_i ~ conditionals[i-2](z_{i-1}). Downwards
    (a prior), z_n ~ first and z_{i-1} is drawn given z_i; the tuple keeps its order.

    Args:
      first: distribution of the first layer drawn, batch shape [*batch] or ().
      conditionals: functions from one layer's value [*any, L_i] to the next one's distribution,
        batch shape [*any], in the order of drawing.
      downwards: whether the first layer drawn is z_n (a prior) rather than z_1.
    """

    def __init__(
        self,
        first: Distribution,
        conditionals: Sequence[Callable[[Array], Distribution]],
        downwards: bool = False,
    ):
        self.first = first
        self.conditionals = tuple(conditionals)
        self.downwards = downwards

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, ...]:
        """Draws: a tuple of [*sample_shape, *batch, L_i], ordered from the data up."""
        keys = jax.random.split(key, len(self.conditionals) + 1)
        z = [sample_from(self.first, keys[0], sample_shape)]
        for layer_key, conditional in zip(keys[1:], self.conditionals, strict=True):
            z.append(sample_from(conditional(z[-1]), layer_key, ()))
        return tuple(reversed(z)) if self.downwards else tuple(z)

    def log_prob(self, value: tuple[Array, ...]) -> Array:
        """Log density of a tuple of values, nats, [*any, *batch]."""
        drawn = tuple(reversed(value)) if self.downwards else tuple(value)
        layers = self._layers(drawn)
        return sum(layer.log_prob(z) for layer, z in zip(layers, drawn, strict=True))

    def layers(self, value: tuple[Array, ...]) -> tuple[Distribution, ...]:
        """Each layer's distribution given the layer before it in `value`, from the data up."""
        if self.downwards:
            return tuple(reversed(self._layers(tuple(reversed(value)))))
        return self._layers(value)

    def _layers(self, drawn: tuple[Array, ...]) -> tuple[Distribution, ...]:
        given = (
            conditional(z) for conditional, z in zip(self.conditionals, drawn[:-1], strict=True)
        )
        return (self.first, *given)
