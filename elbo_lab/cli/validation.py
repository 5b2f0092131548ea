"""Refuses invalid configurations, by one sentence with the flag, its value and what is valid."""

import math

import numpy as np

from elbo_lab import configs, losses, models, schedules
from elbo_lab.cli import flag_values, mixture_checks, model_checks
from elbo_lab.cli.option_checks import (
    FLOAT32,
    LARGEST,
    LARGEST_COUNT,
    SMALLEST,
    check_count,
    check_number,
    check_options,
    in_float32,
)
from elbo_lab.configs import Config
from elbo_lab.data import DATASETS, Dataset, spec_of
from elbo_lab.data.binarization import BINARIZATIONS
from elbo_lab.distributions.pixels import MOST_UNITS
from elbo_lab.errors import UserError
from elbo_lab.losses import bounds, catalogue, estimators
from elbo_lab.methods.baselines import BASELINES
from elbo_lab.models import MODELS
from elbo_lab.objective_options import OBJECTIVE_OPTIONS, arguments, estimators_of
from elbo_lab.optimizer_options import OPTIMIZER_OPTIONS
from elbo_lab.options import Option
from elbo_lab.reports import words
from elbo_lab.training.loop import BATCH_GRADIENTS

# Valid values of the shared fields that are one of a fixed list.
CHOICES: dict[str, tuple[str, ...]] = {
    "objective": tuple(OBJECTIVE_OPTIONS),
    "estimator": tuple(losses.ESTIMATORS),
    "score_baseline": BASELINES,
    "model": tuple(MODELS),
    "binarization": BINARIZATIONS,
    "test_draw": ("common", "by_seed"),
    "lr_schedule": tuple(schedules.LR_SCHEDULES),
    "batch_gradient": tuple(BATCH_GRADIENTS),
    "optimizer": tuple(OPTIMIZER_OPTIONS),
}

# Python loops over these to build a program: the steps of a partition, and the replicates.
LARGEST_PARTITION, LARGEST_REPLICATES = bounds.MOST_STEPS, 10_000
# The range of a decay of averages.
_DECAY = Option("", least=0, below=1)
# Kinds of objectives whose regularizer is one of a single layer's z (all but lambda_vae).
_ONE_LAYER = (catalogue.PER_EXAMPLE, catalogue.WHOLE_BATCH)
# Fields that have no meaning for a model family that is trained by its own loss.
OF_OBJECTIVES = ("objective", "k", "estimator")


def check(config: Config) -> None:
    """Raises a UserError for an invalid value or an impossible combination of values."""
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        may_be_none = getattr(Config, name) is None
        if value not in choices and not (value is None and may_be_none):
            raise UserError(f"--{name} must be one of {', '.join(choices)}; got {value!r}.")
    if not config.dataset:
        raise UserError(
            f"--dataset must be one of {', '.join(DATASETS)}, another image set of "
            f"tensorflow-datasets, or a path ending in .npz or .txt; got {config.dataset!r}."
        )
    _check_family(config)
    for name in ("m", "batch_size", "epochs", "encoder_steps", "replicates", "eval_k"):
        check_count(name, getattr(config, name))
    check_count("warmup_steps", config.warmup_steps, least=0)
    for name in ("k", "au_images", "log_every", "probe_every", "checkpoint_every"):
        if getattr(config, name) is not None:
            check_count(name, getattr(config, name))
    check_options(config.model_options)
    check_options(config.optimizer_options)
    if config.replicates > LARGEST_REPLICATES:
        raise UserError(
            f"--replicates must be at most {LARGEST_REPLICATES:,}, since they are trained in one "
            f"program; got {config.replicates}."
        )
    model_checks.check_settings(config)
    _check_numbers(config)
    _check_optimizer(config)
    mixture_checks.check(config)
    if config.objective is None:
        return
    _check_m(config)
    _check_objective(config)
    check_options(config.objective_options)
    if "partition" in configs.own_settings(config):
        _check_partition(config.objective_options.partition)
    _check_estimator(config)
    _check_baseline(config)


