"""Laws of grey and colour levels that have several numbers for each pixel.

Parameters are cast to at least float32 before anything is computed, as in `pixels.py`.
"""

import chex
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from elbo_lab.distributions.pixels import logistic_log_mass, logistic_mean
from elbo_lab.losses.arrays import to_common_float, to_common_rank


class LogisticMixture(dist.Distribution):
    """Independent pixels of 8-bit levels, each a mixture of discretized logistic laws (PixelCNN++,
    Salimans et al. 2017, sections 2.1 and 2.2).

    All C colours of a pixel share one component, and within it each colour depends linearly on the
    colours before it:

        P(x_1..x_C) = sum_m pi_m prod_c P(x_c; location_cm + sum_{j<c} a_cjm (x_j - 1/2), scale_cm)

    with P of a level as in `DiscretizedLogistic`. A value is v / 255, v = 0, ..., 255, so that
    x_j - 1/2 is half of the published code's x_j in [-1, 1], as the location is half of its
    location. `log_prob` is the logarithm of a mass, in nats.

    `mean` is in closed form for C = 1. With more colours the mean of a law that is clipped to the
    levels is not linear in x_j: asking for it raises NotImplementedError.

    Args:
      logits: log pi_m up to a constant, [*batch, P, M], P the number of pixels.
      location: [*batch, P, C, M], on the scale of the values.
      log_scale: [*batch, P, C, M].
      coefficients: a, [*batch, P, C (C - 1) / 2, M], in the order (2,1), (3,1), (3,2), (4,1), ...
    """

    arg_constraints = {
        "logits": constraints.independent(constraints.real, 2),
        "location": constraints.independent(constraints.real, 3),
        "log_scale": constraints.independent(constraints.real, 3),
        "coefficients": constraints.independent(constraints.real, 3),
    }
    support = constraints.independent(constraints.unit_interval, 1)

    def __init__(
        self,
        logits: Array,
        location: Array,
        log_scale: Array,
        coefficients: Array,
        *,
        validate_args: bool | None = None,
    ):
        *batch, pixels, colours, components = location.shape
        chex.assert_shape(logits, (*batch, pixels, components))
        chex.assert_equal_shape([location, log_scale])
        pairs = colours * (colours - 1) // 2
        chex.assert_shape(coefficients, (*batch, pixels, pairs, components))
        self.logits, self.location = logits, location
        self.log_scale, self.coefficients = log_scale, coefficients
        super().__init__(tuple(batch), (pixels * colours,), validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws [*sample_shape, *batch, P C]: a component for each pixel, then its colours in turn,
        each given the levels of those before it.
        """
        logits, location, log_scale, coefficients = self._parameters()
        colours, components = location.shape[-2:]
        component_key, noise_key = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape, logits.shape[-2])
        component = jax.random.categorical(component_key, logits, shape=shape)
        chosen = jax.nn.one_hot(component, components, dtype=location.dtype)[..., None, :]
        noise = jax.random.logistic(noise_key, (*shape, colours), location.dtype)
        parameters = to_common_rank(location, log_scale, coefficients, chosen)[:3]
        location, log_scale, coefficients = (
            jnp.sum(jnp.where(chosen > 0, parameter, 0), axis=-1) for parameter in parameters
        )
        x = []
        for c in range(colours):
            mean = location[..., c] + _shift(coefficients, x, c)
            value = mean + jnp.exp(log_scale[..., c]) * noise[..., c]
            x.append(jnp.round(255 * jnp.clip(value, 0, 1)) / 255)
        return jnp.stack(x, axis=-1).reshape(*shape[:-1], *self.event_shape)

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, P C], each v / 255: [*any, *batch]."""
        *parameters, value = to_common_float(*self._parameters(), value)
        pixels, colours = self.location.shape[-3:-1]
        value = value.reshape(*value.shape[:-1], pixels, colours, 1)
        *parameters, value = to_common_rank(parameters[0][..., None, :], *parameters[1:], value)
        logits, location, log_scale, coefficients = parameters
        x = [value[..., c, :] for c in range(colours)]
        log_mass = jax.nn.log_softmax(logits[..., 0, :], axis=-1)
        for c in range(colours):
            mean = location[..., c, :] + _shift(jnp.swapaxes(coefficients, -1, -2), x, c)
            log_mass = log_mass + logistic_log_mass(mean, log_scale[..., c, :], x[c])
        return jnp.sum(jax.nn.logsumexp(log_mass, axis=-1), axis=-1)

    @property
    def mean(self) -> Array:
        """E[v] / 255, [*batch, P], for one colour."""
        if self.location.shape[-2] > 1:
            raise NotImplementedError("A mixture over several colours has no mean in closed form.")
        logits, location, log_scale, _ = self._parameters()
        means = logistic_mean(location[..., 0, :], log_scale[..., 0, :])
        return jnp.sum(jax.nn.softmax(logits, axis=-1) * means, axis=-1)

    def _parameters(self) -> list[Array]:
        return to_common_float(self.logits, self.location, self.log_scale, self.coefficients)


def _shift(coefficients: Array, x: list[Array], c: int) -> Array | float:
    """sum_{j<c} a_cj (x_j - 1/2) for the colour with index c; the pairs (c, j) of `coefficients`
    are on its last axis.
    """
    first = c * (c - 1) // 2  # pairs of the colours before c
    return sum(coefficients[..., first + j] * (x[j] - 0.5) for j in range(c))


class LevelCategorical(dist.Distribution):
    """Independent values over the last axis, each with a mass for each of V levels.

    P(v) = softmax(logits)_v for v = 0, ..., V - 1. A value is v / (V - 1). `log_prob` is the
    logarithm of a mass, in nats.

    Args:
      logits: [*batch, D, V].
    """

    arg_constraints = {"logits": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.unit_interval, 1)

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        (logits,) = to_common_float(self.logits)
        level = jax.random.categorical(key, logits, shape=(*sample_shape, *logits.shape[:-1]))
        return level.astype(logits.dtype) / (logits.shape[-1] - 1)

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], each v / (V - 1): [*any, *batch]."""
        logits, value = to_common_float(self.logits, value)
        logits, value = to_common_rank(logits, value[..., None])
        levels = logits.shape[-1]
        level = jnp.round(value * (levels - 1)).astype(jnp.int32)
        # A comparison, whose derivative is elementwise; that of indexing is a scatter.
        level, all_levels = to_common_rank(level, jnp.arange(levels))
        chosen = jnp.sum(jnp.where(level == all_levels, logits, 0), axis=-1)
        return jnp.sum(chosen - jax.nn.logsumexp(logits, axis=-1), axis=-1)

    @property
    def mean(self) -> Array:
        """E[v] / (V - 1), [*batch, D]."""
        (logits,) = to_common_float(self.logits)
        levels = jnp.arange(logits.shape[-1], dtype=logits.dtype) / (logits.shape[-1] - 1)
        masses, levels = to_common_rank(jax.nn.softmax(logits, axis=-1), levels)
        return jnp.sum(masses * levels, axis=-1)
