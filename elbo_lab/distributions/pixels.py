"""Laws of pixels that NumPyro lacks: a fast Bernoulli, and two laws of grey levels.

The laws here cast their parameters to at least float32 before they compute anything, so that
half-precision parameters cost no accuracy; derivatives have the parameters' own type. NumPyro,
Distrax and TFP compute a density in its parameters' type, which for bfloat16 costs whole nats per
image (docs/bounds.md has the numbers): cast the parameters of their distributions first.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.custom_derivatives import SymbolicZero
from numpyro.distributions import constraints

from elbo_lab.losses.arrays import to_common_float, to_common_rank


def bernoulli_log_prob(logits: Array, value: Array) -> Array:
    """sum_d log Bernoulli(value_d; sigmoid(logits_d)) over the last axis (textbook 13.16, 13.17).

    x l - max(l, 0) - log(1 + exp(-|l|)), for any finite logit. Two things make it fast. A few
    pixels share one logarithm, that of their product, which costs no accuracy beyond that of the
    sum over pixels (each factor lies in [1, 2]). And the derivative is defined as x - sigmoid(l)
    instead of being derived from the formula. Where every one of S rows of logits [S, 1, D] meets
    every one of B values [1, B, D], it is log p(0) + sum_d x_d l_d by one matrix product, which is
    rounded in proportion to sum_d |l_d|.

    Args:
      logits: [*batch, D]; half precision is cast to float32 first.
      value: [*batch, D], 0 or 1 (broadcastable against the logits).

    Returns:
      [*batch], nats, at least float32.
    """
    logits, value = to_common_rank(*to_common_float(logits, value))
    if _is_table(logits.shape, value.shape):
        highest = jax.lax.Precision.HIGHEST
        linear = jnp.einsum("sd,bd->sb", logits[:, 0], value[0], precision=highest)
        return linear + _bernoulli_log_prob(logits, jnp.zeros_like(logits))
    return _bernoulli_log_prob(logits, value)


def _is_table(logits: tuple[int, ...], value: tuple[int, ...]) -> bool:
    """True for the shapes [S, 1, D] of logits and [1, B, D] of values, S and B above 1."""
    if len(logits) != 3 or logits[2] != value[2]:
        return False
    return logits[0] > logits[1] == 1 and value[1] > value[0] == 1


@jax.custom_jvp
def _bernoulli_log_prob(logits: Array, value: Array) -> Array:
    size = max(logits.shape[-1], value.shape[-1])
    logits = jnp.broadcast_to(logits, (*logits.shape[:-1], size))
    group = max(g for g in range(1, 9) if size % g == 0)  # a product of 8 is at most 2^8
    factors = 1 + jnp.exp(-jnp.abs(logits))
    products = jnp.prod(factors.reshape(*logits.shape[:-1], group, size // group), axis=-2)
    linear = jnp.sum(value * logits - jnp.maximum(logits, 0), axis=-1)
    return linear - jnp.sum(jnp.log(products), axis=-1)


@functools.partial(_bernoulli_log_prob.defjvp, symbolic_zeros=True)
def _bernoulli_log_prob_jvp(primals, tangents):
    logits, value = primals
    logits_dot, value_dot = tangents
    out = _bernoulli_log_prob(logits, value)
    out_dot = jnp.zeros_like(out)
    # Nothing is computed for a constant argument; integer images have no derivative.
    if not isinstance(logits_dot, SymbolicZero):
        out_dot += jnp.sum((value - jax.nn.sigmoid(logits)) * logits_dot, axis=-1)
    if not isinstance(value_dot, SymbolicZero):
        out_dot += jnp.sum(logits * value_dot, axis=-1)
    return out, out_dot


# Binary variables whose values are listed together, 2^16 at most.
MOST_UNITS = 16


def binary_states(size: int) -> Array:
    """Every value of `size` binary variables, [2^size, size], float32, as binary numbers rise.

    Raises:
      ValueError: more than `MOST_UNITS` variables.
    """
    if size > MOST_UNITS:
        raise ValueError(
            f"{size} binary variables have 2^{size} values; those of at most {MOST_UNITS} are "
            "enumerated."
        )
    number, shift = np.arange(2**size)[:, None], np.arange(size)[::-1]
    return jnp.asarray((number >> shift) & 1, jnp.float32)


class BernoulliVector(dist.Distribution):
    """Independent Bernoulli variables over the last axis, by logits [*batch, D].

    The same distribution as NumPyro's `BernoulliLogits(logits).to_event(1)`, with
    `bernoulli_log_prob` as its log-probability.
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (*sample_shape, *self.logits.shape)
        mean = jnp.broadcast_to(self.mean, shape)
        return jax.random.bernoulli(key, mean).astype(self.logits.dtype)

    def log_prob(self, value: Array) -> Array:
        return bernoulli_log_prob(self.logits, value)

    def enumerate_support(self, expand: bool = True) -> Array:
        """Every value, [2^D, *batch, D]; with expand=False [2^D, 1, ..., 1, D].

        Raises:
          ValueError: more than `MOST_UNITS` dimensions.
        """
        size = self.logits.shape[-1]
        states = binary_states(size).astype(self.logits.dtype)
        states = states.reshape(-1, *(1,) * (self.logits.ndim - 1), size)
        return jnp.broadcast_to(states, (len(states), *self.logits.shape)) if expand else states

    @property
    def mean(self) -> Array:
        return jax.nn.sigmoid(*to_common_float(self.logits))

    @property
    def variance(self) -> Array:
        return self.mean * (1 - self.mean)


