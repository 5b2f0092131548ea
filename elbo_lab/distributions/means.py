"""Means of distributions of any library, in closed form where there is one, else over draws."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab.losses.posteriors import sample_from

# The mean of this many draws has the variance v / NUM_DRAWS, v being that of one draw. For v = 1
# that is a hundredth of the threshold above which a latent unit counts as active.
NUM_DRAWS = 10_000
# Draws computed at once.
_CHUNK = 100


def closed_form_mean(distribution: Any) -> Any | None:
    """E[z] if the distribution has it in closed form, else None.

    `mean` is a property of NumPyro's distributions and a method of Distrax's and TFP's. A user's
    class may have either or none; its `mean` must be the mean of its draws.

    Args:
      distribution: any object; nothing is drawn from it.

    Returns:
      A pytree of [*batch, ...]. None if there is no `mean`, if it raises NotImplementedError (as
      for most flows), if it is None, or if it needs arguments (a network of that name).
    """
    missing = object()
    try:
        mean = getattr(distribution, "mean")  # noqa: B009 (a property, which may raise)
        if not callable(mean):
            return mean
        return mean() if _takes_no_arguments(mean) else None
    except NotImplementedError:
        return None
    except AttributeError:
        if inspect.getattr_static(distribution, "mean", missing) is missing:
            return None
        raise  # An error inside the property does not mean that there is no mean.


def mean_of(key: Array, distribution: Any, num_draws: int = NUM_DRAWS) -> Any:
    """E[z], in closed form if the distribution has it, else the mean of draws.

    Args:
      key: one typed PRNG key; not used if there is a closed form.
      distribution: `sample(key, sample_shape)`, by the convention of any library.
      num_draws: number of draws that are averaged, rounded up to whole chunks of 100.

    Returns:
      A pytree of [*batch, ...], shaped as one draw; at least float32.

    Raises:
      ValueError: the closed form does not broadcast to the shape of a draw.
    """
    mean = closed_form_mean(distribution)
    if mean is not None:
        return _as_draws(mean, distribution)

    def mean_of_chunk(chunk_key: Array) -> Any:
        draws = sample_from(distribution, chunk_key, (_CHUNK,))
        return jax.tree.map(_mean, draws)

    chunks = jax.lax.map(mean_of_chunk, jax.random.split(key, -(-num_draws // _CHUNK)))
    return jax.tree.map(_mean, chunks)


def mean_or_draw(key: Array, distribution: Any) -> Any:
    """The mean in closed form if there is one, else one draw, [*batch, ...]; for figures."""
    mean = closed_form_mean(distribution)
    return sample_from(distribution, key, ()) if mean is None else mean


def _takes_no_arguments(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _as_draws(mean: Any, distribution: Any) -> Any:
    """The mean, broadcast to the shape of a draw."""
    draw = jax.eval_shape(lambda key: sample_from(distribution, key, ()), jax.random.key(0))
    try:
        return jax.tree.map(lambda m, d: jnp.broadcast_to(m, d.shape), mean, draw)
    except ValueError as error:
        raise ValueError(
            f"{type(distribution).__name__}.mean has the shape {jax.tree.map(jnp.shape, mean)}, "
            f"but a draw has {jax.tree.map(jnp.shape, draw)}."
        ) from error


def _mean(values: Array) -> Array:
    """The mean over the first axis, in at least float32."""
    return jnp.mean(values, axis=0, dtype=jnp.promote_types(values.dtype, jnp.float32))
