"""The JSON files of a run: their fields, and their readers."""

import math
import typing
from pathlib import Path
from typing import Any

from elbo_lab import configs, json_files
from elbo_lab.configs import Config
from elbo_lab.errors import UserError
from elbo_lab.reports.tables import Result
from elbo_lab.runs import old_versions

CONFIG, SUMMARY, CHECKPOINTS = "config.json", "summary.json", "checkpoints"
# The fields of every line of metrics besides its step and the terms of the loss.
METRIC_NAMES = ("seconds",)
# Names of the results in a summary that belong to no split.
WALL_TIME, SPEED = "wall time of training", "speed"


def _stored_kind(kind: Any) -> Any:
    """The kind of a setting in a file, where infinities are texts."""
    return str | kind if kind is float or float in typing.get_args(kind) else kind


# All are optional, since other versions, model families and objectives have other fields. Settings
# of other objectives than the run's are null in files of version 0.1.
_FIELDS = {
    **{f"{n}?": _stored_kind(typing.get_type_hints(Config)[n]) for n in configs.SHARED},
    **{f"{n}?": _stored_kind(kind) | None for n, kind in configs.option_types().items()},
}
CONFIG_KIND = {"config": _FIELDS, "data_sha256": str, "replicas?": list[_FIELDS]}
_RESULT_KIND = typing.get_type_hints(Result) | {"value": float | None}
_SUMMARY_KIND = {
    **{"elbo_lab": str, "jax": str, "device": str, "steps": int},
    "config": _FIELDS | {"replicates": int},
    **{"terms?": list[str], "headline?": str | None, "figures?": list[str]},
    "measured?": dict[str, list[int]],
    "data": {
        **{"name": str, "binarization": str, "image_shape": list[int]},
        **{"train_images": int, "test_images": int, "kind?": str},
    },
    "failed_at": dict[str, int],
    "failed_replicates": list[int],
    "replicas": list[_FIELDS],
    "results": list[_RESULT_KIND],
}


def read_config(path: Path) -> dict[str, Any]:
    """The content of config.json, or its copy in the newest checkpoint if the file is damaged.

    Its keys are "config", "data_sha256" and, unless the replicates are the config's own seeds,
    "replicas".

    Raises:
      UserError: there is neither; the sentence says what is wrong with config.json.
    """
    try:
        return json_files.read(path / CONFIG, CONFIG_KIND)
    except UserError:
        from elbo_lab.training import checkpoint  # here, since importing JAX takes a second

        try:
            copy = checkpoint.read_note(path / CHECKPOINTS)
        except UserError:
            copy = None
        if copy is None or json_files.fault(copy, CONFIG_KIND):
            raise
        names = [name.removesuffix("?") for name in CONFIG_KIND]
        return {name: copy[name] for name in names if name in copy}


def read_summary(path: Path) -> dict[str, Any]:
    """The content of summary.json, with the fields that earlier versions lacked.

    Raises:
      UserError: it cannot be read, or lacks a field.
    """
    summary = old_versions.completed(json_files.read(path / SUMMARY, _SUMMARY_KIND))
    number = summary["config"]["replicates"]
    replicates = {str(r) for r in range(number)}
    if len(summary["replicas"]) != number or summary["failed_at"].keys() != replicates:
        raise UserError(f"{path / SUMMARY} is damaged: it is not of {number} replicates")
    if not {WALL_TIME, SPEED} <= {row["name"] for row in summary["results"]}:
        raise UserError(f"{path / SUMMARY} is damaged: results lack {WALL_TIME} or {SPEED}")
    return summary


def timing(summary: dict[str, Any]) -> tuple[float, float]:
    """Seconds of training and steps per second in a summary of `read_summary`."""
    # JSON has no NaN: a value that is not finite was written as null.
    values = {
        row["name"]: math.nan if row["value"] is None else row["value"]
        for row in summary["results"]
    }
    return values[WALL_TIME], values[SPEED]
