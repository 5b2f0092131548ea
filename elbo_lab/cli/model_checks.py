"""Refuses settings of p(x|z), q(z|x) and p(z) that do not fit the data, the objective or each
other, by one sentence with the flag, its value and what is valid.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from elbo_lab import configs
from elbo_lab.configs import Config
from elbo_lab.data import Dataset, Spec, hold_out, is_binary, num_classes
from elbo_lab.errors import UserError
from elbo_lab.losses import catalogue
from elbo_lab.models import MODELS, laws
from elbo_lab.models.conditions import is_conditional
from elbo_lab.models.laws import LIKELIHOODS, Kind
from elbo_lab.objective_options import AUTOENCODER, GAN, WITHOUT_DRAWS
from elbo_lab.options import ONLY_WITH, has_effect, options_of

# Why an objective takes no other q(z|x) or p(z) than the default.
_WITHOUT_PRIOR = {
    AUTOENCODER: "decodes the means of q(z|x) and fits no prior",
    GAN: "has no q(z|x) and fits no prior",
}
# The families that have a discriminator.
GAN_MODELS = ("mlp", "conv")


def check_settings(config: Config) -> None:
    """Raises a UserError for settings of the model's distributions that do not go together."""
    settings, changed = configs.own_settings(config), configs.non_defaults(config)
    likelihood = settings.get("likelihood")
    if likelihood and not LIKELIHOODS[likelihood].binary and config.binarization != "none":
        raise UserError(
            f"--likelihood={likelihood} is for grey levels, and needs --binarization=none; "
            f"got {config.binarization}."
        )
    for name, (other, values) in ONLY_WITH.items():
        if name in changed and not has_effect(name, settings):
            raise UserError(
                f"--{name}={configs.flag_text(changed[name])} needs --{other}="
                f"{' or '.join(values)}; got {settings[other]}."
            )
    if settings.get("posterior") == "lowrank":
        least = min(settings["latent_dims"])
        if settings["posterior_rank"] > least:
            raise UserError(
                f"--posterior_rank must be at most the latent dimensions, {least} (with "
                f"--posterior=full any covariance is possible); got {settings['posterior_rank']}."
            )
    _check_min_kl(settings)
    if settings.get("posterior") == "iaf" and len(settings["latent_dims"]) > 1:
        raise UserError(
            "--posterior=iaf needs one stochastic layer, since estimators would need the inverse "
            f"of every layer; got --latent_dims={configs.flag_text(settings['latent_dims'])}."
        )
    if settings.get("posterior") == "iaf" and settings["prior"] == "vamp":
        raise UserError(
            "--prior=vamp does not go with --posterior=iaf: it mixes densities q(z|u) at other "
            "draws than their own, each of which is a search of as many passes as latent "
            "dimensions; use standard, mixture or flow."
        )
    if settings.get("prior") == "vamp" and len(settings["latent_dims"]) > 1:
        raise UserError(
            "--prior=vamp needs one stochastic layer, since it mixes the q(z|u) of learned inputs "
            f"u; got --latent_dims={configs.flag_text(settings['latent_dims'])}."
        )
    if settings.get("prior") == "vamp" and is_conditional(config.model_options):
        raise UserError(
            "--prior=vamp does not go with --condition=label: it mixes q(z|u), but the inference "
            "network is q(z|u, y), and p(z) has no label; use standard, mixture or flow."
        )


def _check_min_kl(settings: dict[str, Any]) -> None:
    """Raises a UserError for a floor of a KL that is not one of a single layer to N(0, I)."""
    min_kl = settings.get("posterior_min_kl", 0.0)
    if min_kl and settings.get("prior", "standard") != "standard":
        raise UserError(
            f"--posterior_min_kl={min_kl} needs --prior=standard, since it bounds the KL to "
            f"N(0, I); got {settings['prior']}."
        )
    if min_kl and len(settings["latent_dims"]) > 1:
        raise UserError(
            f"--posterior_min_kl={min_kl} needs one stochastic layer, since the lower ones have "
            f"learned priors; got --latent_dims={configs.flag_text(settings['latent_dims'])}."
        )


