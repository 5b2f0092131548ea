"""Checks of arguments; each raises a ValueError of one or two sentences."""

import numbers

import jax
import jax.numpy as jnp
from jax import Array


def typed_key(key: Array) -> Array:
    """The key as one typed PRNG key; a legacy key (`jax.random.PRNGKey`) is wrapped.

    Raises:
      ValueError: if it is not a PRNG key, or an array of several.
    """
    dtype = getattr(key, "dtype", None)
    if dtype == jnp.uint32 and key.ndim > 0:
        try:
            key = jax.random.wrap_key_data(key)
        except TypeError as error:  # Not as many words as the default PRNG has.
            raise ValueError(
                f"key must be a PRNG key, made by jax.random.key; got uint32 of shape {key.shape}."
            ) from error
    elif dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"key must be a PRNG key, made by jax.random.key; got {dtype or type(key).__name__}."
        )
    if key.shape:
        raise ValueError(
            f"key must be one key; got keys of shape {key.shape}. "
            "For a key per example, call under jax.vmap."
        )
    return key


def is_integer(value: object) -> bool:
    """True if the value is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_count(name: str, count: int) -> None:
    """Raises ValueError unless `count` is an integer of at least 1."""
    if not is_integer(count) or count < 1:
        raise ValueError(f"{name} must be an integer of at least 1; got {count!r}.")


def check_broadcasts(name: str, value: Array | float, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless a parameter is one number, or one for each example."""
    if jnp.shape(value) not in ((), shape):
        raise ValueError(
            f"{name} must be one number, or one for each example, shape {shape}; got shape "
            f"{jnp.shape(value)}."
        )


def check_per_example(name: str, value: Array, shape: tuple[int, ...], leading: int = 0) -> None:
    """Raises ValueError unless the caller's function returned one value per example.

    Args:
      name: the function's name, for the message.
      value: its return value, [*leading axes, *batch].
      shape: the required shape.
      leading: number of leading axes of `shape` that are draws; the message leaves them out.
    """
    actual = jnp.shape(value)
    if actual == shape:
        return
    cause = ""
    if len(actual) > len(shape):
        cause = (
            " Sum over the event dimensions, e.g. by NumPyro's `.to_event(1)`; or it sees a batch "
            "where the posterior is for one example."
        )
    elif len(actual) < len(shape):
        cause = (
            " It must not sum over the batch. Or the posterior is one per latent dimension: give "
            "it `.to_event(1)`."
        )
    raise ValueError(
        f"{name} must return one value per example, shape {shape[leading:]} for one draw "
        f"(as posterior.log_prob does); got {actual[leading:]}.{cause}"
    )
