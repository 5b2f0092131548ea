"""Discrete variables whose joint law is a product of conditionals, p(x) = prod_d p(x_d | x_<d)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from elbo_lab.data.dataset import Spec
from elbo_lab.distributions.pixels import bernoulli_log_prob
from elbo_lab.losses.arrays import to_common_float

# x [*any, *batch, D] -> the logits of each value given those before it, [*any, *batch, D, levels],
# or [*any, *batch, D] where there are two levels.
Logits = Callable[[Array], Array]


class Steps(NamedTuple):
    """The logits of whole vectors, computed pixel by pixel in raster order.

    Between pixels a state, any pytree of arrays, keeps what later pixels need, so that sampling
    costs about as many operations as the logits of the whole vector.
    """

    shape: tuple[int, int, int]  # rows, columns, and values of a pixel
    start: Callable[[Array], Any]
    """x [*any, *batch, D], whose values do not matter -> the state before the first row."""

    new_row: Callable[[Any, Array, Array], Any]
    """(state, x, row) -> the state before the row's first pixel; x is known above that row."""

    pixel: Callable[[Any, Array, Array, Array], tuple[Array, Any]]
    """(state, x, row, column) -> the logits of the pixel's values, [*any, *batch, values] or
    [*any, *batch, values, levels], and the state before the next pixel. Logits are those of a value
    given the values before it; the state is right if all but the last value are known."""


class Draws(NamedTuple):
    """Vectors whose first rows are drawn."""

    x: Array  # [*sample_shape, *batch, D]; zeros in the rows that are not drawn
    state: Any  # of `Steps`


def without_state(logits: Logits, dim: int) -> Steps:
    """The steps that compute the logits of whole vectors for each of the D values."""

    def pixel(state: tuple, x: Array, row: Array, column: Array) -> tuple[Array, tuple]:
        return jax.lax.dynamic_slice_in_dim(logits(x), column, 1, axis=x.ndim - 1), state

    return Steps((1, dim, 1), lambda x: (), lambda state, x, row: state, pixel)


