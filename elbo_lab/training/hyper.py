"""The hyper-parameters that a step reads as arguments, and their courses over the steps."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab import configs, schedules
from elbo_lab.configs import Config


def hyperparameters(runs: Sequence[Config]) -> dict[str, Array]:
    """Scalars that a step reads as arguments, so that their values cost no compilation: [] of one
    run, [R] of several, which share everything else.
    """
    rows = [_numbers(run) for run in runs]
    if len(rows) == 1:
        return {name: jnp.asarray(value, jnp.float32) for name, value in rows[0].items()}
    return {n: jnp.asarray([row[n] for row in rows], jnp.float32) for n in rows[0]}


def _numbers(config: Config) -> dict[str, float]:
    values = {"learning_rate": config.learning_rate} | configs.traced(config)
    # Courses are compiled in (`courses`), and so is an infinite order, which is another bound.
    return {n: v for n, v in values.items() if isinstance(v, float | int) and math.isfinite(v)}


def courses(config: Config, total: int) -> Callable[[dict[str, Array], Array], dict[str, Array]]:
    """(hyper-parameters, step) -> their values at that step, in a run of `total` steps."""
    factor = schedules.LR_SCHEDULES[config.lr_schedule](total)
    texts = {n: value for n, value in configs.traced(config).items() if isinstance(value, str)}
    moving = {name: schedules.course(text) for name, text in texts.items()}

    def at_step(hparams: dict[str, Array], step: Array) -> dict[str, Array]:
        # Schedules divide the integer step, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            values = {name: course(step) for name, course in moving.items()}
            return hparams | values | {"learning_rate": hparams["learning_rate"] * factor(step)}

    return at_step