def check_objective(config: Config) -> None:
    """Raises a UserError for an objective that q(z|x) or p(z) is not made for."""
    settings, objective = configs.own_settings(config), config.objective
    if config.model == "flow":
        _check_noise_bound(settings, objective)
        return
    posterior = settings.get("posterior", "diagonal")
    prior = settings.get("prior", "standard")
    if objective in WITHOUT_DRAWS:
        for name, value, default in (
            ("posterior", posterior, "diagonal"),
            ("prior", prior, "standard"),
            ("posterior_min_kl", settings.get("posterior_min_kl", 0.0), 0.0),
        ):
            if value != default:
                raise UserError(
                    f"--{name}={value} does not go with --objective={objective}, which "
                    f"{_WITHOUT_PRIOR[objective]}; valid: {default}."
                )
    if objective == GAN:
        _check_gan(config)
    if posterior != "diagonal" and objective in catalogue.INDEPENDENT:
        raise UserError(
            f"--objective={objective} needs --posterior=diagonal, since it takes q(z|x) apart into "
            f"its dimensions; got {posterior}."
        )
    if posterior == "iaf" and objective in catalogue.MOMENTS:
        raise UserError(
            f"--objective={objective} needs --posterior=diagonal, full or lowrank, since it takes "
            f"the mean of q(z|x) in closed form, which a flow has not; got {posterior}."
        )
    if posterior == "iaf":
        _check_closed_kl(settings, objective, "posterior", posterior, "from a flow")
    if prior != "standard":
        law = "a flow" if prior == "flow" else "a mixture"
        _check_closed_kl(settings, objective, "prior", prior, f"to {law}")
    if posterior != "diagonal" and objective in catalogue.GROUPED and settings["kl"] != "mc":
        raise UserError(
            f"--objective={objective} needs --posterior=diagonal, since it takes q(z|x) apart into "
            f"its dimensions; got {posterior}. With --kl=mc it takes all of them together."
        )
    if prior in ("mixture", "vamp") and objective == "info_vae":
        raise UserError(
            f"--objective={objective} needs --prior=standard or flow, since it differentiates "
            f"draws of p(z), and which component a draw is from has no derivative; got {prior}."
        )


def _check_noise_bound(settings: dict[str, Any], objective: str) -> None:
    """Raises a UserError for an objective that is no function of log-weights of the noise."""
    entries = catalogue.CATALOGUE.items()
    valid = [name for name, entry in entries if entry.kind == catalogue.LOG_WEIGHTS]
    if objective not in valid:
        raise UserError(
            f"--objective={objective} does not go with --model=flow, whose bounds are functions of "
            f"the log-weights of noise; valid: {', '.join(valid)}."
        )
    if settings.get("kl") == "analytic":
        raise UserError(
            f"--objective={objective} with --kl=analytic does not go with --model=flow, since the "
            "KL of the noise has no closed form; use --kl=mc."
        )


def _check_closed_kl(
    settings: dict[str, Any], objective: str, name: str, value: str, direction: str
) -> None:
    """Raises a UserError for a KL in closed form where there is none, by the flag `name`."""
    valid = {"posterior": "diagonal, full or lowrank", "prior": "standard"}[name]
    if settings.get("kl") == "analytic":
        raise UserError(
            f"--objective={objective} with --kl=analytic needs --{name}={valid}, since the KL "
            f"{direction} has no closed form; use --kl=mc with --{name}={value}."
        )
    if objective in catalogue.CLOSED_KL:
        raise UserError(
            f"--objective={objective} needs --{name}={valid}, since |KL - C| of a KL from draws is "
            f"biased, and the KL {direction} has no closed form; got {value}. With {value} use "
            "--objective=beta_vae, free_bits or free_bits_batch."
        )


