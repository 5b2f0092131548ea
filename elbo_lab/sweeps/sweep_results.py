"""The content of sweep.json: a sweep's numbers, from the runs in its folder."""

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import elbo_lab
from elbo_lab import configs, evaluation, training
from elbo_lab.configs import Config
from elbo_lab.data import is_codes
from elbo_lab.evaluation import comparison, quantities
from elbo_lab.reports import results, words
from elbo_lab.runs import completing, run_files, rundir
from elbo_lab.sweeps import grid, sweep_comparison, sweep_folder
from elbo_lab.sweeps.sweep_comparison import Measured
from elbo_lab.sweeps.sweep_folder import Place, Store
from elbo_lab.training.metrics import read_metrics

# Approximate number of points of a curve in sweep.json.
CURVE_POINTS = 100
# The reason why a replicate without an error has no results.
WAITING = "not trained yet"


def collect(
    cells: Sequence[grid.Cell],
    baseline: int,
    store: Store,
    failed: dict[grid.Group, str],
    command: str,
    jobs: int | None = None,
) -> dict[str, Any]:
    """The content of sweep.json.

    Args:
      cells: the whole grid.
      baseline: index of the cell that the others are compared with.
      store: the folder's runs.
      failed: group -> the reason why it failed, in this session.
      command: the command line of the sweep.
      jobs: number of processes at a time, if known.
    """
    reasons = {replica: reason for group, reason in failed.items() for replica in group.replicas}
    wanted = {r for cell in cells if cell.config for r in training.replicas(cell.config)}
    runs = sorted({place.path for replica, place in store.done.items() if replica in wanted})
    summaries = {path: sweep_folder.summary(path) for path in runs}
    entries = []
    measured: dict[int, Measured] = {}  # by index of the cell; only cells with results
    for i, cell in enumerate(cells):
        entry, values = _entry(cell, store, summaries, reasons)
        entries.append(entry)
        if values:
            measured[i] = Measured(cell.config, entry, values)
    if baseline in measured:
        for own in measured.values():
            own.entry["difference"] = sweep_comparison.difference(own, measured[baseline])
    return {
        "elbo_lab": elbo_lab.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "devices": sorted({summary["device"] for summary in summaries.values()}),
        "jobs": jobs,
        "command": command,
        "grid": {name: _unique(c.values[name] for c in cells) for name in cells[0].values},
        "data": _unique_data(summaries.values()),
        "baseline": cells[baseline].name,
        "best": sweep_comparison.best(list(measured.values())),
        "complete": all(entry["status"] in ("done", "skipped") for entry in entries),
        "cells": entries,
    }


def plan(cells: Sequence[grid.Cell], baseline: int, command: str) -> dict[str, Any]:
    """The content of sweep.json before there are results."""
    return collect(cells, baseline, Store({}, []), {}, command)


def is_waiting(sweep: dict[str, Any]) -> bool:
    """True if a replicate of a cell of sweep.json is not trained yet, nor has failed."""
    return any(WAITING in cell.get("failures", {}).values() for cell in sweep["cells"])


def command_of(config: Config) -> str:
    """The command that trains one replicate alone."""
    parts = ["python", "-m", "experiments.run"]
    for name, value in configs.non_defaults(config).items():
        if (name, value) != ("model", "mlp"):
            parts.append(f"--{name}={configs.flag_text(value)}")
    return shlex.join(parts)


def _entry(
    cell: grid.Cell,
    store: Store,
    summaries: dict[Path, dict[str, Any]],
    reasons: dict[Config, str],
) -> tuple[dict[str, Any], dict[int, evaluation.Evaluation]]:
    """A cell's entry in sweep.json, and its values by seed.

    Args:
      cell: one of the grid.
      store: the folder's runs.
      summaries: run directory -> its summary.json.
      reasons: replicate -> the reason why it failed in this session.
    """
    fields: dict[str, Any] = {"name": cell.name, "values": cell.values}
    if cell.config is None:
        return fields | {"status": "skipped", "reason": cell.reason}, {}
    replicas = training.replicas(cell.config)
    places, failures = {}, {}  # by seed
    values: dict[int, evaluation.Evaluation] = {}
    for replica in replicas:
        place = store.done.get(replica)
        if place is None:
            failures[replica.seed] = reasons.get(replica, WAITING)
            continue
        stored, reason = _stored_values(place, summaries[place.path])
        if stored is None:
            failures[replica.seed] = reason
        else:
            places[replica.seed], values[replica.seed] = place, stored
    fields |= {
        "config": configs.to_dict(cell.config),
        "command": command_of(replicas[0]),
        "failures": failures,
        "runs": [
            {"seed": seed, "run": f"{sweep_folder.RUNS}/{place.path.name}", "replicate": place.r}
            for seed, place in places.items()
        ],
        "status": "partly" if failures else "done",
    }
    if not values:
        all_waiting = set(failures.values()) == {WAITING}
        return fields | {"status": "waiting" if all_waiting else "failed"}, {}
    paths = list(dict.fromkeys(place.path for place in places.values()))
    for path in paths:
        completing.warn_of_lost_metrics(path, cell.config)
    headline = summaries[paths[0]]["headline"]
    kind = summaries[paths[0]]["data"]["kind"]
    fields["results"] = _averages(cell.config, kind, values)
    fields["headline"] = headline if headline in fields["results"] else None
    if layers := _active_units(values):
        fields["active_units"] = layers
    fields["replicates"] = len(values)
    return fields | _training(cell.config, list(places.values()), summaries), values


