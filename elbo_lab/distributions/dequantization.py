"""Levels as real numbers: v = level + u with noise u in (0, 1), and back by rounding down.

A density p(v) of real numbers gives each vector of levels the mass P(x) = integral over its unit
cube of p(v) dv, and for any q(u|x) on that cube

    log P(x) >= E_q[log p(x + u) - log q(u|x)]                 (Theis et al. 2016; Ho et al. 2019)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from elbo_lab.data.dataset import Spec
from elbo_lab.distributions.flows import Bijection
from elbo_lab.losses.posteriors import sampler_with_density

# Values are moved off 0 and 1 by this share of the range before the logit (Dinh et al. 2017,
# section 4.1), which is infinite there.
MARGIN = 0.05


class Dequantized(dist.Distribution):
    """The law of v = level + sigmoid(y), y from a distribution on the real numbers.

    v lies in [level, level + 1) in floating point too.

    Args:
      level: [*batch, D], whole numbers as floating-point ones; data, without a gradient.
      base_dist: of y, batch shape [*batch] and event [D]. Independent standard logistic variables
        are uniform noise.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(
        self, level: Array, base_dist: dist.Distribution, *, validate_args: bool | None = None
    ):
        self.level, self.base_dist = level, base_dist
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        return self.base_dist.has_rsample

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws v [*sample_shape, *batch, D]."""
        return self.sample_and_log_prob(key, sample_shape)[0]

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Draws v and their log densities, nats, [*sample_shape, *batch]."""
        form = self.base_form()
        y, log_prob = form.sample_and_log_prob(key, sample_shape)
        return form.forward(y), log_prob

    def log_prob(self, value: Array) -> Array:
        """Log density of v [*any, *batch, D], nats, [*any, *batch]; -inf outside of the cube."""
        u = value - self.level
        is_inside = jnp.all((u >= 0) & (u < 1), axis=-1)
        smallest = np.finfo(np.float32).tiny
        y = jax.scipy.special.logit(jnp.clip(u, smallest, 1 - np.finfo(np.float32).epsneg))
        return jnp.where(is_inside, self.base_form().log_prob(y), -jnp.inf)

    def base_form(self) -> "DequantizedDraws":
        """The law of y: v rounds off digits of u, so that log q is asked of y by the losses."""
        return DequantizedDraws(self)


class DequantizedDraws:
    """The law of y, v = level + sigmoid(y); its log densities are those of v.

    Args:
      law: v's distribution.
    """

    def __init__(self, law: Dequantized):
        self.law = law
        self.base_dist = law.base_dist

    @property
    def has_rsample(self) -> bool:
        """True if y has a derivative."""
        return self.law.has_rsample

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws y [*sample_shape, *batch, D]."""
        return self.base_dist.sample(key, sample_shape)

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Draws y and log q(v), with the total derivative."""
        sampler = sampler_with_density(self.base_dist)
        if sampler is None:
            y = self.sample(key, sample_shape)
            return y, self.log_prob(y)
        y, log_prob = sampler(key, sample_shape)
        return y, log_prob - _log_slope(y)

    def log_prob(self, y: Array) -> Array:
        """log q(v) at v = level + sigmoid(y), nats, [*any, *batch]."""
        return self.base_dist.log_prob(y) - _log_slope(y)

    def forward(self, y: Array) -> Array:
        """v."""
        level = self.law.level
        # For u near 1 the sum would be rounded up to the next level.
        last = jnp.nextafter(level + 1, level)
        return jnp.minimum(level + jax.nn.sigmoid(y), last)


class Rounding:
    """p(x|v): all mass at the levels that v rounds down to, as values in [0, 1].

    Args:
      v: [*batch, D].
      spec: of images with levels; x = level / (levels - 1).
    """

    def __init__(self, v: Array, spec: Spec):
        self.v, self.spec = v, spec

    @property
    def mean(self) -> Array:
        """The x of v, [*batch, D]; values beyond the range belong to its ends."""
        level = jnp.clip(jnp.floor(self.v), 0, self.spec.levels - 1)
        return level / (self.spec.levels - 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """`mean`, [*sample_shape, *batch, D]."""
        return jnp.broadcast_to(self.mean, (*sample_shape, *self.v.shape))

    def log_prob(self, x: Array) -> Array:
        """0 where v lies in the unit cube of x, else -inf; [*any, *batch]."""
        is_inside = jnp.all(jnp.floor(self.v) == levels_of(x, self.spec), axis=-1)
        return jnp.where(is_inside, 0.0, -jnp.inf)


def levels_of(x: Array, spec: Spec) -> Array:
    """The levels 0, ..., levels - 1 of values x in [0, 1], as floating-point numbers."""
    return jnp.round(x * (spec.levels - 1))


def uniform_noise(shape: tuple[int, ...]) -> dist.Distribution:
    """The law of y whose sigmoid is uniform, event [D] and batch shape [*batch] of `shape`."""
    return dist.Logistic(jnp.zeros(shape), jnp.ones(shape)).to_event(1)


def range_of_levels(levels: int) -> Bijection:
    """w on the real line -> v, levels [0, levels) being the middle 1 - 2 MARGIN of its range:
    v = levels (sigmoid(w) - MARGIN) / (1 - 2 MARGIN).
    """
    scale = levels / (1 - 2 * MARGIN)

    def forward(w: Array) -> tuple[Array, Array]:
        v = scale * (jax.nn.sigmoid(w) - MARGIN)
        return v, w.shape[-1] * np.log(scale) + _log_slope(w)

    def inverse(v: Array) -> tuple[Array, Array]:
        w = jax.scipy.special.logit(v / scale + MARGIN)
        return w, -w.shape[-1] * np.log(scale) - _log_slope(w)

    return Bijection(forward, inverse)


def _log_slope(y: Any) -> Array:
    """log |d sigmoid(y) / dy|, summed over the last axis."""
    return -jnp.sum(jax.nn.softplus(y) + jax.nn.softplus(-y), axis=-1)
