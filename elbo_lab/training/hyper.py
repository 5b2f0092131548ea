"""Hyper-parameters that a step takes as arguments, and their courses over the steps."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab import configs, schedules
from elbo_lab.configs import Config


def hyperparameters(runs: Sequence[Config]) -> dict[str, Array]:
    """Hyper-parameters as arguments of a step, so that other values need no new compilation.

    Args:
      runs: configurations of the replicates, equal in all other settings.

    Returns:
      Name -> float32, [] for one run and [R] for several.
    """
    rows = [_traced_numbers(run) for run in runs]
    if len(rows) == 1:
        return {name: jnp.asarray(value, jnp.float32) for name, value in rows[0].items()}
    return {name: jnp.asarray([row[name] for row in rows], jnp.float32) for name in rows[0]}


def _traced_numbers(config: Config) -> dict[str, float]:
    values = {"learning_rate": config.learning_rate} | configs.traced(config)
    # Compiled in instead: courses, which are text (see `courses`), and an infinite order alpha,
    # which selects another bound.
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, float | int) and math.isfinite(value)
    }


def courses(config: Config, total: int) -> Callable[[dict[str, Array], Array], dict[str, Array]]:
    """Returns the function (hyper-parameters, step) -> hyper-parameters at that step.

    Args:
      config: the run's.
      total: steps of the whole run.
    """
    rate_factor = schedules.LR_SCHEDULES[config.lr_schedule](total)
    warmup = schedules.warmup(config.warmup_steps)
    moving = {
        name: schedules.course(value)
        for name, value in configs.traced(config).items()
        if isinstance(value, str)
    }

    def at_step(hparams: dict[str, Array], step: Array) -> dict[str, Array]:
        # Schedules divide the integer step, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            values = {name: course(step) for name, course in moving.items()}
            rate = hparams["learning_rate"] * rate_factor(step)
            values["learning_rate"] = rate * warmup(step) if config.warmup_steps else rate
        return hparams | values

    return at_step