def _stored_values(
    place: Place, summary: dict[str, Any]
) -> tuple[evaluation.Evaluation | None, str]:
    """A replicate's values per example, or None and the reason why it has no valid ones."""
    step = summary["failed_at"][str(place.r)]
    if step >= 0:
        return None, f"training diverged: not finite at step {step:,}"
    values = completing.stored_evaluations(place.path, summary).get(place.r)
    if values is None:
        return None, f"{place.path / rundir.EVALUATION} is damaged"
    reason = results.not_finite(values, summary["data"]["kind"])
    return (None, reason) if reason else (values, "")


def _averages(
    config: Config, kind: str, values: dict[int, evaluation.Evaluation]
) -> dict[str, Any]:
    """Quantity -> its mean over replicates and examples, with its description.

    Args:
      config: the replicates', but for the seed.
      kind: of the data, for the nouns of units.
      values: seed -> values per test example.
    """
    settings, density = configs.to_dict(config), results.is_density(config)
    conditional = results.is_conditional(config)
    averages = {}
    first = next(iter(values.values()))
    for name, measured in quantities.present(first).items():
        quantity = quantities.described(measured, density, conditional)
        if is_codes(config.dataset):
            quantity = quantities.of_codes(quantity, "log_pz_above" in first)
        mean, error, over = comparison.mean_and_error({s: e[name] for s, e in values.items()})
        averages[name] = {
            "mean": mean,
            "standard_error": error,
            "over": over and words.for_kind(over, kind),
            "title": quantity.title,
            "symbol": quantities.symbol(quantity, settings),
            "unit": words.for_kind(quantity.unit, kind),
            "direction": quantity.direction,
            "better": quantity.better,
            "draws": quantities.num_draws(quantity, settings),
            "compared": quantity.compared,
            "target": quantities.target(quantity, density, conditional),
        }
    return averages


def _active_units(values: dict[int, evaluation.Evaluation]) -> list[dict[str, Any]]:
    """The number of active units of each stochastic layer, averaged over replicates."""
    first = next(iter(values.values()))
    split = "train" if quantities.layers(first, "train") else "test"
    layers = []
    for i, means in enumerate(quantities.layers(first, split)):
        counts = {
            seed: np.sum(
                evaluation.activity(quantities.layers(e, split)[i]) > evaluation.ACTIVE_THRESHOLD,
                keepdims=True,
            )
            for seed, e in values.items()
        }
        mean, error, over = comparison.mean_and_error(counts)
        layers.append({"mean": mean, "standard_error": error, "over": over, "of": means.shape[1]})
    return layers


def _training(config: Config, places: list[Place], summaries) -> dict[str, Any]:
    """Seconds of training of a replicate, with compilation and without, and the mean training curve
    of the loss's first term.

    The seconds of a run are divided by its number of replicates. Those without compilation are its
    steps by the median speed of its compiled calls, which leaves out checkpoints and pauses too.
    The curve has the steps of which all replicates have metrics.
    """
    first = summaries[places[0].path]
    name = first["terms"][0]
    title, unit = quantities.term(name, results.is_density(config), results.is_conditional(config))
    seconds, compiled_seconds, curves = [], [], []
    for path, r in places:
        num_replicates = len(summaries[path]["replicas"])
        wall_time, speed = run_files.timing(summaries[path])
        seconds.append(wall_time / num_replicates)
        compiled_seconds.append(summaries[path]["steps"] / speed / num_replicates)
        records = read_metrics(path, (name, *run_files.METRIC_NAMES))
        curves.append(
            {
                record["step"]: (record["seconds"] / num_replicates, np.ravel(record[name])[r])
                for record in records
            }
        )
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    steps = steps[:: max(1, len(steps) // CURVE_POINTS)]
    points = np.array([[curve[step] for step in steps] for curve in curves])  # [R, T, 2]
    mean = points.mean(axis=0).reshape(-1, 2)  # [T, 2]
    return {
        "steps": first["steps"],
        "training_seconds": float(np.mean(seconds)),
        "compiled_seconds": float(np.mean(compiled_seconds)),
        "curve": {
            "term": name,
            "title": title,
            "unit": words.for_kind(unit, first["data"]["kind"]),
            "seconds": mean[:, 0].tolist(),
            "values": mean[:, 1].tolist(),
        },
    }


def _unique_data(summaries) -> list[dict[str, Any]]:
    """The distinct data sets with their binarizations."""
    return list({str(sorted(s["data"].items())): s["data"] for s in summaries}.values())


def _unique(texts) -> list[str]:
    return list(dict.fromkeys(texts))