def _check_family(config: Config) -> None:
    """Raises a UserError for an objective, K, M or estimator that the family does not take, and
    for the K of an objective without draws.
    """
    has_objective = MODELS[config.model].objective is not None
    if has_objective and config.objective not in losses.OBJECTIVES and config.k is not None:
        raise UserError(
            f"--k={config.k} does not go with --objective={config.objective}, which takes no draws."
        )
    if has_objective:
        return
    unused = [name for name in OF_OBJECTIVES if getattr(config, name) is not None]
    changed = configs.non_defaults(config)
    unused += [name for name in ("m", "score_baseline", "encoder_steps") if name in changed]
    for name in unused:
        raise UserError(
            f"--{name}={configs.flag_text(getattr(config, name))} does not go with "
            f"--model={config.model}, which is trained by a loss of its own."
        )


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises a UserError if the data do not fit the configuration."""
    total, noun = len(dataset.x_train), _noun(dataset)
    if not len(dataset.x_test) and config.held_out < 1:
        raise UserError(
            f"--held_out must be at least 1 for {dataset.name}, which has no test {noun}: that "
            f"many of its {total:,} {noun} are drawn once as test {noun}; got {config.held_out}."
        )
    if config.held_out >= total:
        raise UserError(
            f"--held_out must be below the number of training {noun}, {total:,} in "
            f"{dataset.name}; got {config.held_out}."
        )
    number = total - config.held_out
    for name in ("au_images", "batch_size"):
        wanted = getattr(config, name)
        if wanted is None or wanted <= number:
            continue
        if wanted <= total:  # there would be enough without --held_out
            raise UserError(
                f"--held_out={config.held_out} leaves {number:,} of the {total:,} training {noun} "
                f"of {dataset.name}, which must be at least --{name}, {wanted}."
            )
        raise UserError(
            f"--{name} must be at most the number of training {noun}, {number:,} in "
            f"{dataset.name}; got {wanted}."
        )
    most = LARGEST_COUNT // (number // config.batch_size)
    if config.epochs > most:
        raise UserError(
            f"--epochs must be at most {most:,} with batches of {config.batch_size} of {number:,} "
            f"{noun}, so that steps can be counted; got {config.epochs}."
        )
    model_checks.check_data(config, dataset)
    model_checks.check_labels(config, dataset)
    mixture_checks.check_rows(config, number)
    spec = spec_of(dataset, config.binarization)
    try:
        models.make(config, spec)
    except ValueError as error:
        sentence = flag_values.with_dashes(str(error))
        raise UserError(
            f"--model={config.model} with --dataset={config.dataset}: {sentence}"
        ) from error
    model_checks.check_means(config, spec)


def _noun(dataset: Dataset) -> str:
    """The noun for examples, in the plural: those of a text file are its lines."""
    text = dataset.text
    if text is not None and dataset.kind == "token" and text.line_length == text.length:
        return "lines"
    return words.for_kind("images", dataset.kind)


def _check_numbers(config: Config) -> None:
    """Raises a UserError for a number of the training, the data or the evaluation out of range."""
    for name in ("learning_rate", "clip_norm"):
        value = getattr(config, name)
        if value is not None and not (value > 0 and in_float32(value)):
            raise UserError(f"--{name} must be a number above 0 {FLOAT32}; got {value}.")
    if not 0 <= config.held_out <= LARGEST_COUNT:
        raise UserError(f"--held_out must lie in 0..{LARGEST_COUNT}; got {config.held_out}.")
    largest = np.iinfo(np.int32).max - config.replicates
    if not 0 <= config.seed <= largest:
        raise UserError(f"--seed must lie in 0..{largest}; got {config.seed}.")
    if config.k is not None and config.eval_k < config.k:
        raise UserError(
            f"--eval_k must be at least --k, {config.k}, so that the test set's IWAE-k bound can "
            f"be evaluated; got {config.eval_k}."
        )


def _check_optimizer(config: Config) -> None:
    """Raises a UserError for settings of the optimizer and the average that do not go together."""
    check_number("ema", config.ema, _DECAY)
    settings = config.optimizer_options
    if config.optimizer == "sgd" and settings.nesterov and not settings.momentum:
        raise UserError("--nesterov=true needs --momentum above 0; got 0.")
    if config.optimizer != "schedule_free":
        return
    if config.ema:
        raise UserError(
            f"--ema={config.ema} does not go with --optimizer=schedule_free, which averages the "
            "weights by itself."
        )
    if config.encoder_steps > 1:
        raise UserError(
            f"--encoder_steps={config.encoder_steps} does not go with --optimizer=schedule_free, "
            "whose average moves the weights at every step; valid: 1."
        )
    power = settings.schedule_free_power
    log_weight = power * math.log(config.learning_rate)
    is_large = log_weight + math.log(LARGEST_COUNT) > math.log(LARGEST)  # summed over the steps
    if log_weight < math.log(SMALLEST) or is_large:
        raise UserError(
            f"--schedule_free_power={power:g} is too large: to this power --learning_rate, "
            f"{config.learning_rate:g}, is {'infinite' if is_large else '0'} in float32, and no "
            "step would count in the average."
        )


def _check_m(config: Config) -> None:
    """Raises a UserError for M > 1 with an objective that takes no outer repeats."""
    if config.m > 1 and "num_outer" not in arguments(config.objective):
        with_m = [name for name in losses.OBJECTIVES if "num_outer" in arguments(name)]
        raise UserError(
            f"--m={config.m} does not go with --objective={config.objective}; objectives that have "
            f"it: {', '.join(with_m)}."
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
            f"to 1 in float32; got {configs.flag_text(partition)!r}."
        ) from None


def _check_objective(config: Config) -> None:
    """Raises a UserError for settings that the objective cannot be computed with."""
    settings = configs.own_settings(config)
    entry = losses.CATALOGUE.get(config.objective)
    if "num_outer" in arguments(config.objective) and config.m < 2:
        raise UserError(
            f"--objective={config.objective} needs --m of at least 2, e.g. --m=8 (with one repeat "
            f"it is iwae); got {config.m}."
        )
    _check_layers(config)
    model_checks.check_objective(config)
    if entry is not None and entry.kind == catalogue.WHOLE_BATCH and config.batch_size < 2:
        raise UserError(
            f"--objective={config.objective} compares the images of a batch, and needs "
            f"--batch_size of at least 2; got {config.batch_size}."
        )
    group_size, latent_dims = settings.get("group_size"), settings.get("latent_dims")
    if group_size is not None and settings["kl"] == "mc" and group_size != sum(latent_dims):
        raise UserError(
            f"--group_size must be all latent dimensions, {sum(latent_dims)}, with --kl=mc, which "
            f"estimates one KL of them together; got {group_size}."
        )
    if group_size is not None and latent_dims and latent_dims[0] % group_size:
        raise UserError(
            f"--group_size must divide the latent dimensions, {latent_dims[0]}; got {group_size}."
        )
    order = settings.get("order")
    if order is None:
        return
    # The baseline of score_loo is computed without one draw.
    draws = config.k - 1 if config.estimator == "score_loo" else config.k
    if order >= draws:
        raise UserError(
            f"--order must be below the number of draws, {draws}, since the jackknife leaves out "
            f"that many; got {order}."
        )


def _check_layers(config: Config) -> None:
    """Raises a UserError for settings that do not fit the number of stochastic layers."""
    settings = configs.own_settings(config)
    latent_dims = settings.get("latent_dims", ())
    layers = len(latent_dims)
    if layers == 1 and "upper_hidden_dims" in configs.non_defaults(config):
        raise UserError(
            "--upper_hidden_dims needs two or more --latent_dims, since it is between stochastic "
            "layers."
        )
    entry = losses.CATALOGUE.get(config.objective)
    is_of_one_layer = entry is not None and entry.kind in _ONE_LAYER
    if layers > 1 and is_of_one_layer and config.objective != "lambda_vae":
        raise UserError(
            f"--objective={config.objective} needs one stochastic layer, since its regularizer is "
            f"one of a single layer's z; got --latent_dims={configs.flag_text(latent_dims)}."
        )
    if layers > 1 and settings.get("kl") == "analytic":
        raise UserError(
            f"--objective={config.objective} with --kl=analytic needs one stochastic layer, since "
            f"the KL of {layers} has no closed form; use --kl=mc."
        )


def _check_estimator(config: Config) -> None:
    """Raises a UserError for an estimator that the objective or the model family does not take."""
    name, objective = config.estimator, f"--objective={config.objective}"
    of_objective = estimators_of(config.objective, config.objective_options)
    valid = configs.estimators(config)
    if of_objective and not valid:
        raise UserError(
            f"{objective} does not go with --model={config.model}, whose latents are discrete: it "
            f"needs draws with a derivative, for {' or '.join(of_objective)}."
        )
    if name is None:
        return
    if not of_objective:
        raise UserError(
            f"--estimator={name} does not go with {objective}, which has a gradient of its own."
        )
    settings = configs.own_settings(config)
    if settings.get("kl") == "analytic" or config.objective in catalogue.KL_BY_DRAWS:
        objective += f" --kl={settings['kl']}"
    if settings.get("alpha") in (-math.inf, math.inf):
        objective += f" --alpha={settings['alpha']}"
    if name in of_objective and name not in valid and name in estimators.FINITE_ESTIMATORS:
        raise UserError(
            f"--estimator={name} sums over all values of z, which are not finitely many in "
            f"--model={config.model}; valid estimators with {objective}: {', '.join(valid)}."
        )
    if name in of_objective and name not in valid and name in estimators.BINARY_ESTIMATORS:
        raise UserError(
            f"--estimator={name} needs binary latents, which --model={config.model} has not; valid "
            f"estimators with {objective}: {', '.join(valid)}."
        )
    if name in of_objective and name not in valid:
        raise UserError(
            f"--estimator={name} differentiates through draws of z, which are discrete in "
            f"--model={config.model}; valid estimators with {objective}: {', '.join(valid)}."
        )
    if name not in valid:
        raise UserError(
            f"--estimator={name} does not go with {objective}; valid estimators: "
            f"{', '.join(valid)}."
        )
    latent_dims = settings.get("latent_dims", ())
    if name == "rebar" and len(latent_dims) > 1:
        raise UserError(
            f"--estimator={name} needs one stochastic layer; got "
            f"--latent_dims={configs.flag_text(latent_dims)}."
        )
    if name in estimators.FINITE_ESTIMATORS and (
        len(latent_dims) > 1 or latent_dims[0] > MOST_UNITS
    ):
        raise UserError(
            f"--estimator={name} needs one stochastic layer of at most {MOST_UNITS} units, over "
            f"whose values it sums; got --latent_dims={configs.flag_text(latent_dims)}."
        )
    draws = config.k * config.m
    if not estimators.has_enough(name, draws):
        others = [e for e in valid if estimators.has_enough(e, draws)]
        raise UserError(
            f"--estimator={name} compares draws, and needs --k of at least 2; got {config.k}. "
            f"For one draw: {', '.join(others)}."
        )


def _check_baseline(config: Config) -> None:
    """Raises a UserError for a learned baseline without the estimator that subtracts it."""
    if config.score_baseline == "none":
        return
    estimator = configs.resolved(config).estimator
    if estimator != "score":
        chosen = f"estimator={estimator}" if estimator else f"objective={config.objective}"
        raise UserError(
            f"--score_baseline={config.score_baseline} needs --estimator=score, which alone "
            f"subtracts it; got --{chosen}."
        )
