"""The law of independent tokens."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from elbo_lab.losses.arrays import to_common_float, to_common_rank


class TokenCategorical(dist.Distribution):
    """Independent tokens 0, ..., V - 1 over the last axis: P(v) = softmax(logits)_v.

    A mean of tokens has no meaning: asking for it raises NotImplementedError. (The `mean` of
    NumPyro's Categorical is NaN.)

    Args:
      logits: [*batch, T, V].
    """

    arg_constraints = {"logits": constraints.independent(constraints.real, 2)}

    def __init__(self, logits: Array, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        values = constraints.integer_interval(0, self.logits.shape[-1] - 1)
        return constraints.independent(values, 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws [*sample_shape, *batch, T], int32."""
        (logits,) = to_common_float(self.logits)
        shape = (*sample_shape, *logits.shape[:-1])
        return jax.random.categorical(key, logits, shape=shape).astype(jnp.int32)

    def log_prob(self, value: Array) -> Array:
        """The log mass of tokens [*any, *batch, T], nats, [*any, *batch]."""
        return jnp.sum(self.log_conditionals(value), axis=-1)

    def log_conditionals(self, value: Array) -> Array:
        """log P(x_t) of each token of [*any, *batch, T], nats, in that shape."""
        (logits,) = to_common_float(self.logits)
        # The normalizer first: it does not depend on the tokens, of which there may be more.
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        logits, index = to_common_rank(logits, value[..., None])
        shape = jnp.broadcast_shapes(logits.shape[:-1], index.shape[:-1])
        logits = jnp.broadcast_to(logits, (*shape, logits.shape[-1]))
        index = jnp.broadcast_to(index, (*shape, 1))
        return jnp.take_along_axis(logits, index, axis=-1)[..., 0] - normalizer

    def complete(self, key: Array, x: Array, start: int) -> Array:
        """Tokens x [*batch, T] with those from `start` on drawn; the others do not matter to them.

        Args:
          key: one typed PRNG key.
          x: [*batch, T], int32.
          start: number of tokens that are kept, 0 to T.
        """
        is_kept = jnp.arange(x.shape[-1]) < start
        is_kept = is_kept.reshape((1,) * (x.ndim - 1) + is_kept.shape)
        return jnp.where(is_kept, x, self.sample(key))