def _check_gan(config: Config) -> None:
    """Raises a UserError for a model that has no generator or no discriminator of a GAN."""
    if config.model not in GAN_MODELS:
        reason = "p(x|z) has no mean in closed form, which a generator gives"
        if MODELS[config.model].estimators:
            reason = "latents are discrete"
        raise UserError(
            f"--objective={GAN} needs --model={' or '.join(GAN_MODELS)}; got {config.model}, whose "
            f"{reason}."
        )
    if is_conditional(config.model_options):
        raise UserError(
            f"--condition=label does not go with --objective={GAN}, whose networks see no label; "
            "use --condition=none."
        )
    if getattr(config.model_options, "center_inputs", False):
        raise UserError(
            f"--center_inputs=true does not go with --objective={GAN}, whose discriminator sees "
            "images as they are; use --center_inputs=false."
        )
    latent_dims = config.model_options.latent_dims
    if len(latent_dims) > 1:
        raise UserError(
            f"--objective={GAN} needs one stochastic layer; got "
            f"--latent_dims={configs.flag_text(latent_dims)}."
        )


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises a UserError if p(x|z) is no law of the data."""
    _check_channels(config, dataset)
    name = configs.own_settings(config).get("likelihood")
    if name is None:
        return
    if dataset.kind == "real" and not LIKELIHOODS[name].real:
        valid = _names(config, lambda law: law.real)
        raise UserError(
            f"--likelihood must be {valid} (with --binarization=none) for {dataset.name}, which "
            f"has real numbers; got {name}."
        )
    if config.binarization == "none" and dataset.kind == "image":
        _check_pixels(config, name, dataset)


def check_labels(config: Config, dataset: Dataset) -> None:
    """Raises a UserError if a model that is conditioned on labels lacks them, or training examples
    of a class.
    """
    if not is_conditional(config.model_options):
        return
    kept = hold_out(dataset, config.held_out)
    for split, label in (("training", kept.y_train), ("test", kept.y_test)):
        if label is None:
            raise UserError(
                f"--condition=label needs labels, and the {split} examples of {dataset.name} have "
                "none; use --condition=none."
            )
    classes = num_classes(kept)
    missing = np.flatnonzero(np.bincount(kept.y_train, minlength=classes) == 0)
    if len(missing):
        left = f" with --held_out={config.held_out}" if config.held_out else ""
        raise UserError(
            f"--condition=label needs training examples of every class, 0..{classes - 1}, and "
            f"{dataset.name}{left} has none of class {missing[0]}."
        )


def check_means(config: Config, spec: Spec) -> None:
    """Raises a UserError for an objective that takes the mean of p(x|z), if there is no mean in
    closed form.
    """
    if config.objective not in ("lambda_vae", GAN):
        return
    if "likelihood" not in configs.own_settings(config):
        raise UserError(
            f"--objective={config.objective} needs the mean of p(x|z), which "
            f"--model={config.model} does not have in closed form."
        )
    if not laws.make(config.model_options, spec).has_mean:
        raise UserError(
            f"--objective={config.objective} needs the mean of p(x|z), which "
            f"--likelihood={config.model_options.likelihood} of several colours does not have in "
            "closed form; use discretized_logistic."
        )


def _check_channels(config: Config, dataset: Dataset) -> None:
    """Raises a UserError for a binarization of colours. Binary images are left as they are."""
    if config.binarization == "none" or not _has_colours(dataset):
        return
    if is_binary(dataset.x_train) and is_binary(dataset.x_test):
        return
    remedy = "--binarization=none"
    if "likelihood" in configs.own_settings(config):
        remedy += f" with --likelihood={_likelihoods_of_levels(config, dataset)}"
    raise UserError(
        f"--binarization={config.binarization} is for images of one channel, and those of "
        f"{dataset.name} have {dataset.image_shape[2]}, in grey levels; use {remedy}."
    )


def _check_pixels(config: Config, name: str, dataset: Dataset) -> None:
    """Raises a UserError if the likelihood does not fit the pixels without a binarization."""
    law = LIKELIHOODS[name]
    if law.binary:
        _check_binary_pixels(config, dataset)
        return
    if is_binary(dataset.x_train):
        raise UserError(
            f"--likelihood={name} is for grey levels, but the images of {dataset.name} are binary; "
            "use bernoulli."
        )
    if not law.density and dataset.x_train.dtype != np.uint8:
        raise UserError(
            f"--likelihood={name} is for 8-bit grey levels, but the images of {dataset.name} are "
            f"floats; use {_names(config, lambda law: law.density)}."
        )


def _check_binary_pixels(config: Config, dataset: Dataset) -> None:
    remedy = f"--likelihood={_likelihoods_of_levels(config, dataset)}"
    if not _has_colours(dataset):
        remedy = f"dynamic, fixed or threshold, or {remedy}"
    for split, images in (("training", dataset.x_train), ("test", dataset.x_test)):
        if not is_binary(images):
            raise UserError(
                f"--binarization=none needs binary images for a Bernoulli likelihood, but the "
                f"{split} images of {dataset.name} have grey levels; use {remedy}."
            )


def _has_colours(dataset: Dataset) -> bool:
    """True for images of several channels."""
    shape = dataset.image_shape
    return dataset.kind == "image" and len(shape) == 3 and shape[2] > 1


def _likelihoods_of_levels(config: Config, dataset: Dataset) -> str:
    """The names of the model's laws for the grey levels of a data set."""
    is_float = dataset.x_train.dtype != np.uint8
    return _names(config, lambda law: not law.binary and (law.density or not is_float))


def _names(config: Config, is_valid: Callable[[Kind], bool]) -> str:
    """The names of the model's laws of p(x|z) for which a function is true: "a, b or c"."""
    choices = options_of(config.model_options)["likelihood"].choices
    names = [name for name in choices if is_valid(LIKELIHOODS[name])]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
