"""The one configuration object. Library code reads it and never the command line's flags.

A stored configuration is flat: shared fields and the settings of the model family and of the
objective lie side by side under the names of their flags (`to_dict`, `from_dict`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.models.registry import MODELS
from elbo_lab.objective_options import AUTOENCODER, OBJECTIVE_OPTIONS, NoOptions
from elbo_lab.options import options_of, types_of, values_of


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes: equal configs on one machine give equal bits.

    Fields are what all model families and objectives share; each is a command-line flag of the same
    name, which `SECTIONS` explains. `model_options` and `objective_options` are the settings of the
    family and of the objective, all at their defaults where not given. `make` and `replace` take
    both kinds by name.

    Raises:
      UserError: no such model family or objective.
      TypeError: options of another family or objective.
    """

    # What is maximized. None means the model family's own, and a family that is trained by no
    # objective has none; for the estimator it means the objective's own.
    objective: str | None = None
    k: int | None = None
    m: int = 1
    estimator: str | None = None
    objective_options: Any = None
    # The model
    model: str = "mlp"
    model_options: Any = None
    # The data
    dataset: str = "mnist_small"
    held_out: int = 0
    binarization: str = "dynamic"
    test_draw: str = "common"
    # Optimization
    batch_size: int = 20
    epochs: int = 100
    learning_rate: float = 1e-3
    lr_schedule: str = "cosine"
    shuffle: bool = True
    batch_gradient: str = "mean"
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_eps: float = 1e-4
    adam_eps_hat: bool = False
    adam_nu_start: float = 0.0
    clip_norm: float | None = None
    seed: int = 0
    replicates: int = 1
    # Evaluation and the run's rhythm
    eval_k: int = 5000
    au_images: int | None = None
    log_every: int | None = None
    probe_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self):
        family = MODELS[_known("model", self.model, MODELS)]
        objective = family.objective if self.objective is None else self.objective
        kinds = {
            "model_options": family.options,
            "objective_options": objective_settings(objective),
        }
        own_k = None if objective == AUTOENCODER else family.k
        filled = {"objective": objective, "k": own_k if self.k is None else self.k}
        for name, kind in kinds.items():
            given = getattr(self, name)
            filled[name] = kind() if given is None else given
            if type(filled[name]) is not kind:
                raise TypeError(
                    f"{name} must be {kind.__name__} for model={self.model}, objective="
                    f"{objective}; got {given!r}. configs.replace changes a model or an objective."
                )
        for name, value in filled.items():
            object.__setattr__(self, name, value)


# Fields that every configuration has.
SHARED = tuple(f.name for f in dataclasses.fields(Config) if not f.name.endswith("_options"))

# What each shared field means, in the sections that `--help` prints.
SECTIONS = {
    "What is maximized": {
        "objective": "the objective (if not given, the model family's own)",
        "k": "K, importance draws inside the bound (elbo and beta_vae: draws that are averaged; if "
        "not given, the model family's own)",
        "m": "M, independent repeats of the bound that are averaged (miwae, piwae)",
        "estimator": "the gradient estimator (reparam if not given and the objective takes one); "
        "docs/bounds.md tells which go with an objective",
    },
    "The model": {
        "model": "the model family",
    },
    "The data": {
        "dataset": "{datasets}, another image set of tensorflow-datasets by its name there, or a "
        "path ending in .npz with arrays x_train and x_test (and, if there are labels, y_train and "
        "y_test), or by the names of MedMNIST or dSprites",
        "held_out": "training images, the last ones, that are not trained on; of a file of one "
        "split, images drawn once to be the test images",
        "binarization": "Bernoulli draws at every visit (dynamic), one such draw (fixed), lit from "
        "one half on (threshold), or as they are (none, for binary images, or with a likelihood of "
        "grey levels)",
        "test_draw": "whether dynamic binarization draws the test images in common for all runs, "
        "which then compare image by image, or anew by each run's seed",
    },
    "Optimization": {
        "batch_size": "B, images per step",
        "epochs": "passes over the training images",
        "learning_rate": "Adam's learning rate",
        "lr_schedule": "the learning rate's course: constant, by a cosine to zero, or the eight "
        "stages of the IWAE paper scaled to this run's length (burda_rounded: with two digits of "
        "each rate, as its code)",
        "shuffle": "a new order of the images in every pass, instead of the one they are stored in",
        "batch_gradient": "gradient of the loss's mean or of its sum over the batch; for Adam they "
        "differ by what its epsilon means",
        "adam_b1": "Adam's beta_1",
        "adam_b2": "Adam's beta_2",
        "adam_eps": "Adam's epsilon",
        "adam_eps_hat": "add epsilon to the second moment's root before its bias is corrected, not "
        "after (the last formula of section 2 of Adam's paper)",
        "adam_nu_start": "Adam's second moment before the first step",
        "clip_norm": "clip the gradient to this global norm (never if not given)",
        "seed": "of initialization, batches and draws; the test images' common binarization and "
        "that of --binarization=fixed do not depend on it",
        "replicates": "R, runs of the seeds seed .. seed + R - 1 trained in one compiled program",
    },
    "Evaluation and rhythm": {
        "eval_k": "draws per test image of the log-likelihood estimate",
        "au_images": "training images, the first ones, over which active units are counted (all "
        "test images if not given)",
        "log_every": "steps per compiled call and line of metrics, at most a pass over the data "
        "(if not given, as many as take about 50,000 draws)",
        "probe_every": "steps between measurements of the first test batch during training, at the "
        "end of a compiled call, as curves (never if not given)",
        "checkpoint_every": "steps between checkpoints, which are saved at the end of a compiled "
        "call (if not given, every 20 calls)",
    },
}


