"""What a configuration's objective is: a loss per image, and hyper-parameters over the steps."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from elbo_lab import losses, schedules
from elbo_lab.config import HYPER, SETTINGS, Config
from elbo_lab.means import closed_form_mean
from elbo_lab.models.base import Model

LossFn = Callable[[Array, Any, Array, dict[str, Array]], tuple[Array, dict[str, Array]]]


def objective_loss(config: Config, model: Model, num_train: int | None = None) -> LossFn:
    """The configured objective of the configured model as a loss per image.

    Args:
      config: the run's.
      model: whose distributions it takes.
      num_train: training images, which some objectives of whole batches need.

    Returns:
      (key, params, x [B, D], hparams) -> (loss [B], terms {name: [B]}), nats per image.
    """
    objective = losses.OBJECTIVES[config.objective]
    accepted = inspect.signature(objective).parameters
    settings = {name: getattr(config, name) for name in (*SETTINGS, "estimator")}
    settings |= {"num_samples": config.k, "num_outer": config.m, "dataset_size": num_train}
    options = {n: v for n, v in settings.items() if n in accepted and v is not None}

    def loss_fn(key: Array, params: Any, x: Array, hparams: dict[str, Array]):
        given = {name: hparams[name] for name in accepted if name in hparams}

        def log_likelihood(z: Any) -> Array:
            return model.likelihood(params, z).log_prob(x)

        def decoder_mean(z: Any) -> Array:
            mean = closed_form_mean(model.likelihood(params, z))
            if mean is None:
                raise ValueError(f"{config.objective} needs a p(x|z) with a closed-form mean.")
            return mean

        if "x" in accepted:  # The objective takes mu_G instead, and compares it with x itself.
            given["x"] = x
        if "inference" in accepted:
            given["inference"] = functools.partial(model.posterior, params)
            given["generation"] = functools.partial(model.likelihood, params)
        loss, aux = objective(
            key,
            model.posterior(params, x),
            model.prior(params),
            decoder_mean if "x" in accepted else log_likelihood,
            vectorized=True,
            **options | given,
        )
        reconstruction = jnp.mean(aux.log_px_z, axis=0)
        return loss, {"bound": aux.bound, "kl": aux.kl, "reconstruction": reconstruction}

    return loss_fn


def hyperparameters(runs: Sequence[Config]) -> dict[str, Array]:
    """Scalars that a step reads as arguments, so that their values cost no compilation: [] of one
    run, [R] of several, which share everything else.
    """
    rows = [_numbers(run) for run in runs]
    if len(rows) == 1:
        return {name: jnp.asarray(value, jnp.float32) for name, value in rows[0].items()}
    return {n: jnp.asarray([row[n] for row in rows], jnp.float32) for n in rows[0]}


def _numbers(config: Config) -> dict[str, float]:
    values = {name: getattr(config, name) for name in ("learning_rate", *HYPER)}
    # Courses are compiled in (`courses`), and so is an infinite order, which is another bound.
    return {n: v for n, v in values.items() if isinstance(v, float | int) and math.isfinite(v)}


def courses(config: Config, total: int) -> Callable[[dict[str, Array], Array], dict[str, Array]]:
    """(hyper-parameters, step) -> their values at that step, in a run of `total` steps."""
    factor = schedules.LR_SCHEDULES[config.lr_schedule](total)
    texts = {name: getattr(config, name) for name in HYPER}
    moving = {n: schedules.course(text) for n, text in texts.items() if isinstance(text, str)}

    def at_step(hparams: dict[str, Array], step: Array) -> dict[str, Array]:
        # Schedules divide the integer step, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            values = {name: course(step) for name, course in moving.items()}
            return hparams | values | {"learning_rate": hparams["learning_rate"] * factor(step)}

    return at_step
