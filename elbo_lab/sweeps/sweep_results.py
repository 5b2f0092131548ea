"""A sweep's numbers, from the runs in its folder: what sweep.json holds and reports show."""

import datetime
import shlex
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import elbo_lab
from elbo_lab import configs, evaluation, training
from elbo_lab.configs import Config
from elbo_lab.evaluation import comparison, quantities
from elbo_lab.reports import results
from elbo_lab.runs import completing, run_files, rundir
from elbo_lab.sweeps import grid, sweep_comparison, sweep_folder
from elbo_lab.sweeps.sweep_comparison import Measured
from elbo_lab.sweeps.sweep_folder import Place, Store
from elbo_lab.training.metrics import read_metrics

# Points of a curve in sweep.json, about.
CURVE_POINTS = 100
# Why a replicate has no numbers that nothing was wrong with.
WAITING = "not trained yet"


def collect(
    cells: Sequence[grid.Cell],
    baseline: int,
    store: Store,
    failed: dict[grid.Group, str],
    command: str,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Everything about a sweep, ready for JSON.

    Args:
      cells: all of the grid's.
      baseline: the index of the one that others are compared with.
      store: the folder's runs.
      failed: why groups of this session failed.
      command: that makes the sweep.
      jobs: how many processes ran at a time, where it is known.
    """
    reasons = {replica: why for group, why in failed.items() for replica in group.replicas}
    wanted = {r for c in cells if c.config for r in training.replicas(c.config)}
    runs = sorted({place.path for r, place in store.done.items() if r in wanted})
    summaries = {path: sweep_folder.summary(path) for path in runs}
    entries, measured = [], {}  # measured: index of a cell with results -> Measured
    for i, cell in enumerate(cells):
        entry, values = _measure(cell, store, summaries, reasons)
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
    """What sweep.json holds before there are results."""
    return collect(cells, baseline, Store({}, []), {}, command)


def command_of(config: Config) -> str:
    """The command that trains one replicate alone."""
    parts = ["python", "-m", "experiments.run"]
    for name, value in configs.given(config).items():
        if (name, value) != ("model", "mlp"):
            parts.append(f"--{name}={configs.shown(value)}")
    return shlex.join(parts)


def _measure(cell, store: Store, summaries, reasons) -> tuple[dict[str, Any], dict]:
    """A cell's entry in sweep.json, and its values: seed -> Evaluation."""
    fields: dict[str, Any] = {"name": cell.name, "values": cell.values}
    if cell.config is None:
        return fields | {"status": "skipped", "reason": cell.reason}, {}
    replicas = training.replicas(cell.config)
    fields |= {
        "config": configs.to_dict(cell.config),
        "command": command_of(replicas[0]),
        "failures": {},
        "runs": [],
    }
    values: dict[int, evaluation.Evaluation] = {}
    for replica in replicas:
        place = store.done.get(replica)
        if place is None:
            fields["failures"][replica.seed] = reasons.get(replica, WAITING)
            continue
        summary = summaries[place.path]
        step = summary["failed_at"][str(place.r)]
        if step >= 0:
            fields["failures"][replica.seed] = f"training diverged: not finite at step {step:,}"
            continue
        found = completing.stored_evaluations(place.path, summary).get(place.r)
        if found is None:
            fields["failures"][replica.seed] = f"{place.path / rundir.EVALUATION} is damaged"
            continue
        if reason := results.not_finite(found):
            fields["failures"][replica.seed] = reason
            continue
        values[replica.seed] = found
        folder = f"{sweep_folder.RUNS}/{place.path.name}"
        fields["runs"].append({"seed": replica.seed, "run": folder, "replicate": place.r})
    fields["status"] = "partly" if fields["failures"] else "done"
    if not values:
        waiting = set(fields["failures"].values()) == {WAITING}
        return fields | {"status": "waiting" if waiting else "failed"}, {}
    places = [store.done[replica] for replica in replicas if replica.seed in values]
    for path in dict.fromkeys(place.path for place in places):
        completing.say_lost_metrics(path, cell.config)
    headline = summaries[places[0].path]["headline"]
    fields["results"] = _averages(cell.config, values)
    fields["headline"] = headline if headline in fields["results"] else None
    if layers := _active_units(values):
        fields["active_units"] = layers
    fields["replicates"] = len(values)
    return fields | _training(cell.config, places, summaries), values


def _averages(config: Config, values: dict[int, evaluation.Evaluation]) -> dict[str, Any]:
    """Quantity -> its mean over replicates and images, and what a reader has to know of it."""
    settings, density = configs.to_dict(config), results.is_density(config)
    found = {}
    for name, quantity in quantities.present(next(iter(values.values()))).items():
        mean, error, over = comparison.mean_and_error({s: e[name] for s, e in values.items()})
        found[name] = {
            **{"mean": mean, "standard_error": error, "over": over},
            "title": quantity.title + (", density" if density and quantity.of_x else ""),
            "symbol": quantities.symbol(quantity, settings),
            "unit": quantity.unit,
            "direction": quantity.direction,
            "better": quantity.better,
            "draws": quantities.num_draws(quantity, settings),
            "compared": quantity.compared,
            "target": quantities.target(quantity, density),
        }
    return found


def _active_units(values: dict[int, evaluation.Evaluation]) -> list[dict[str, Any]]:
    """How many units of each stochastic layer are active, the mean over replicates."""
    first = next(iter(values.values()))
    split = "train" if quantities.layers(first, "train") else "test"
    found = []
    for i, means in enumerate(quantities.layers(first, split)):
        counts = {
            seed: np.sum(
                evaluation.activity(quantities.layers(e, split)[i]) > evaluation.ACTIVE_THRESHOLD,
                keepdims=True,
            )
            for seed, e in values.items()
        }
        mean, error, over = comparison.mean_and_error(counts)
        found.append({"mean": mean, "standard_error": error, "over": over, "of": means.shape[1]})
    return found


def _training(config: Config, places: list[Place], summaries) -> dict[str, Any]:
    """Seconds of training of a replicate, a group's divided among its replicates, and the mean
    course of the loss's first term over them, at the steps that all of them have metrics of.
    """
    name = summaries[places[0].path]["terms"][0]
    title, unit = quantities.term(name, results.is_density(config))
    seconds, curves = [], []
    for path, r in places:
        together = len(summaries[path]["replicas"])
        seconds.append(run_files.timing(summaries[path])[0] / together)
        records = read_metrics(path, (name, *run_files.METRIC_NAMES))
        curves.append({x["step"]: (x["seconds"] / together, np.ravel(x[name])[r]) for x in records})
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    steps = steps[:: max(1, len(steps) // CURVE_POINTS)]
    points = np.array([[curve[step] for step in steps] for curve in curves])
    mean = points.mean(axis=0).reshape(-1, 2)  # [T, 2]
    return {
        "training_seconds": float(np.mean(seconds)),
        "curve": {
            **{"term": name, "title": title, "unit": unit},
            **{"seconds": mean[:, 0].tolist(), "values": mean[:, 1].tolist()},
        },
    }


def _unique_data(summaries) -> list[dict[str, Any]]:
    """The data sets, each with its binarization, once."""
    return list({str(sorted(s["data"].items())): s["data"] for s in summaries}.values())


def _unique(texts) -> list[str]:
    return list(dict.fromkeys(texts))