def objective_settings(objective: str | None) -> type:
    """The class of an objective's settings.

    Raises:
      UserError: no such objective.
    """
    if objective is None:
        return NoOptions
    return OBJECTIVE_OPTIONS[_known("objective", objective, OBJECTIVE_OPTIONS)]


def option_classes() -> list[type]:
    """The settings of every model family and of every objective."""
    classes = [family.options for family in MODELS.values()]
    return list(dict.fromkeys([*classes, *OBJECTIVE_OPTIONS.values()]))


def option_types() -> dict[str, Any]:
    """The annotation of every setting of any model family or objective, by name."""
    return {n: kind for settings in option_classes() for n, kind in types_of(settings).items()}


def families_with(name: str) -> list[str]:
    """The model families that have a setting."""
    return [model for model, family in MODELS.items() if name in options_of(family.options)]


def objectives_with(name: str) -> list[str]:
    """The objectives that have a setting."""
    return [o for o, settings in OBJECTIVE_OPTIONS.items() if name in options_of(settings)]


def make(**values: Any) -> Config:
    """The config of shared fields and of settings of its model family and objective, by name. A
    setting that is None, or not given, is at its default.

    Raises:
      UserError: a setting that the family and the objective do not have.
    """
    config = Config(**{name: value for name, value in values.items() if name in SHARED})
    given = {n: v for n, v in values.items() if n not in SHARED and v is not None}
    if foreign := [name for name in given if name not in own_settings(config)]:
        raise UserError(_foreign(config, foreign[0], given[foreign[0]]))
    own = {
        part: dataclasses.replace(
            getattr(config, part),
            **{n: v for n, v in given.items() if n in options_of(getattr(config, part))},
        )
        for part in ("model_options", "objective_options")
    }
    return dataclasses.replace(config, **own)


def replace(config: Config, **changes: Any) -> Config:
    """The config with other values, by name. With another model or objective, settings that are at
    their defaults take the new defaults, and others are kept where the new one has them.

    Raises:
      UserError: a setting that the family and the objective do not have.
    """
    kept = given(config)
    wanted = {name: kept.get(name) for name in ("objective", "model")} | changes
    target = Config(objective=wanted["objective"], model=wanted["model"] or config.model)
    names = (*SHARED, *own_settings(target))
    return make(**{n: v for n, v in kept.items() if n in names} | changes)


def own_settings(config: Config) -> dict[str, Any]:
    """The settings of the model family and of the objective."""
    return values_of(config.objective_options) | values_of(config.model_options)


def traced(config: Config) -> dict[str, Any]:
    """The settings that a step reads as arguments: numbers, or the texts of their courses."""
    about = options_of(config.objective_options) | options_of(config.model_options)
    return {name: v for name, v in own_settings(config).items() if about[name].traced}


