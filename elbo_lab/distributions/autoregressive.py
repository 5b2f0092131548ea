"""Discrete variables whose joint law is a product of conditionals, p(x) = prod_d p(x_d | x_<d)."""

from collections.abc import Callable

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


class Autoregressive(dist.Distribution):
    """A discrete vector, each value drawn given the values before it.

    log p(x) = sum_d log p(x_d | x_1, ..., x_{d-1}), the logarithm of a mass: at most zero.

    There is no mean in closed form: asking for it raises NotImplementedError.

    Args:
      logits: a causal function of whole vectors; the logits at d depend on x_1, ..., x_{d-1}.
      spec: kind, levels and D of the values. Values of kind "image" are v / (levels - 1), values of
        kind "token" are v, for v = 0, ..., levels - 1.
      batch_shape: batch shape of the condition, if `logits` has one.
      row_logits: (x, i) -> the function from row i of x, [*any, *batch, D / num_rows], to the
        logits of that row. It computes what depends on earlier rows once per row: sampling costs
        num_rows calls of `row_logits`, and D calls of the functions that it returns.
      num_rows: number of rows of equal length in x.
    """

    arg_constraints = {}

    def __init__(
        self,
        logits: Logits,
        spec: Spec,
        batch_shape: tuple[int, ...] = (),
        row_logits: Callable[[Array, Array], Logits] | None = None,
        num_rows: int = 1,
        *,
        validate_args: bool | None = None,
    ):
        self.logits, self.spec, self.num_rows = logits, spec, num_rows
        # By default the whole vector is a single row.
        self._row_logits = row_logits or (lambda x, i: logits)
        super().__init__(batch_shape, (spec.dim,), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        if self.spec.kind == "token":
            return constraints.independent(constraints.integer_interval(0, self.spec.levels - 1), 1)
        values = constraints.boolean if self.spec.levels == 2 else constraints.unit_interval
        return constraints.independent(values, 1)

    def log_prob(self, value: Array) -> Array:
        """The log mass of values [*any, *batch, D], nats, [*any, *batch]."""
        shape = jnp.broadcast_shapes(value.shape, (*self.batch_shape, self.spec.dim))
        value = jnp.broadcast_to(value, shape)
        logits, levels = self.logits(value), self._level(value)
        if self.spec.levels == 2:
            return bernoulli_log_prob(logits, levels)
        (logits,) = to_common_float(logits)
        chosen = jnp.take_along_axis(logits, levels[..., None], axis=-1)[..., 0]
        return jnp.sum(chosen - jax.nn.logsumexp(logits, axis=-1), axis=-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws [*sample_shape, *batch, D], by one loop over rows and one over their values."""

        def draw_row(i: Array, x: Array) -> Array:
            return self.sample_in_row(key, x, i, 0, self.row_length)

        return jax.lax.fori_loop(0, self.num_rows, draw_row, self.blank(sample_shape))

    @property
    def row_length(self) -> int:
        """Number of values in a row."""
        return self.spec.dim // self.num_rows

    def blank(self, sample_shape: tuple[int, ...] = ()) -> Array:
        """Zeros [*sample_shape, *batch, D], the start of `sample_in_row`."""
        dtype = jnp.int32 if self.spec.kind == "token" else jnp.float32
        return jnp.zeros((*sample_shape, *self.batch_shape, self.spec.dim), dtype)

    def sample_in_row(
        self, key: Array, x: Array, row: Array | int, start: Array | int, stop: Array | int
    ) -> Array:
        """x with the values start, ..., stop - 1 of a row drawn, given all values before them.

        Calls with the same key for all values in turn, however many per call, give the draws of
        `sample`: the key of each value is folded from that key and the value's position.

        Args:
          key: one typed PRNG key.
          x: [*sample_shape, *batch, D]; all values before `start` are drawn already.
          row, start, stop: integers or integer arrays [].
        """
        first = row * self.row_length
        row_logits = self._row_logits(x, row)

        def draw(j: Array, x_row: Array) -> Array:
            all_logits = row_logits(x_row)
            logits = jax.lax.dynamic_index_in_dim(all_logits, j, x.ndim - 1, keepdims=False)
            value = self._draw(jax.random.fold_in(key, first + j), logits)
            return jax.lax.dynamic_update_index_in_dim(x_row, value, j, -1)

        x_row = jax.lax.dynamic_slice_in_dim(x, first, self.row_length, axis=-1)
        x_row = jax.lax.fori_loop(start, stop, draw, x_row)
        return jax.lax.dynamic_update_slice_in_dim(x, x_row, first, axis=-1)

    def _draw(self, key: Array, logits: Array) -> Array:
        """Values [*any, *batch] of one position, from its logits."""
        (logits,) = to_common_float(logits)
        if self.spec.levels == 2:
            level = jax.random.bernoulli(key, jax.nn.sigmoid(logits))
        else:
            level = jax.random.categorical(key, logits)
        if self.spec.kind == "token":
            return level.astype(jnp.int32)
        return level.astype(jnp.float32) / (self.spec.levels - 1)

    def _level(self, value: Array) -> Array:
        """The levels v = 0, ..., levels - 1 of values."""
        if self.spec.kind == "token":
            return value
        return jnp.round(value * (self.spec.levels - 1)).astype(jnp.int32)

    def log_conditionals(self, value: Array) -> Array:
        """log p(x_d | x_<d) of each of the values [*any, *batch, D], nats, in that shape.

        Those of the first d values do not depend on the values after them.
        """
        shape = jnp.broadcast_shapes(value.shape, (*self.batch_shape, self.spec.dim))
        value = jnp.broadcast_to(value, shape)
        logits, levels = self.logits(value), self._level(value)
        if self.spec.levels == 2:
            # The sum over a single value is the log mass of that value.
            return bernoulli_log_prob(logits[..., None], levels[..., None])
        (logits,) = to_common_float(logits)
        chosen = jnp.take_along_axis(logits, levels[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    def complete(self, key: Array, x: Array, start: int) -> Array:
        """x with the values from `start` on drawn, given those before, by one loop over them.

        Args:
          key: one typed PRNG key.
          x: [*any, *batch, D]; the values from `start` on do not matter.
          start: number of values that are known, 0 to D.
        """
        axis = x.ndim - 1

        def draw(d: Array, x: Array) -> Array:
            logits = jax.lax.dynamic_index_in_dim(self.logits(x), d, axis, keepdims=False)
            value = self._draw(jax.random.fold_in(key, d), logits)
            return jax.lax.dynamic_update_index_in_dim(x, value, d, axis)

        return jax.lax.fori_loop(start, self.spec.dim, draw, x)
