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
from elbo_lab.sweeps import grid, sweep_folder
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
    measured = [_measure(cell, store, summaries, reasons) for cell in cells]
    listed = []
    for cell, (fields, values) in zip(cells, measured, strict=True):
        other = measured[baseline][1]
        if values and other:
            fields["difference"] = _differences(cell, cells[baseline], values, other)
        listed.append(fields)
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
        "complete": all(f["status"] in ("done", "skipped") for f in listed),
        "cells": listed,
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
    fields["results"] = _averages(values) | _times(places, summaries)
    return fields, values


def _averages(values: dict[int, evaluation.Evaluation]) -> dict[str, Any]:
    found = {}
    first = next(iter(values.values()))
    for name, quantity in quantities.present(first).items():
        mean, error, over = comparison.mean_and_error({s: e[name] for s, e in values.items()})
        unit = quantity.unit.partition(" ")[0]
        found[name] = {"mean": mean, "standard_error": error, "over": over, "unit": unit}
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
    return found | {"active_units": layers, "replicates": len(values)}


def _times(places: list[Place], summaries) -> dict[str, Any]:
    """Seconds of training of a replicate, a group's divided among its replicates, and the mean
    course of the training bound over them, at the steps that all of them have metrics of.
    """
    seconds, curves = [], []
    for path, r in places:
        together = len(summaries[path]["replicas"])
        seconds.append(run_files.timing(summaries[path])[0] / together)
        term = summaries[path]["terms"][0]
        records = read_metrics(path, (term, *run_files.METRIC_NAMES))
        curves.append({x["step"]: (x["seconds"] / together, np.ravel(x[term])[r]) for x in records})
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    steps = steps[:: max(1, len(steps) // CURVE_POINTS)]
    points = np.array([[curve[step] for step in steps] for curve in curves])
    mean = points.mean(axis=0).reshape(-1, 2)  # [T, 2]
    return {
        "training_seconds": float(np.mean(seconds)),
        "curve": {"seconds": mean[:, 0].tolist(), "training_bound": mean[:, 1].tolist()},
    }


def _differences(cell, other, values, baseline) -> dict[str, Any]:
    """The difference in each compared quantity, or why there is none."""
    if cell is other:
        return {"reason": "the baseline"}
    if reason := _incomparable(cell.config, other.config, set(values) == set(baseline)):
        return {"reason": reason}
    found: dict[str, Any] = {}
    sides = (values, baseline)
    measured = [quantities.present(next(iter(side.values()))) for side in sides]
    settings = [configs.to_dict(c.config) for c in (cell, other)]
    for name, quantity in measured[0].items():
        if not quantity.compared or name not in measured[1]:
            continue
        if len({quantities.num_draws(quantity, own) for own in settings}) > 1:
            continue  # bounds of different K
        own = [{s: e[name] for s, e in side.items()} for side in sides]
        try:
            found[name] = comparison.difference(*own)._asdict()
        except ValueError as error:
            return {"reason": str(error)}
    if not found.get("log_likelihood"):
        found["reason"] = "another eval_k: bounds of different K"
    return found


def _incomparable(config: Config, other: Config, same_seeds: bool) -> str:
    """Why two cells' values are not of the same test images; "" if they are."""

    def test_images(c: Config) -> tuple:
        # Dynamic binarization draws the test images once, as fixed binarization does.
        mode = "fixed" if c.binarization == "dynamic" else c.binarization
        return c.dataset, mode, getattr(c.model_options, "likelihood", None), c.test_draw

    if test_images(config) != test_images(other):
        return "other test images or another likelihood"
    if config.test_draw == "by_seed" and not same_seeds:
        return "test images drawn by other seeds"
    return ""


def _unique_data(summaries) -> list[dict[str, Any]]:
    """The data sets, each with its binarization, once."""
    return list({str(sorted(s["data"].items())): s["data"] for s in summaries}.values())


def _unique(texts) -> list[str]:
    return list(dict.fromkeys(texts))