def flat(config: Config) -> dict[str, Any]:
    """Every value by the name of its flag: shared fields, and the settings of both kinds."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        values |= {field.name: value} if field.name in SHARED else values_of(value)
    return values


def given(config: Config) -> dict[str, Any]:
    """The values that are not the defaults of the config's model family and objective. A family's
    own objective and K count as defaults.
    """
    defaults = flat(Config(model=config.model, objective=config.objective))
    defaults["objective"] = MODELS[config.model].objective
    different = {name: value for name, value in flat(config).items() if value != defaults[name]}
    return {"model": config.model} | different


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON-ready values; infinities as text, for which JSON has no word."""
    return _json_ready(flat(config))


def shown(value: Any) -> str:
    """A field's value as its flag takes it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def from_dict(fields: Mapping[str, Any]) -> Config:
    """The config that `to_dict` made these values of. What an earlier version did not store is at
    its default, and a stored None is ignored where the model family and the objective have no such
    setting.

    Raises:
      UserError: a model family or an objective that this version does not have, or values of
        settings that they do not have.
    """
    config, unknown = _read(fields)
    if unknown:
        shown_fields = ", ".join(f"{name}={shown(value)}" for name, value in unknown.items())
        objective = f" with --objective={config.objective}" if config.objective else ""
        raise UserError(
            f"this version has no such settings of --model={config.model}{objective}: "
            f"{shown_fields}"
        )
    return config


def label(config: Config) -> str:
    """The start of a run's name: "iwae-k5", "conv-iwae-k5", or the family that has no objective."""
    parts = [] if config.model == "mlp" else [config.model]
    if config.objective is not None:
        parts += [config.objective] if config.k is None else [config.objective, f"k{config.k}"]
    return "-".join(parts)


def digest(config: Config) -> str:
    """Eight hexadecimal digits that tell configs apart, for names of run directories. They depend
    on model, objective and what differs from the defaults, so that a new field with a default
    changes the name of no earlier run.
    """
    return digest_of(told_apart_by(config))


def told_apart_by(config: Config) -> dict[str, Any]:
    """The values that tell a config from others, JSON-ready."""
    return _json_ready({"objective": config.objective} | given(config))


def digest_of(values: Any) -> str:
    """Eight hexadecimal digits of any values that JSON can hold."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(config: Config, other: Mapping[str, Any]) -> list[str]:
    """'name: here vs there' for every field in which a config and a stored one differ. What the
    stored one lacks is at its default.
    """
    mine = to_dict(config)
    try:
        stored, unknown = _read(other)
        theirs = to_dict(stored) | unknown
    except UserError:
        theirs = dict(other)
    names = [*mine, *(name for name in theirs if name not in mine)]
    missing = object()
    return [
        f"{name}: {_show(mine, name)} here, {_show(theirs, name)} there"
        for name in names
        if mine.get(name, missing) != theirs.get(name, missing)
    ]


def _read(fields: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The config of stored values, and those that it has no place for."""
    shared = {name: _stored(value) for name, value in fields.items() if name in SHARED}
    others = {n: v for n, v in fields.items() if n not in SHARED and v is not None}
    own = own_settings(Config(**shared))
    traced_names = traced(Config(**shared))

    def value(name: str) -> Any:
        infinite = name in traced_names and others[name] in ("inf", "-inf")
        return float(others[name]) if infinite else _stored(others[name])

    config = make(**shared, **{name: value(name) for name in others if name in own})
    return config, {name: value for name, value in others.items() if name not in own}


def _stored(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _json_ready(values: dict[str, Any]) -> dict[str, Any]:
    fields = json.loads(json.dumps(values))
    infinite = {n: str(v) for n, v in fields.items() if isinstance(v, float) and math.isinf(v)}
    return fields | infinite


def _known(flag: str, name: str, choices: Mapping[str, Any]) -> str:
    if name not in choices:
        raise UserError(f"--{flag} must be one of {', '.join(choices)}; got {name!r}.")
    return name


def _foreign(config: Config, name: str, value: Any) -> str:
    """Why a config cannot have a setting."""
    if families := families_with(name):
        return (
            f"--{name} is a setting of --model={', '.join(families)}; got --model={config.model}."
        )
    if objectives := objectives_with(name):
        chosen = f"--objective={config.objective}"
        if config.objective is None:
            chosen = f"--model={config.model}, which has no objective"
        return (
            f"--{name}={shown(value)} does not go with {chosen}; objectives that have it: "
            f"{', '.join(objectives)}."
        )
    return f"There is no setting --{name}."


def _show(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "(none)"