def logistic_log_mass(location: Array, log_scale: Array, value: Array) -> Array:
    """The log mass of a logistic law in the interval of each value's level, elementwise.

    log [F((v + 1/2) / 255) - F((v - 1/2) / 255)] with F(t) = sigmoid((t - location) / scale); the
    intervals of the levels 0 and 255 reach to -inf and inf.

    Args:
      location, log_scale: float32 or float64, broadcastable against the value.
      value: v / 255 for v = 0, ..., 255.

    Returns:
      nats, at most zero, in the broadcast shape.
    """
    level, inverse = jnp.round(255 * value), jnp.exp(-log_scale)
    lower = (level - 0.5) / 255 - location
    lower, upper = lower * inverse, (lower + 1 / 255) * inverse
    # With sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) nothing cancels.
    below, above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    inside = below + above + jnp.log(-jnp.expm1(-inverse / 255))
    return jnp.where(level <= 0, below, jnp.where(level >= 255, above, inside))


def logistic_mean(location: Array, log_scale: Array) -> Array:
    """The mean of a discretized logistic law, elementwise: E[v] / 255, v = 0, ..., 255.

    E[v] = sum_{i=0}^{254} P(v > i). Arguments of one type and rank.
    """

    def add(total: Array, i: Array) -> tuple[Array, None]:
        exceeds = jax.nn.sigmoid((location - (i + 0.5) / 255) * jnp.exp(-log_scale))
        return total + exceeds, None

    levels = jnp.arange(255, dtype=location.dtype)
    total, _ = jax.lax.scan(add, jnp.zeros_like(location), levels)
    return total / 255


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
        chex.assert_is_broadcastable(log_scale.shape, location.shape)
        self.location, self.log_scale = location, log_scale
        super().__init__(location.shape[:-1], location.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (*sample_shape, *self.location.shape)
        location, log_scale = to_common_float(self.location, self.log_scale)
        noise = jax.random.logistic(key, shape, location.dtype)
        location, log_scale, noise = to_common_rank(location, log_scale, noise)
        value = location + jnp.exp(log_scale) * noise
        return jnp.round(255 * jnp.clip(value, 0, 1)) / 255

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], each v / 255: [*any, *batch]."""
        location, log_scale, value = to_common_rank(
            *to_common_float(self.location, self.log_scale, value)
        )
        return jnp.sum(logistic_log_mass(location, log_scale, value), axis=-1)

    @property
    def mean(self) -> Array:
        """E[v] / 255 with E[v] = sum_{i=0}^{254} P(v > i)."""
        return logistic_mean(*to_common_rank(*to_common_float(self.location, self.log_scale)))


# Bernoulli numbers B_2n: log(sinh(l / 2) / (l / 2)) = sum_n B_2n l^2n / (2n (2n)!). The terms fall
# by (l / 2 pi)^2, so ten of them reach float64's last digits for |l| < 1.
_BERNOULLI_NUMBERS = (
    1 / 6,
    -1 / 30,
    1 / 42,
    -1 / 30,
    5 / 66,
    -691 / 2730,
    7 / 6,
    -3617 / 510,
    43867 / 798,
    -174611 / 330,
)


def _series(coefficients: list[float], x: Array) -> Array:
    """c_0 + c_1 x + c_2 x^2 + ... for |x| < 1, without the terms below rounding errors."""
    least = jnp.finfo(x.dtype).eps * abs(coefficients[0]) / 16
    total = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        if abs(coefficient) > least:
            total = total * x + coefficient
    return total


class ContinuousBernoulli(dist.Distribution):
    """Independent values in [0, 1] over the last axis, by logits [*batch, D]: the density
    p(x) = exp(l x) / int_0^1 exp(l t) dt, that is C(b) b^x (1 - b)^(1 - x) with b = sigmoid(l).

    Loaiza-Ganem and Cunningham 2019: the Bernoulli's formula is not a density on [0, 1]; the factor
    C(b) makes it one. `log_prob` is the logarithm of a density, in nats: it may be positive, and is
    not comparable with that of a Bernoulli or any other mass.
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.unit_interval, 1)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, by the inverse of the distribution function, log(1 + u (exp(l) - 1)) / l."""
        (logits,) = to_common_float(self.logits)
        u = jax.random.uniform(key, (*sample_shape, *logits.shape), logits.dtype)
        logits, u = to_common_rank(logits, u)
        small = jnp.abs(logits) < jnp.sqrt(jnp.finfo(logits.dtype).eps)
        # For -|l|, where exp does not overflow; mirrored for l > 0.
        size = jnp.where(small, 1, jnp.abs(logits))
        value = jnp.log1p(u * jnp.expm1(-size)) / -size
        value = jnp.where(logits > 0, 1 - value, value)
        near = jnp.where(small, logits, 0)
        return jnp.where(small, u + near * u * (1 - u) / 2, value)

    def log_prob(self, value: Array) -> Array:
        """The log density of values [*any, *batch, D]: [*any, *batch]."""
        logits, value = to_common_rank(*to_common_float(self.logits, value))
        size = jnp.abs(logits)
        small = size < 1
        # The normalizer is max(l, 0) + log((1 - exp(-|l|)) / |l|), and max(l, 0) cancels with l x.
        size = jnp.where(small, 1, size)
        far = jnp.where(logits > 0, value - 1, value) * logits
        far = far - jnp.log(-jnp.expm1(-size)) + jnp.log(size)
        # Near zero, where that is 0 / 0: l / 2 + log(sinh(l / 2) / (l / 2)).
        near = jnp.where(small, logits, 0)
        terms = [b / (2 * n * math.factorial(2 * n)) for n, b in enumerate(_BERNOULLI_NUMBERS, 1)]
        close = (value - 0.5) * near - near**2 * _series(terms, near**2)
        return jnp.sum(jnp.where(small, close, far), axis=-1)

    @property
    def mean(self) -> Array:
        """1 / (1 - exp(-l)) - 1 / l, the derivative of the normalizer's logarithm."""
        return continuous_bernoulli_mean(self.logits)


def continuous_bernoulli_mean(logits: Array) -> Array:
    """The mean of a continuous Bernoulli variable, elementwise: 1 / (1 - exp(-l)) - 1 / l."""
    (logits,) = to_common_float(logits)
    small = jnp.abs(logits) < 1
    near = jnp.where(small, logits, 0)
    terms = [b / math.factorial(2 * n) for n, b in enumerate(_BERNOULLI_NUMBERS, 1)]
    far = jnp.where(small, 1, logits)
    # 1 / (1 - exp(-l)) without overflow, since expm1's argument is never positive.
    upper = -1 / jnp.expm1(-jnp.abs(far))
    far = jnp.where(far > 0, upper, 1 - upper) - 1 / far
    return jnp.where(small, 0.5 + near * _series(terms, near**2), far)
