"""`Config`: the settings of a run. Library code reads it, and never the command line's flags.

A stored configuration is one flat dict: shared fields and the settings of the model family, the
objective and the optimizer, by the names of their flags (`to_dict`, `from_dict`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.losses.estimators import DISCRETE_ESTIMATORS, has_enough
from elbo_lab.models.registry import MODELS
from elbo_lab.objective_options import (
    OBJECTIVE_OPTIONS,
    WITHOUT_DRAWS,
    NoOptions,
    arguments,
    estimators_of,
    with_drawn_kl,
)
from elbo_lab.optimizer_options import OPTIMIZER_OPTIONS
from elbo_lab.options import options_of, types_of, values_of


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes: equal configs on one machine give equal bits.

    All model families, objectives and optimizers share the fields; each is a command-line flag of
    the same name, described in `config_sections`. `model_options`, `objective_options` and
    `optimizer_options` hold the settings of what is chosen; None means all of them at their
    defaults. `make` and `replace` take fields and settings alike by name.

    Raises:
      UserError: the model family, the objective or the optimizer is unknown.
      TypeError: the options belong to another family, objective or optimizer.
    """

    # The objective. None means the default: for estimator the objective's, for others the model
    # family's, where objective and k are None again if the family has no objective.
    objective: str | None = None
    k: int | None = None
    m: int = 1
    estimator: str | None = None
    score_baseline: str = "none"
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
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    lr_schedule: str = "cosine"
    warmup_steps: int = 0
    shuffle: bool = True
    batch_gradient: str = "mean"
    optimizer_options: Any = None
    clip_norm: float | None = None
    ema: float = 0.0
    encoder_steps: int = 1
    init_from: str | None = None
    seed: int = 0
    replicates: int = 1
    # Evaluation, logging and checkpoints
    eval_k: int | None = None
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
            "optimizer_options": OPTIMIZER_OPTIONS[
                _known("optimizer", self.optimizer, OPTIMIZER_OPTIONS)
            ],
        }
        default_k = None if objective in WITHOUT_DRAWS else family.k
        filled = {
            "objective": objective,
            "k": default_k if self.k is None else self.k,
            "eval_k": family.eval_k if self.eval_k is None else self.eval_k,
        }
        for name, cls in classes.items():
            options = getattr(self, name)
            filled[name] = cls() if options is None else options
            if type(filled[name]) is not cls:
                raise TypeError(
                    f"{name} must be {cls.__name__} for model={self.model}, objective={objective}, "
                    f"optimizer={self.optimizer}; got {options!r}. configs.replace changes a "
                    "model, an objective or an optimizer."
                )
        for name, value in filled.items():
            object.__setattr__(self, name, value)


# Fields that every configuration has.
SHARED = tuple(f.name for f in dataclasses.fields(Config) if not f.name.endswith("_options"))


def objective_settings(objective: str | None) -> type:
    """The class of an objective's settings; raises UserError if the objective is unknown."""
    if objective is None:
        return NoOptions
    return OBJECTIVE_OPTIONS[_known("objective", objective, OBJECTIVE_OPTIONS)]


def settings_classes() -> dict[str, dict[str, type]]:
    """The fields whose choices have settings of their own: field -> choice -> class of settings.

    A config holds the settings of the choice of `field` as `<field>_options`.
    """
    return {
        "model": {name: family.options for name, family in MODELS.items()},
        "objective": OBJECTIVE_OPTIONS,
        "optimizer": OPTIMIZER_OPTIONS,
    }


def option_classes() -> list[type]:
    """The classes of settings of all families, objectives and optimizers, each once."""
    return list(
        dict.fromkeys(c for by_name in settings_classes().values() for c in by_name.values())
    )


def option_types() -> dict[str, Any]:
    """The type annotations of the settings of all families, objectives and optimizers, by name."""
    return {n: kind for settings in option_classes() for n, kind in types_of(settings).items()}


def owners(name: str) -> tuple[str, list[str]]:
    """The field and those of its choices that have the setting `name`; ("", []) if none has it.

    `owners("momentum")` is ("optimizer", ["sgd"]).
    """
    for field, classes in settings_classes().items():
        if choices := [choice for choice, cls in classes.items() if name in options_of(cls)]:
            return field, choices
    return "", []


def make(**values: Any) -> Config:
    """The config of these shared fields and settings of family, objective and optimizer.

    A setting that is None or absent is at its default, or that of `with_drawn_kl`.

    Raises:
      UserError: neither the family, the objective nor the optimizer has a setting.
    """
    config = Config(**{name: value for name, value in values.items() if name in SHARED})
    settings = {n: v for n, v in values.items() if n not in SHARED and v is not None}
    own = own_settings(config)
    for name, value in settings.items():
        if name not in own:
            raise UserError(_foreign(config, name, value))
    settings = with_drawn_kl(config.model, own, settings)
    changes = {}
    for field in settings_classes():
        defaults = getattr(config, f"{field}_options")
        chosen = {n: v for n, v in settings.items() if n in options_of(defaults)}
        changes[f"{field}_options"] = dataclasses.replace(defaults, **chosen)
    return dataclasses.replace(config, **changes)


