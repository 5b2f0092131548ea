"""Refuses configurations that cannot work, by one sentence naming flag, value and choices."""

import dataclasses
import inspect
import math

import numpy as np

from elbo_lab import configs, losses, models, schedules
from elbo_lab.cli.option_checks import (
    FLOAT32,
    LARGEST_COUNT,
    SMALLEST,
    check_count,
    check_options,
    in_float32,
)
from elbo_lab.configs import Config
from elbo_lab.data import DATASETS, Dataset, is_binary, spec_of
from elbo_lab.data.binarization import BINARIZATIONS
from elbo_lab.errors import UserError
from elbo_lab.losses import bounds, catalogue, estimators
from elbo_lab.losses.common import WITHOUT_LOG_Q
from elbo_lab.models import MODELS
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.objective_options import OBJECTIVE_OPTIONS
from elbo_lab.training.loop import BATCH_GRADIENTS

# The valid values of every shared field that has a closed list of them.
CHOICES: dict[str, tuple[str, ...]] = {
    "objective": tuple(OBJECTIVE_OPTIONS),
    "estimator": tuple(losses.ESTIMATORS),
    "model": tuple(MODELS),
    "binarization": BINARIZATIONS,
    "test_draw": ("common", "by_seed"),
    "lr_schedule": tuple(schedules.LR_SCHEDULES),
    "batch_gradient": tuple(BATCH_GRADIENTS),
}

# What Python goes through one by one to make a program: steps of a partition, replicates.
LARGEST_PARTITION, LARGEST_REPLICATES = bounds.MOST_STEPS, 10_000
# Kinds of objectives whose regularizers are closed forms of one layer's q(z|x).
_ONE_LAYER = (catalogue.PER_EXAMPLE, catalogue.WHOLE_BATCH)
# What means nothing to a model family that is trained by its own loss.
OF_OBJECTIVES = ("objective", "k", "estimator")


def check(config: Config) -> None:
    """Raises a UserError for a wrong value or an impossible combination of values."""
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        left_out = value is None and getattr(Config, name) is None
        if not left_out and value not in choices:
            raise UserError(f"--{name} must be one of {', '.join(choices)}; got {value!r}.")
    if not config.dataset:
        raise UserError(
            f"--dataset must be one of {', '.join(DATASETS)}, another image set of "
            f"tensorflow-datasets, or a path ending in .npz; got {config.dataset!r}."
        )
    _check_family(config)
    for name in ("m", "batch_size", "epochs", "replicates", "eval_k"):
        check_count(name, getattr(config, name))
    for name in ("k", "au_images", "log_every", "probe_every", "checkpoint_every"):
        if getattr(config, name) is not None:
            check_count(name, getattr(config, name))
    check_options(config.model_options)
    if config.replicates > LARGEST_REPLICATES:
        raise UserError(
            f"--replicates must be at most {LARGEST_REPLICATES:,}, which are trained in one "
            f"program; got {config.replicates}."
        )
    likelihood = _likelihood(config)
    if likelihood and not LIKELIHOODS[likelihood].binary and config.binarization != "none":
        raise UserError(
            f"--likelihood={likelihood} is for grey levels, and needs --binarization=none; "
            f"got {config.binarization}."
        )
    _check_numbers(config)
    if config.objective is None:
        return
    _check_m(config)
    check_options(config.objective_options)
    if "partition" in configs.own_settings(config):
        _check_partition(config.objective_options.partition)
    _check_objective(config)
    _check_estimator(config)


def _check_family(config: Config) -> None:
    """Raises a UserError for an objective, K or estimator of a family that has its own loss, and
    for the K of an objective without draws.
    """
    if MODELS[config.model].objective is not None:
        if config.objective not in losses.OBJECTIVES and config.k is not None:
            raise UserError(
                f"--k={config.k} does not go with --objective={config.objective}, which takes no "
                "draws."
            )
        return
    given = [name for name in OF_OBJECTIVES if getattr(config, name) is not None]
    given += ["m"] if config.m != 1 else []
    if given:
        raise UserError(
            f"--{given[0]}={configs.shown(getattr(config, given[0]))} does not go with "
            f"--model={config.model}, which is trained by a loss of its own."
        )