class Autoregressive(dist.Distribution):
    """A discrete vector, each value drawn given the values before it.

    log p(x) = sum_d log p(x_d | x_1, ..., x_{d-1}), the logarithm of a mass: at most zero.

    There is no mean in closed form: asking for it raises NotImplementedError.

    Args:
      logits: a causal function of whole vectors; the logits at d depend on x_1, ..., x_{d-1}.
      spec: kind, levels and D of the values. Values of kind "image" are v / (levels - 1), values of
        kind "token" are v, for v = 0, ..., levels - 1.
      batch_shape: batch shape of the condition, if `logits` has one.
      steps: the same logits pixel by pixel, for sampling; None: sampling calls `logits` D times.
    """

    arg_constraints = {}

    def __init__(
        self,
        logits: Logits,
        spec: Spec,
        batch_shape: tuple[int, ...] = (),
        steps: Steps | None = None,
        *,
        validate_args: bool | None = None,
    ):
        self.logits, self.spec = logits, spec
        self.steps = without_state(logits, spec.dim) if steps is None else steps
        super().__init__(batch_shape, (spec.dim,), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        if self.spec.kind == "token":
            return constraints.independent(constraints.integer_interval(0, self.spec.levels - 1), 1)
        values = constraints.boolean if self.spec.levels == 2 else constraints.unit_interval
        return constraints.independent(values, 1)

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], nats, [*any, *batch]."""
        if self.spec.levels > 2:
            return jnp.sum(self.log_conditionals(value), axis=-1)
        value = self._broadcast(value)
        return bernoulli_log_prob(self.logits(value), self._level(value))

    def log_conditionals(self, value: Array) -> Array:
        """log p(x_d | x_<d) of each of the values [*any, *batch, D], nats, in that shape.

        Those of the first d values do not depend on the values after them.
        """
        value = self._broadcast(value)
        logits, levels = self.logits(value), self._level(value)
        if self.spec.levels == 2:
            # The sum over a single value is the log mass of that value.
            return bernoulli_log_prob(logits[..., None], levels[..., None])
        (logits,) = to_common_float(logits)
        chosen = jnp.take_along_axis(logits, levels[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    def _broadcast(self, value: Array) -> Array:
        shape = jnp.broadcast_shapes(value.shape, (*self.batch_shape, self.spec.dim))
        return jnp.broadcast_to(value, shape)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws [*sample_shape, *batch, D], by a loop over rows and one over their pixels."""
        return self.sample_rows(key, self.blank(sample_shape), 0, self.num_rows).x

    @property
    def num_rows(self) -> int:
        """Number of rows of pixels."""
        return self.steps.shape[0]

    def blank(self, sample_shape: tuple[int, ...] = ()) -> Draws:
        """Vectors [*sample_shape, *batch, D] of which nothing is drawn."""
        dtype = jnp.int32 if self.spec.kind == "token" else jnp.float32
        x = jnp.zeros((*sample_shape, *self.batch_shape, self.spec.dim), dtype)
        return Draws(x, self.steps.start(x))

    def complete(self, key: Array, x: Array, start: int) -> Array:
        """x with the values from `start` on drawn, given those before.

        Args:
          key: one typed PRNG key.
          x: [*any, *batch, D]; the values from `start` on do not matter.
          start: number of values that are known, 0 to D.
        """
        draws = Draws(x, self.steps.start(x))
        return self.sample_rows(key, draws, 0, self.num_rows, known=start).x

    def sample_rows(
        self,
        key: Array,
        draws: Draws,
        start: Array | int,
        stop: Array | int,
        known: int = 0,
    ) -> Draws:
        """Draws the rows start, ..., stop - 1, given the rows before them.

        Calls with the same key for all rows in turn, however many per call, give the draws of
        `sample`: the key of each value is folded from that key and the value's position.

        Args:
          key: one typed PRNG key.
          draws: from `blank`, or with all rows before `start` drawn.
          start, stop: integers or integer arrays [].
          known: number of values of the whole vector that are kept as they are.
        """
        _, columns, values = self.steps.shape

        def draw_row(row: Array, draws: Draws) -> Draws:
            def draw_pixel(column: Array, draws: Draws) -> Draws:
                first = (row * columns + column) * values

                def draw_value(i: Array, drawn: Draws) -> Draws:
                    logits, state = self.steps.pixel(draws.state, drawn.x, row, column)
                    axis = drawn.x.ndim - 1
                    logits = jax.lax.dynamic_index_in_dim(logits, i, axis, keepdims=False)
                    value = self._draw(jax.random.fold_in(key, first + i), logits)
                    if known:
                        own = jax.lax.dynamic_index_in_dim(drawn.x, first + i, axis, keepdims=False)
                        value = jnp.where(first + i < known, own, value)
                    x = jax.lax.dynamic_update_index_in_dim(drawn.x, value, first + i, axis)
                    return Draws(x, state)

                return jax.lax.fori_loop(0, values, draw_value, draws)

            state = self.steps.new_row(draws.state, draws.x, row)
            return jax.lax.fori_loop(0, columns, draw_pixel, Draws(draws.x, state))

        return jax.lax.fori_loop(start, stop, draw_row, draws)

    def _draw(self, key: Array, logits: Array) -> Array:
        """Values [*any, *batch] of one position, from its logits."""
        (logits,) = to_common_float(logits)
        if self.spec.levels == 2:
            level = jax.random.bernoulli(key, jax.nn.sigmoid(logits))
        else:
            level = _drawn_level(key, logits)
        if self.spec.kind == "token":
            return level.astype(jnp.int32)
        return level.astype(jnp.float32) / (self.spec.levels - 1)

    def _level(self, value: Array) -> Array:
        """The levels v = 0, ..., levels - 1 of values."""
        if self.spec.kind == "token":
            return value
        return jnp.round(value * (self.spec.levels - 1)).astype(jnp.int32)


def _drawn_level(key: Array, logits: Array) -> Array:
    """Draws levels [*any] from logits [*any, levels] by the inverse of the distribution function.

    That takes one random number for a draw. `jax.random.categorical` takes one for each level: for
    thousands of levels they cost more than the network does.
    """
    mass = jnp.cumsum(jax.nn.softmax(logits), axis=-1)
    u = jax.random.uniform(key, (*logits.shape[:-1], 1), logits.dtype)
    # The last entry is one but for rounding.
    return jnp.sum(mass <= u * mass[..., -1:], axis=-1)
