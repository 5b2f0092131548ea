"""Refuses configurations that cannot work, by one sentence naming flag, value and choices."""

import dataclasses
import inspect
import math

import numpy as np

from elbo_lab import configs, losses, schedules
from elbo_lab.configs import HYPER, SETTINGS, Config
from elbo_lab.data import DATASETS, Dataset, is_binary
from elbo_lab.data.binarization import BINARIZATIONS
from elbo_lab.errors import UserError
from elbo_lab.losses import bounds, catalogue, estimators
from elbo_lab.losses.common import KL_MODES, WITHOUT_LOG_Q
from elbo_lab.losses.two_targets import RWS_PHASES
from elbo_lab.models import MODELS
from elbo_lab.models.laws import LIKELIHOODS
from elbo_lab.models.mlp import OUTPUT_BIASES
from elbo_lab.models.networks import ACTIVATIONS, INITS, SCALES
from elbo_lab.training.loop import BATCH_GRADIENTS

# The valid values of every field that has a closed list of them.
CHOICES: dict[str, tuple[str, ...]] = {
    "objective": tuple(losses.OBJECTIVES),
    "kl": KL_MODES,
    "phase": RWS_PHASES,
    "estimator": tuple(losses.ESTIMATORS),
    "model": tuple(MODELS),
    "activation": tuple(ACTIVATIONS),
    "scale": tuple(SCALES),
    "likelihood": tuple(LIKELIHOODS),
    "output_bias": OUTPUT_BIASES,
    "init": tuple(INITS),
    "binarization": BINARIZATIONS,
    "test_draw": ("common", "by_seed"),
    "lr_schedule": tuple(schedules.LR_SCHEDULES),
    "batch_gradient": tuple(BATCH_GRADIENTS),
}

# The least and the greatest value of each hyper-parameter, besides what float32 can hold.
_RANGES = {
    "beta": (0, math.inf),
    "alpha": (-math.inf, math.inf),
    "power": (1, math.inf),
    "regularization": (0, math.inf),
    **dict.fromkeys(("gamma", "capacity", "min_kl"), (0, math.inf)),
    **dict.fromkeys(("lambda_off", "lambda_diag", "kl_weight", "mmd_weight"), (0, math.inf)),
}
# What Python goes through one by one to make a program: steps of a partition, layers, replicates.
LARGEST_PARTITION, LARGEST_DEPTH, LARGEST_REPLICATES = bounds.MOST_STEPS, 100, 10_000
# Kinds of objectives whose regularizers are closed forms of one layer's q(z|x).
_ONE_LAYER = (catalogue.PER_EXAMPLE, catalogue.WHOLE_BATCH)
# The positive numbers that float32 holds; it rounds larger ones to infinity, and arithmetic takes
# smaller ones for zero.
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_FLOAT32 = f"that float32 holds ({_SMALLEST:.2g} to {_LARGEST:.2g})"
_LARGEST_COUNT = int(np.iinfo(np.int32).max)


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
    for name in ("k", "m", "batch_size", "epochs", "replicates", "eval_k"):
        _check_count(name, getattr(config, name))
    for name in ("au_images", "log_every", "checkpoint_every"):
        if getattr(config, name) is not None:
            _check_count(name, getattr(config, name))
    for name in ("latent_dims", "hidden_dims", "upper_hidden_dims"):
        sizes = getattr(config, name)
        if not sizes or any(size < 1 for size in sizes):
            raise UserError(
                f"--{name} must be whole numbers of at least 1, separated by commas; "
                f"got {','.join(map(str, sizes))!r}."
            )
        if len(sizes) > LARGEST_DEPTH:
            raise UserError(
                f"--{name} must be at most {LARGEST_DEPTH} sizes, each of which is compiled on its "
                f"own; got {len(sizes):,}."
            )
    if config.replicates > LARGEST_REPLICATES:
        raise UserError(
            f"--replicates must be at most {LARGEST_REPLICATES:,}, which are trained in one "
            f"program; got {config.replicates}."
        )
    if not LIKELIHOODS[config.likelihood].binary and config.binarization != "none":
        raise UserError(
            f"--likelihood={config.likelihood} is for grey levels, and needs --binarization=none; "
            f"got {config.binarization}."
        )
    _check_numbers(config)
    _check_settings(config)
    _check_objective(config)
    _check_estimator(config)