def resolved(config: Config) -> Config:
    """The config with the objective's own estimator where none was given, so that a run's record
    says what was used.
    """
    own = _arguments(config.objective).get("estimator")
    if config.estimator is not None or own is None:
        return config
    return dataclasses.replace(config, estimator=own.default)


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises a UserError where the data do not fit the configuration."""
    total = len(dataset.x_train)
    if not len(dataset.x_test) and config.held_out < 1:
        raise UserError(
            f"--held_out must be at least 1 for {dataset.name}, which has no test images: that "
            f"many of its {total:,} images are drawn, once, to test on; got {config.held_out}."
        )
    if config.held_out >= total:
        raise UserError(
            f"--held_out must be below the number of training images, {total:,} in "
            f"{dataset.name}; got {config.held_out}."
        )
    number = total - config.held_out
    for name in ("au_images", "batch_size"):
        wanted = getattr(config, name)
        if wanted is None or wanted <= number:
            continue
        if wanted <= total:
            raise UserError(
                f"--held_out={config.held_out} leaves {number:,} of the {total:,} training images "
                f"of {dataset.name}, which must be at least --{name}, {wanted}."
            )
        raise UserError(
            f"--{name} must be at most the number of training images, {number:,} in "
            f"{dataset.name}; got {wanted}."
        )
    most = LARGEST_COUNT // (number // config.batch_size)
    if config.epochs > most:
        raise UserError(
            f"--epochs must be at most {most:,} with batches of {config.batch_size} of {number:,} "
            f"images, so that steps can be counted; got {config.epochs}."
        )
    if dataset.kind == "real" and _likelihood(config) not in ("gaussian", None):
        raise UserError(
            f"--likelihood must be gaussian (with --binarization=none) for {dataset.name}, which "
            f"has real numbers; got {_likelihood(config)}."
        )
    if config.binarization == "none" and dataset.kind == "image":
        _check_pixels(config, dataset)
    try:
        models.make(config, spec_of(dataset, config.binarization))
    except ValueError as error:
        raise UserError(
            f"--model={config.model} with --dataset={config.dataset}: {error}"
        ) from error


def _check_pixels(config: Config, dataset: Dataset) -> None:
    """Whether the likelihood is one of the pixels, as they are."""
    name = _likelihood(config)
    if name is None:
        return
    if not LIKELIHOODS[name].binary:
        if is_binary(dataset.x_train):
            raise UserError(
                f"--likelihood={name} is for grey levels, but the images of {dataset.name} are "
                "binary; use bernoulli."
            )
        if name == "discretized_logistic" and dataset.x_train.dtype != np.uint8:
            raise UserError(
                f"--likelihood={name} is for 8-bit grey levels, but the images of {dataset.name} "
                "are floats; use gaussian or continuous_bernoulli."
            )
        return
    for split, images in (("training", dataset.x_train), ("test", dataset.x_test)):
        if not is_binary(images):
            grey = [name for name, law in LIKELIHOODS.items() if not law.binary]
            raise UserError(
                f"--binarization=none needs binary images for a Bernoulli likelihood, but the "
                f"{split} images of {dataset.name} have grey levels; use dynamic, fixed or "
                f"threshold, or --likelihood={', '.join(grey[:-1])} or {grey[-1]}."
            )


def _check_numbers(config: Config) -> None:
    for name in ("learning_rate", "adam_eps", "clip_norm"):
        value = getattr(config, name)
        if value is not None and not (value > 0 and in_float32(value)):
            raise UserError(f"--{name} must be a number above 0 {FLOAT32}; got {value}.")
    if not 0 <= config.held_out <= LARGEST_COUNT:
        raise UserError(f"--held_out must lie in 0..{LARGEST_COUNT}; got {config.held_out}.")
    if not (config.adam_nu_start >= 0 and in_float32(config.adam_nu_start)):
        raise UserError(
            f"--adam_nu_start must be at least 0, a number {FLOAT32}; got {config.adam_nu_start}."
        )
    for name in ("adam_b1", "adam_b2"):
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise UserError(f"--{name} must lie in [0, 1); got {value}.")
        if not (in_float32(value) and np.float32(value) < 1):
            raise UserError(
                f"--{name} must be 0 or lie in {SMALLEST:.2g} to {1 - 2**-24:.8f} (float32 "
                f"rounds it to {np.float32(value):g}); got {value}."
            )
    largest = np.iinfo(np.int32).max - config.replicates
    if not 0 <= config.seed <= largest:
        raise UserError(f"--seed must lie in 0..{largest}; got {config.seed}.")
    if config.k is not None and config.eval_k < config.k:
        raise UserError(
            f"--eval_k must be at least --k, {config.k}, so that the test set's IWAE-k bound can "
            f"be evaluated; got {config.eval_k}."
        )


def _check_m(config: Config) -> None:
    """Raises a UserError for repeats of an objective that takes none."""
    if config.m > 1 and "num_outer" not in _arguments(config.objective):
        repeating = [o for o in losses.OBJECTIVES if "num_outer" in _arguments(o)]
        raise UserError(
            f"--m={config.m} does not go with --objective={config.objective}; objectives that have "
            f"it: {', '.join(repeating)}."
        )


def _check_partition(partition: int | tuple[float, ...]) -> None:
    steps = partition if isinstance(partition, int) else len(partition) - 1
    if steps > LARGEST_PARTITION:
        raise UserError(
            f"--partition must have at most {LARGEST_PARTITION:,} steps, each of which is compiled "
            f"on its own; got {steps:,}."
        )
    try:
        points = bounds.partition_points(partition)
        bounds.partition_points(np.float32([p if in_float32(p) else 0 for p in points]).tolist())
    except ValueError:
        raise UserError(
            "--partition must be a whole number of steps of at least 1, or points that rise from 0 "
            f"to 1 in float32; got {configs.shown(partition)!r}."
        ) from None


def _check_objective(config: Config) -> None:
    arguments, own = _arguments(config.objective), configs.own_settings(config)
    latent_dims = own.get("latent_dims", ())
    layers = len(latent_dims)
    if "num_outer" in arguments and config.m < 2:
        raise UserError(
            f"--objective={config.objective} needs --m of at least 2, e.g. --m=8 (with one repeat "
            f"it is iwae); got {config.m}."
        )
    if layers == 1 and "upper_hidden_dims" in configs.given(config):
        raise UserError(
            "--upper_hidden_dims needs two or more --latent_dims, since it is between stochastic "
            "layers."
        )
    if layers > 1 and own.get("kl") == "analytic":
        raise UserError(
            f"--objective={config.objective} with --kl=analytic needs one stochastic layer, since "
            f"the KL of {layers} has no closed form; use --kl=mc."
        )
    entry = losses.CATALOGUE.get(config.objective)
    kind = None if entry is None else entry.kind
    if layers > 1 and "kl" not in own and kind in _ONE_LAYER:
        raise UserError(
            f"--objective={config.objective} needs one stochastic layer, since its regularizer has "
            f"no closed form for {layers}; got --latent_dims={configs.shown(latent_dims)}."
        )
    if kind == catalogue.WHOLE_BATCH and config.batch_size < 2:
        raise UserError(
            f"--objective={config.objective} compares the images of a batch, and needs "
            f"--batch_size of at least 2; got {config.batch_size}."
        )
    group_size = own.get("group_size")
    if group_size is not None and layers and latent_dims[0] % group_size:
        raise UserError(
            f"--group_size must divide the latent dimensions, {latent_dims[0]}; got {group_size}."
        )
    order, left_out = own.get("order"), 1 if config.estimator == "score_loo" else 0
    if order is not None and order >= config.k - left_out:
        raise UserError(
            f"--order must be below the number of draws, {config.k - left_out}, since the "
            f"jackknife leaves out that many; got {order}."
        )


def _check_estimator(config: Config) -> None:
    name, entry = config.estimator, losses.CATALOGUE.get(config.objective)
    if name is None:
        return
    able = () if entry is None else entry.estimators
    objective = f"--objective={config.objective}"
    if not able:
        raise UserError(
            f"--estimator={name} does not go with {objective}, which has a gradient of its own."
        )
    own = configs.own_settings(config)
    if own.get("kl") == "analytic":
        able = [other for other in able if other in WITHOUT_LOG_Q]
        objective += " --kl=analytic"
    if own.get("alpha") in (-math.inf, math.inf):  # the bound's derivative jumps
        able = [other for other in able if other != "dreg"]
        objective += f" --alpha={own['alpha']}"
    if name not in able:
        raise UserError(
            f"--estimator={name} does not go with {objective}; those that do: {', '.join(able)}."
        )
    draws = config.k * config.m
    if name in estimators.COMPARING_ESTIMATORS and draws < 2:
        able = [other for other in able if other not in estimators.COMPARING_ESTIMATORS]
        raise UserError(
            f"--estimator={name} compares draws, and needs --k of at least 2; got {config.k}. "
            f"For one draw: {', '.join(able)}."
        )


def _arguments(objective: str | None):
    """The arguments of an objective's function, by name; none for what is no function of losses."""
    if objective not in losses.OBJECTIVES:
        return {}
    return inspect.signature(losses.OBJECTIVES[objective]).parameters


def _likelihood(config: Config) -> str | None:
    """The name of p(x|z), where the model family lets one choose."""
    return configs.own_settings(config).get("likelihood")