def replace(config: Config, **changes: Any) -> Config:
    """The config with some values changed, by name.

    With another model, objective or optimizer, settings at their defaults take the new defaults,
    and the other settings are kept if the new choice has them.

    Raises:
      UserError: neither the family, the objective nor the optimizer has a setting.
    """
    values = non_defaults(config)
    target = Config(
        objective=changes.get("objective", values.get("objective")),
        model=changes.get("model") or config.model,
        optimizer=changes.get("optimizer") or config.optimizer,
    )
    names = (*SHARED, *own_settings(target))
    return make(**{n: v for n, v in values.items() if n in names} | changes)


def resolved(config: Config) -> Config:
    """The config as a run stores it: the default estimator where none is given.

    It is the objective's, or the first of the family's estimators that goes with the objective and
    the draws.
    """
    argument = arguments(config.objective).get("estimator")
    if config.estimator is not None or argument is None:
        return config
    default = argument.default
    if MODELS[config.model].estimators:
        draws = config.k * config.m
        default = next((name for name in estimators(config) if has_enough(name, draws)), None)
    return dataclasses.replace(config, estimator=default)


def estimators(config: Config) -> tuple[str, ...]:
    """The estimators that go with the objective, its settings and the model family.

    In the order of the family's preference if it has one; some may need more draws.
    """
    valid = estimators_of(config.objective, config.objective_options)
    continuous = tuple(name for name in valid if name not in DISCRETE_ESTIMATORS)
    preferred = MODELS[config.model].estimators
    return tuple(name for name in preferred if name in valid) if preferred else continuous


def own_settings(config: Config) -> dict[str, Any]:
    """The settings of the config's model family, objective and optimizer, by name."""
    parts = [values_of(getattr(config, f"{field}_options")) for field in settings_classes()]
    return {name: value for part in parts for name, value in part.items()}


def traced(config: Config) -> dict[str, Any]:
    """The settings that are arguments of the compiled step: numbers, or the texts of courses."""
    parts = [getattr(config, f"{field}_options") for field in settings_classes()]
    return {
        name: getattr(part, name)
        for part in parts
        for name, option in options_of(part).items()
        if option.traced
    }


def all_values(config: Config) -> dict[str, Any]:
    """All values by the names of their flags: shared fields, and settings of what is chosen."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        values |= {field.name: value} if field.name in SHARED else values_of(value)
    return values


def non_defaults(config: Config) -> dict[str, Any]:
    """The model, and the values that differ from the defaults of what is chosen.

    The objective counts as a default if it is the family's default objective, and the optimizer if
    it is a configuration's default one.
    """
    defaults = all_values(
        Config(model=config.model, objective=config.objective, optimizer=config.optimizer)
    )
    defaults["objective"] = MODELS[config.model].objective
    defaults["optimizer"] = Config.optimizer
    different = {n: v for n, v in all_values(config).items() if v != defaults[n]}
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

    Missing fields are at their defaults. A stored None is ignored if the model family, the
    objective and the optimizer have no such setting.

    Raises:
      UserError: this version has no such model family, objective or optimizer, or they have no such
        settings.
    """
    config, unknown = _read(fields)
    if unknown:
        shown_fields = ", ".join(f"{name}={flag_text(value)}" for name, value in unknown.items())
        chosen = f"--model={config.model}"
        chosen += f" with --objective={config.objective}" if config.objective else ""
        if config.optimizer != Config.optimizer:
            chosen += f" with --optimizer={config.optimizer}"
        raise UserError(f"this version has no such settings of {chosen}: {shown_fields}")
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
    values = json.loads(json.dumps(values))
    return values | {n: str(v) for n, v in values.items() if v in (math.inf, -math.inf)}


def _known(flag: str, name: str, choices: Mapping[str, Any]) -> str:
    if name not in choices:
        raise UserError(f"--{flag} must be one of {', '.join(choices)}; got {name!r}.")
    return name


def _foreign(config: Config, name: str, value: Any) -> str:
    """The error message for a setting that what a config chooses does not have."""
    field, choices = owners(name)
    if not field:
        return f"There is no setting --{name}."
    if field != "objective":
        chosen = getattr(config, field)
        return f"--{name} is a setting of --{field}={', '.join(choices)}; got --{field}={chosen}."
    chosen = f"--objective={config.objective}"
    if config.objective is None:
        chosen = f"--model={config.model}, which has no objective"
    return (
        f"--{name}={flag_text(value)} does not go with {chosen}; objectives that have it: "
        f"{', '.join(choices)}."
    )


def _show(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "(none)"