def resolved(config: Config) -> Config:
    """The config with the objective's own defaults where its settings were not given, so that a
    run's record says what was used.
    """
    options = _options(config.objective)
    defaults = {
        name: options[name].default
        for name in ("estimator", *SETTINGS)
        if name in options and getattr(config, name) is None
    }
    return dataclasses.replace(config, **defaults)


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
    most = _LARGEST_COUNT // (number // config.batch_size)
    if config.epochs > most:
        raise UserError(
            f"--epochs must be at most {most:,} with batches of {config.batch_size} of {number:,} "
            f"images, so that steps can be counted; got {config.epochs}."
        )
    if config.binarization == "none":
        _check_pixels(config, dataset)


def _check_pixels(config: Config, dataset: Dataset) -> None:
    """Whether the likelihood is one of the pixels, as they are."""
    likelihood = f"--likelihood={config.likelihood}"
    if not LIKELIHOODS[config.likelihood].binary:
        if is_binary(dataset.x_train):
            raise UserError(
                f"{likelihood} is for grey levels, but the images of {dataset.name} are binary; "
                "use bernoulli."
            )
        if config.likelihood == "discretized_logistic" and dataset.x_train.dtype != np.uint8:
            raise UserError(
                f"{likelihood} is for 8-bit grey levels, but the images of {dataset.name} are "
                "floats; use gaussian or continuous_bernoulli."
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
        if value is not None and not _SMALLEST <= value <= _LARGEST:
            raise UserError(f"--{name} must be a number above 0 {_FLOAT32}; got {value}.")
    if not 0 <= config.held_out <= _LARGEST_COUNT:
        raise UserError(f"--held_out must lie in 0..{_LARGEST_COUNT}; got {config.held_out}.")
    if not (config.adam_nu_start >= 0 and _in_float32(config.adam_nu_start)):
        raise UserError(
            f"--adam_nu_start must be at least 0, a number {_FLOAT32}; got {config.adam_nu_start}."
        )
    for name in ("adam_b1", "adam_b2"):
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise UserError(f"--{name} must lie in [0, 1); got {value}.")
        if not (_in_float32(value) and np.float32(value) < 1):
            raise UserError(
                f"--{name} must be 0 or lie in {_SMALLEST:.2g} to {1 - 2**-24:.8f} (float32 "
                f"rounds it to {np.float32(value):g}); got {value}."
            )
    largest = np.iinfo(np.int32).max - config.replicates
    if not 0 <= config.seed <= largest:
        raise UserError(f"--seed must lie in 0..{largest}; got {config.seed}.")
    if config.eval_k < config.k:
        raise UserError(
            f"--eval_k must be at least --k, {config.k}, so that the test set's IWAE-k bound can "
            f"be evaluated; got {config.eval_k}."
        )


def _in_float32(number: float) -> bool:
    """Whether float32 holds a number to its precision: as no infinity, and as 0 only if it is 0."""
    return number == 0 or _SMALLEST <= abs(number) <= _LARGEST


def _check_settings(config: Config) -> None:
    """What only some objectives have: with the right one, and in range."""
    options = _options(config.objective)
    for name in ("m", *SETTINGS):
        argument = "num_outer" if name == "m" else name
        given = config.m > 1 if name == "m" else getattr(config, name) is not None
        if given and argument not in options:
            raise UserError(
                f"--{name}={configs.shown(getattr(config, name))} does not go with --objective="
                f"{config.objective}; objectives that have it: {', '.join(having(argument))}."
            )
    for name in HYPER:
        if getattr(config, name) is not None:
            _check_hyper(config, name)
    for name, least in (("order", 0), ("group_size", 1)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}; got {value}.")
    if config.partition is not None:
        _check_partition(config.partition)


def _check_partition(partition: int | tuple[float, ...]) -> None:
    steps = partition if isinstance(partition, int) else len(partition) - 1
    if steps > LARGEST_PARTITION:
        raise UserError(
            f"--partition must have at most {LARGEST_PARTITION:,} steps, each of which is compiled "
            f"on its own; got {steps:,}."
        )
    try:
        points = bounds.partition_points(partition)
        bounds.partition_points(np.float32([p if _in_float32(p) else 0 for p in points]).tolist())
    except ValueError:
        raise UserError(
            "--partition must be a whole number of steps of at least 1, or points that rise from 0 "
            f"to 1 in float32; got {configs.shown(partition)!r}."
        ) from None


def _check_hyper(config: Config, name: str) -> None:
    value, (least, greatest) = getattr(config, name), _RANGES[name]
    if name == "beta" and config.objective == "ciwae":
        greatest = 1
    ends = (value,)
    if isinstance(value, str):
        try:
            start, end, steps = schedules.course_numbers(value)[1]
        except ValueError:
            raise UserError(f"--{name} must be {schedules.SYNTAX}; got {value!r}.") from None
        ends = (start, end)
        if not _in_float32(steps) or abs(end - start) > _LARGEST:
            raise UserError(
                f"--{name} must be a course whose STEPS and END - START are numbers {_FLOAT32}; "
                f"got {value!r}."
            )
    fits = all(least <= end <= greatest and _in_float32(end) for end in ends)
    if name == "regularization":
        fits = fits and all(end > 0 for end in ends)
    if not fits and not (name == "alpha" and value in (-math.inf, math.inf)):
        valid = f"of at least {least} and at most {min(greatest, _LARGEST):.3g}"
        if name == "alpha":
            valid = "that float32 can hold, inf or -inf"
        elif name == "regularization":
            valid = f"above 0 and at most {_LARGEST:.3g}"
        if any(least <= end <= greatest and 0 < abs(end) < _SMALLEST for end in ends):
            valid += f" (float32 takes less than {_SMALLEST:.2g} for 0)"
        raise UserError(f"--{name} must be a number {valid}; got {value}.")


def _check_objective(config: Config) -> None:
    options, layers = _options(config.objective), len(config.latent_dims)
    if "num_outer" in options and config.m < 2:
        raise UserError(
            f"--objective={config.objective} needs --m of at least 2, e.g. --m=8 (with one repeat "
            f"it is iwae); got {config.m}."
        )
    if layers == 1 and config.upper_hidden_dims != Config.upper_hidden_dims:
        raise UserError(
            "--upper_hidden_dims needs two or more --latent_dims, since it is between stochastic "
            "layers."
        )
    if layers > 1 and _kl(config) == "analytic":
        raise UserError(
            f"--objective={config.objective} with --kl=analytic needs one stochastic layer, since "
            f"the KL of {layers} has no closed form; use --kl=mc."
        )
    kind = losses.CATALOGUE[config.objective].kind
    if layers > 1 and "kl" not in options and kind in _ONE_LAYER:
        raise UserError(
            f"--objective={config.objective} needs one stochastic layer, since its regularizer has "
            f"no closed form for {layers}; got --latent_dims="
            f"{','.join(map(str, config.latent_dims))}."
        )
    if kind == catalogue.WHOLE_BATCH and config.batch_size < 2:
        raise UserError(
            f"--objective={config.objective} compares the images of a batch, and needs "
            f"--batch_size of at least 2; got {config.batch_size}."
        )
    if config.group_size is not None and config.latent_dims[0] % config.group_size:
        raise UserError(
            f"--group_size must divide the latent dimensions, {config.latent_dims[0]}; got "
            f"{config.group_size}."
        )
    order = (
        options["order"].default if config.order is None and "order" in options else config.order
    )
    left_out = 1 if config.estimator == "score_loo" else 0
    if order is not None and order >= config.k - left_out:
        raise UserError(
            f"--order must be below the number of draws, {config.k - left_out}, since the "
            f"jackknife leaves out that many; got {order}."
        )


def _check_estimator(config: Config) -> None:
    name, able = config.estimator, losses.CATALOGUE[config.objective].estimators
    if name is None:
        return
    objective = f"--objective={config.objective}"
    if not able:
        raise UserError(
            f"--estimator={name} does not go with {objective}, which has a gradient of its own."
        )
    if _kl(config) == "analytic":
        able = [other for other in able if other in WITHOUT_LOG_Q]
        objective += " --kl=analytic"
    if config.alpha in (-math.inf, math.inf):  # the bound's derivative jumps
        able = [other for other in able if other != "dreg"]
        objective += f" --alpha={config.alpha}"
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


def having(argument: str) -> list[str]:
    """The objectives that have an argument."""
    return [name for name in losses.OBJECTIVES if argument in _options(name)]


def default(objective: str, argument: str):
    """An argument's default."""
    return _options(objective)[argument].default


def _kl(config: Config) -> str | None:
    """How the KL is had, where the objective lets one choose."""
    options = _options(config.objective)
    return (config.kl or options["kl"].default) if "kl" in options else None


def _options(objective: str):
    return inspect.signature(losses.OBJECTIVES[objective]).parameters


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"--{name} must be at least 1; got {value}.")
    if value > _LARGEST_COUNT:
        raise UserError(f"--{name} must be at most {_LARGEST_COUNT}; got {value}.")
