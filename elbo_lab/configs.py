"""`Config`: the settings of a run. Library code reads it, and never the command line's flags.

A stored configuration is one flat dict: shared fields and the settings of the model family and of
the objective, by the names of their flags (`to_dict`, `from_dict`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.models.registry import MODELS
from elbo_lab.objective_options import AUTOENCODER, OBJECTIVE_OPTIONS, NoOptions, arguments
from elbo_lab.options import options_of, types_of, values_of


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes: equal configs on one machine give equal bits.

    All model families and objectives share the fields; each is a command-line flag of the same
    name, described in `SECTIONS`. `model_options` and `objective_options` hold the settings of the
    family and of the objective; None means all of them at their defaults. `make` and `replace` take
    fields and settings alike by name.

    Raises:
      UserError: the model family or the objective is unknown.
      TypeError: the options belong to another family or objective.
    """

    # The objective. For objective and k, None means the model family's default, which is again None
    # for a family without an objective; for estimator, the objective's default.
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
    # Evaluation, logging and checkpoints
    eval_k: int = 5000
    au_images: int | None = None
    log_every: int | None = None
    probe_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self):
        family = MODELS[_known("model", self.model, MODELS)]
        objective = family.objective if self.objective is None else self.objective
        classes = {
            "model_options": family.options,
            "objective_options": objective_settings(objective),
        }
        default_k = None if objective == AUTOENCODER else family.k
        filled = {"objective": objective, "k": default_k if self.k is None else self.k}
        for name, cls in classes.items():
            options = getattr(self, name)
            filled[name] = cls() if options is None else options
            if type(filled[name]) is not cls:
                raise TypeError(
                    f"{name} must be {cls.__name__} for model={self.model}, objective={objective}; "
                    f"got {options!r}. configs.replace changes a model or an objective."
                )
        for name, value in filled.items():
            object.__setattr__(self, name, value)


# Fields that every configuration has.
SHARED = tuple(f.name for f in dataclasses.fields(Config) if not f.name.endswith("_options"))

