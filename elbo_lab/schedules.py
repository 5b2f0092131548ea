"""Step -> hyper-parameter."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

Schedule = Callable[[Array], Array]


def constant(total_steps: int) -> Schedule:
    """1 at every step."""
    del total_steps
    return lambda step: jnp.ones((), jnp.float32)


def cosine(total_steps: int) -> Schedule:
    """1/2 (1 + cos(pi step / total_steps)): from 1 to 0 (Loshchilov and Hutter 2017, eq. 5)."""
    return lambda step: 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0)))


def burda(total_steps: int) -> Schedule:
    """10^(-i/7) for a share 3^i of the run, i = 0..7 (Burda et al. 2016, section 5, where the
    shares are of 3,280 = sum_i 3^i passes).
    """
    ends = [total_steps * ((3 ** (i + 1) - 1) / 2) / 3280 for i in range(7)]  # of stages 0..6

    def factor(step: Array) -> Array:
        stage = jnp.sum(step >= jnp.asarray(ends), dtype=jnp.float32)
        return 10.0 ** (-stage / 7.0)

    return factor


# Factors on the learning rate, by the name that the flag takes.
LR_SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "burda": burda,
}
