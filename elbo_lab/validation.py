"""Refuses configurations that cannot work, by one sentence naming flag, value and choices."""

import dataclasses
import inspect

import numpy as np

from elbo_lab import losses, schedules
from elbo_lab.config import Config
from elbo_lab.data import Dataset, is_binary
from elbo_lab.data.binarization import BINARIZATIONS
from elbo_lab.errors import UserError
from elbo_lab.losses.objectives import KL_MODES
from elbo_lab.models import MODELS
from elbo_lab.models.mlp import OUTPUT_BIASES
from elbo_lab.models.networks import ACTIVATIONS, SCALES

# The valid values of every field that has a closed list of them.
CHOICES: dict[str, tuple[str, ...]] = {
    "objective": tuple(losses.OBJECTIVES),
    "kl": KL_MODES,
    "estimator": tuple(losses.ESTIMATORS),
    "model": tuple(MODELS),
    "activation": tuple(ACTIVATIONS),
    "scale": tuple(SCALES),
    "output_bias": OUTPUT_BIASES,
    "binarization": BINARIZATIONS,
    "lr_schedule": tuple(schedules.LR_SCHEDULES),
}

_LARGEST = float(np.finfo(np.float32).max)


def check(config: Config) -> None:
    """Raises a UserError for a wrong value or an impossible combination of values."""
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if value is not None and value not in choices:
            raise UserError(f"--{name} must be one of {', '.join(choices)}; got {value!r}.")
    for name in ("k", "m", "batch_size", "epochs", "replicates", "eval_k"):
        _check_count(name, getattr(config, name))
    for name in ("log_every", "checkpoint_every"):
        if getattr(config, name) is not None:
            _check_count(name, getattr(config, name))
    for name in ("latent_dims", "hidden_dims", "upper_hidden_dims"):
        sizes = getattr(config, name)
        if not sizes or any(size < 1 for size in sizes):
            raise UserError(
                f"--{name} must be sizes of at least 1, separated by commas; "
                f"got {','.join(map(str, sizes))!r}."
            )
    _check_numbers(config)
    _check_objective(config)


def resolved(config: Config) -> Config:
    """The config with the objective's own defaults where beta and kl were not given, so that a
    run's record says what was used.
    """
    options = _options(config.objective)
    defaults = {
        name: options[name].default
        for name in ("beta", "kl")
        if name in options and getattr(config, name) is None
    }
    return dataclasses.replace(config, **defaults)


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises a UserError where the data do not fit the configuration."""
    number = len(dataset.x_train)
    if config.batch_size > number:
        raise UserError(
            f"--batch_size must be at most the number of training images, {number:,} in "
            f"{dataset.name}; got {config.batch_size}."
        )
    if config.binarization == "none":
        for split, images in (("training", dataset.x_train), ("test", dataset.x_test)):
            if not is_binary(images):
                raise UserError(
                    f"--binarization=none needs binary images for a Bernoulli likelihood, but the "
                    f"{split} images of {dataset.name} have grey levels; use dynamic, fixed or "
                    "threshold."
                )


def _check_numbers(config: Config) -> None:
    for name in ("learning_rate", "adam_eps", "clip_norm"):
        value = getattr(config, name)
        if value is not None and not 0 < value <= _LARGEST:
            raise UserError(
                f"--{name} must be a number above 0 and at most {_LARGEST:.1e}; got {value}."
            )
    for name in ("adam_b1", "adam_b2"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"--{name} must lie in [0, 1); got {getattr(config, name)}.")
    largest = np.iinfo(np.int32).max - config.replicates
    if not 0 <= config.seed <= largest:
        raise UserError(f"--seed must lie in 0..{largest}; got {config.seed}.")
    if config.eval_k < config.k:
        raise UserError(
            f"--eval_k must be at least --k, {config.k}, so that the test set's IWAE-k bound can "
            f"be evaluated; got {config.eval_k}."
        )


def _check_objective(config: Config) -> None:
    for name, option in (("m", "num_outer"), ("beta", "beta"), ("kl", "kl")):
        given = config.m > 1 if name == "m" else getattr(config, name) is not None
        if given and option not in _options(config.objective):
            able = [o for o in losses.OBJECTIVES if option in _options(o)]
            raise UserError(
                f"--{name}={getattr(config, name)} does not go with --objective="
                f"{config.objective}; objectives that have it: {', '.join(able)}."
            )
    if "num_outer" in _options(config.objective) and config.m < 2:
        raise UserError(
            f"--objective={config.objective} needs --m of at least 2, e.g. --m=8 (with one repeat "
            f"it is iwae); got {config.m}."
        )
    if len(config.latent_dims) == 1 and config.upper_hidden_dims != Config.upper_hidden_dims:
        raise UserError(
            "--upper_hidden_dims needs two or more --latent_dims, since it is between stochastic "
            "layers."
        )
    if config.beta is not None and not 0 <= config.beta <= _LARGEST:
        raise UserError(
            f"--beta must be a number of at least 0 and at most {_LARGEST:.1e}; got {config.beta}."
        )
    if "kl" in _options(config.objective) and len(config.latent_dims) > 1:
        kl = config.kl or _options(config.objective)["kl"].default
        if kl == "analytic":
            raise UserError(
                f"--objective={config.objective} with --kl=analytic needs one stochastic layer, "
                f"since the KL of {len(config.latent_dims)} has no closed form; use --kl=mc."
            )


def _options(objective: str):
    return inspect.signature(losses.OBJECTIVES[objective]).parameters


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"--{name} must be at least 1; got {value}.")