# Descriptions of the shared fields, in the sections of `--help`.
SECTIONS = {
    "What is maximized": {
        "objective": "the objective (if not given, the model family's own)",
        "k": "K, importance draws inside the bound (elbo and beta_vae: draws that are averaged; if "
        "not given, the model family's own)",
        "m": "M, independent repeats of the bound that are averaged (miwae, piwae)",
        "estimator": "the gradient estimator (reparam if not given and the objective takes one); "
        "docs/bounds.md lists the valid ones of each objective",
    },
    "The model": {
        "model": "the model family",
    },
    "The data": {
        "dataset": "{datasets}, another image set of tensorflow-datasets by its name there, or a "
        "path ending in .npz with arrays x_train and x_test (and, if there are labels, y_train and "
        "y_test), or by the names of MedMNIST or dSprites",
        "held_out": "number of training images, the last ones, that are not trained on; for a file "
        "with one split, the number of images drawn once as test images",
        "binarization": "Bernoulli draws at every visit (dynamic), one such draw (fixed), white "
        "from one half on (threshold), or unchanged images (none, for binary images, or with a "
        "likelihood of grey levels)",
        "test_draw": "dynamic binarization of the test images: one draw for all runs, which can "
        "then be compared image by image (common), or a draw by each run's seed (by_seed)",
    },
    "Optimization": {
        "batch_size": "B, images per step",
        "epochs": "passes over the training images",
        "learning_rate": "Adam's learning rate",
        "lr_schedule": "the learning rate's course: constant, by a cosine to zero, or the eight "
        "stages of the IWAE paper scaled to this run's length (burda_rounded: with two digits of "
        "each rate, as its code)",
        "shuffle": "a new order of the images in every pass, instead of their order in the file",
        "batch_gradient": "gradient of the loss's mean or of its sum over the batch; with Adam "
        "the two differ only in the effect of epsilon and of --clip_norm",
        "adam_b1": "Adam's beta_1",
        "adam_b2": "Adam's beta_2",
        "adam_eps": "Adam's epsilon",
        "adam_eps_hat": "add epsilon to the second moment's root before its bias is corrected, not "
        "after (the last formula of section 2 of Adam's paper)",
        "adam_nu_start": "Adam's second moment before the first step",
        "clip_norm": "clip the gradient to this global norm (never if not given)",
        "seed": "seed of initialization, batches and draws; the test images' common binarization "
        "and --binarization=fixed do not depend on it",
        "replicates": "R, runs of the seeds seed .. seed + R - 1 trained in one compiled program",
    },
    "Evaluation, logging and checkpoints": {
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
    """The class of an objective's settings; raises UserError if the objective is unknown."""
    if objective is None:
        return NoOptions
    return OBJECTIVE_OPTIONS[_known("objective", objective, OBJECTIVE_OPTIONS)]


def option_classes() -> list[type]:
    """The classes of settings of all model families and objectives, each once."""
    classes = [family.options for family in MODELS.values()]
    return list(dict.fromkeys([*classes, *OBJECTIVE_OPTIONS.values()]))


def option_types() -> dict[str, Any]:
    """The type annotations of the settings of all model families and objectives, by name."""
    return {n: kind for settings in option_classes() for n, kind in types_of(settings).items()}


def families_with(name: str) -> list[str]:
    """Names of the model families that have the setting `name`."""
    return [model for model, family in MODELS.items() if name in options_of(family.options)]


def objectives_with(name: str) -> list[str]:
    """Names of the objectives that have the setting `name`."""
    return [o for o, settings in OBJECTIVE_OPTIONS.items() if name in options_of(settings)]


def make(**values: Any) -> Config:
    """The config of these shared fields and settings of the model family and the objective.

    A setting that is None or absent is at its default.

    Raises:
      UserError: neither the family nor the objective has a setting.
    """
    config = Config(**{name: value for name, value in values.items() if name in SHARED})
    settings = {n: v for n, v in values.items() if n not in SHARED and v is not None}
    own = own_settings(config)
    for name, value in settings.items():
        if name not in own:
            raise UserError(_foreign(config, name, value))
    changes = {}
    for part in ("model_options", "objective_options"):
        defaults = getattr(config, part)
        names = options_of(defaults)
        changes[part] = dataclasses.replace(
            defaults, **{n: v for n, v in settings.items() if n in names}
        )
    return dataclasses.replace(config, **changes)


def replace(config: Config, **changes: Any) -> Config:
    """The config with some values changed, by name.

    With another model or objective, settings at their defaults take the new defaults, and the other
    settings are kept if the new model or objective has them.

    Raises:
      UserError: neither the family nor the objective has a setting.
    """
    values = non_defaults(config)
    target = Config(
        objective=changes.get("objective", values.get("objective")),
        model=changes.get("model") or config.model,
    )
    names = (*SHARED, *own_settings(target))
    return make(**{n: v for n, v in values.items() if n in names} | changes)


def resolved(config: Config) -> Config:
    """The config as a run stores it: the objective's default estimator where none is given."""
    estimator = arguments(config.objective).get("estimator")
    if config.estimator is not None or estimator is None:
        return config
    return dataclasses.replace(config, estimator=estimator.default)


def own_settings(config: Config) -> dict[str, Any]:
    """The settings of the config's model family and objective, by name."""
    return values_of(config.objective_options) | values_of(config.model_options)


def traced(config: Config) -> dict[str, Any]:
    """The settings that are arguments of the compiled step: numbers, or the texts of courses."""
    options = options_of(config.objective_options) | options_of(config.model_options)
    return {name: v for name, v in own_settings(config).items() if options[name].traced}


def all_values(config: Config) -> dict[str, Any]:
    """All values by the names of their flags: shared fields, settings of family and objective."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        values |= {field.name: value} if field.name in SHARED else values_of(value)
    return values


def non_defaults(config: Config) -> dict[str, Any]:
    """The model, and the values that differ from the defaults of its family and objective.

    The objective counts as a default if it is the family's default objective.
    """
    defaults = all_values(Config(model=config.model, objective=config.objective))
    defaults["objective"] = MODELS[config.model].objective
    different = {
        name: value for name, value in all_values(config).items() if value != defaults[name]
    }
    return {"model": config.model} | different


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON-ready values. Infinities become text, since JSON cannot represent them."""
    return _json_ready(all_values(config))


def flag_text(value: Any) -> str:
    """The text of a value as its flag accepts it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def from_dict(fields: Mapping[str, Any]) -> Config:
    """The config of a dict from `to_dict`, also that of an earlier version.

    Missing fields are at their defaults. A stored None is ignored if the model family and the
    objective have no such setting.

    Raises:
      UserError: this version has no such model family or objective, or they have no such settings.
    """
    config, unknown = _read(fields)
    if unknown:
        shown_fields = ", ".join(f"{name}={flag_text(value)}" for name, value in unknown.items())
        objective = f" with --objective={config.objective}" if config.objective else ""
        raise UserError(
            f"this version has no such settings of --model={config.model}{objective}: "
            f"{shown_fields}"
        )
    return config


def label(config: Config) -> str:
    """The start of a run's name: "iwae-k5", "conv-iwae-k5"; the family if it has no objective."""
    parts = [] if config.model == "mlp" else [config.model]
    if config.objective is not None:
        parts += [config.objective] if config.k is None else [config.objective, f"k{config.k}"]
    return "-".join(parts)


def digest(config: Config) -> str:
    """Eight hexadecimal digits that identify a config in the name of a run directory.

    They depend on model, objective and the values that differ from the defaults, so that a new
    field with a default does not change the names of earlier runs.
    """
    return digest_of(digest_values(config))


def digest_values(config: Config) -> dict[str, Any]:
    """The values that `digest` depends on, JSON-ready."""
    return _json_ready({"objective": config.objective} | non_defaults(config))


def digest_of(values: Any) -> str:
    """Eight hexadecimal digits of the sha256 of JSON-ready values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(config: Config, other: Mapping[str, Any]) -> list[str]:
    """One text "name: VALUE here, VALUE there" for every field that differs in a stored config.

    Args:
      config: the config here.
      other: the stored config there, as a dict; missing fields are at their defaults.
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
    """The config of stored values, and the stored values of settings that it does not have."""

    def from_json(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    shared = {name: from_json(value) for name, value in fields.items() if name in SHARED}
    others = {n: v for n, v in fields.items() if n not in SHARED and v is not None}
    own = own_settings(Config(**shared))
    traced_names = traced(Config(**shared))

    def setting(name: str) -> Any:
        is_infinite = name in traced_names and others[name] in ("inf", "-inf")
        return float(others[name]) if is_infinite else from_json(others[name])

    config = make(**shared, **{name: setting(name) for name in others if name in own})
    return config, {name: value for name, value in others.items() if name not in own}


def _json_ready(values: dict[str, Any]) -> dict[str, Any]:
    fields = json.loads(json.dumps(values))
    infinite = {n: str(v) for n, v in fields.items() if isinstance(v, float) and math.isinf(v)}
    return fields | infinite


def _known(flag: str, name: str, choices: Mapping[str, Any]) -> str:
    if name not in choices:
        raise UserError(f"--{flag} must be one of {', '.join(choices)}; got {name!r}.")
    return name


def _foreign(config: Config, name: str, value: Any) -> str:
    """The error message for a setting that a config's family and objective do not have."""
    if families := families_with(name):
        names = ", ".join(families)
        return f"--{name} is a setting of --model={names}; got --model={config.model}."
    if objectives := objectives_with(name):
        chosen = f"--objective={config.objective}"
        if config.objective is None:
            chosen = f"--model={config.model}, which has no objective"
        return (
            f"--{name}={flag_text(value)} does not go with {chosen}; objectives that have it: "
            f"{', '.join(objectives)}."
        )
    return f"There is no setting --{name}."


def _show(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "(none)"
