"""Successive halving: a candidate's epochs, what its rungs measured, and who goes on."""

import math
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from elbo_lab.studies.study import Rung, Study, Texts
from elbo_lab.sweeps import sweep_results
from elbo_lab.sweeps.grid import Cell


class Candidate(NamedTuple):
    """A cell of a study with rungs, before it is trained."""

    name: str
    settings: Texts  # flag -> text, besides what all candidates share
    cells: tuple[Cell, ...]  # its cell in each rung
    compute: tuple[float, ...]  # of training it in each rung, in reference steps


def epochs(budget: float, cost: float, steps_per_epoch: int) -> int:
    """The epochs that come closest to a budget, at least one: budget / (cost * steps_per_epoch).

    Args:
      budget: compute, in reference steps.
      cost: of one step, in reference steps.
      steps_per_epoch: steps of a pass over the training images.
    """
    return max(1, round(budget / (cost * steps_per_epoch)))


def is_complete(sweep: dict[str, Any]) -> bool:
    """True if every replicate of a rung was trained or has failed.

    Args:
      sweep: the content of the rung's sweep.json.
    """
    return not sweep_results.is_waiting(sweep)


def quantity(sweep: dict[str, Any]) -> dict[str, str] | None:
    """The quantity that candidates are compared by: symbol, title, unit and which is better.

    Returns:
      That of the first cell that has one; None if no cell has results.
    """
    for cell in sweep["cells"]:
        if cell.get("headline"):
            entry = cell["results"][cell["headline"]]
            return {name: entry[name] for name in ("symbol", "title", "unit", "better")}
    return None


def measured(sweep: dict[str, Any], compute: Sequence[float]) -> list[dict[str, Any]]:
    """What a rung measured of each of its candidates.

    Args:
      sweep: the content of the rung's sweep.json.
      compute: of each candidate, in reference steps.

    Returns:
      Dicts with "compute", "failure" ("" if there is none) and, if the candidate has results,
      "steps", "value", "standard_error", "over", "training_seconds" and "compiled_seconds".
    """
    chosen = quantity(sweep)
    entries = []
    for cell, own_compute in zip(sweep["cells"], compute, strict=True):
        entry: dict[str, Any] = {"compute": own_compute, "failure": _failure(cell, chosen)}
        if cell.get("headline"):
            result = cell["results"][cell["headline"]]
            entry |= {
                "value": result["mean"],
                "standard_error": result["standard_error"],
                "over": result["over"],
                "steps": cell["steps"],
                "training_seconds": cell["training_seconds"],
                "compiled_seconds": cell["compiled_seconds"],
            }
        entries.append(entry)
    return entries


def _failure(cell: dict[str, Any], chosen: dict[str, str] | None) -> str:
    """The reason why a cell cannot go on; "" if it can, or if some of its seeds are not trained
    yet. A candidate that fails for one seed fails.

    Args:
      cell: of sweep.json.
      chosen: the quantity of `quantity`.
    """
    if cell["status"] == "skipped":
        return cell["reason"]
    failures = {s: r for s, r in cell["failures"].items() if r != sweep_results.WAITING}
    if failures:
        return "; ".join(f"seed {seed}: {reason}" for seed, reason in failures.items())
    if cell["failures"]:
        return ""
    if not cell["headline"]:
        return "it has no quantity to compare by"
    result = cell["results"][cell["headline"]]
    if result["symbol"] != chosen["symbol"]:
        return f"it is measured by {result['symbol']}, not by {chosen['symbol']}"
    # JSON has no NaN: a value that is not finite was written as null.
    if result["mean"] is None or not math.isfinite(result["mean"]):
        return f"its {result['symbol']} is not finite"
    return ""


def ranking(entries: Sequence[dict[str, Any]], better: str) -> list[int]:
    """The indices of the candidates that have not failed, the best first.

    Of candidates with equal values, the one that is listed first ranks first.

    Args:
      entries: what `measured` returns.
      better: "higher" or "lower".
    """
    sign = {"higher": -1.0, "lower": 1.0}[better]
    finite = [index for index, entry in enumerate(entries) if not entry["failure"]]
    return sorted(finite, key=lambda index: sign * entries[index]["value"])


def content(
    study: Study,
    candidates: Sequence[Candidate],
    sweeps: Sequence[dict[str, Any]],
    rungs_of: Sequence[Sequence[int]],
    command: str,
) -> dict[str, Any]:
    """The content of study.json: every candidate's course through the rungs.

    Args:
      study: with rungs.
      candidates: all of them.
      sweeps: the content of sweep.json of each rung that was begun.
      rungs_of: the indices of the candidates in each of these rungs.
      command: the command line of the study.
    """
    entries = [
        {"name": c.name, "flags": _flags(c.settings), "rungs": [], "eliminated": None, "reason": ""}
        for c in candidates
    ]
    rungs = []
    for number, rung in enumerate(study.halving.rungs):
        has_begun = number < len(sweeps)
        complete = has_begun and is_complete(sweeps[number])
        rungs.append({"budget": rung.budget, "keep": rung.keep, "complete": complete})
        if has_begun:
            own = [entries[index] for index in rungs_of[number]]
            compute = [candidates[index].compute[number] for index in rungs_of[number]]
            _add_rung(own, sweeps[number], compute, rung, number + 1)
    return {
        "study": {"name": study.name, "question": study.question},
        **{name: sweeps[-1][name] for name in ("elbo_lab", "jax", "date", "jobs", "data")},
        "devices": sorted({device for sweep in sweeps for device in sweep["devices"]}),
        "command": command,
        "quantity": quantity(sweeps[0]),
        "rungs": rungs,
        "candidates": entries,
        "complete": rungs[-1]["complete"] or not any(e["eliminated"] is None for e in entries),
    }


def _add_rung(
    entries: Sequence[dict[str, Any]],
    sweep: dict[str, Any],
    compute: Sequence[float],
    rung: Rung,
    number: int,
) -> None:
    """Adds a rung to the entries of its candidates, and who is eliminated if it is complete."""
    results = measured(sweep, compute)
    for entry, result in zip(entries, results, strict=True):
        entry["rungs"].append(result)
    if not is_complete(sweep):
        return
    kept = survivors(sweep, rung.keep)
    chosen = quantity(sweep)
    order = ranking(results, chosen["better"]) if chosen else []
    for index, (entry, result) in enumerate(zip(entries, results, strict=True)):
        if index not in kept:
            entry["eliminated"] = number
            place = f"place {order.index(index) + 1} of {len(entries)}" if index in order else ""
            entry["reason"] = result["failure"] or place


def survivors(sweep: dict[str, Any], keep: int) -> list[int]:
    """The indices of a rung's cells that go on, in the order of the cells: the best `keep`.

    Args:
      sweep: the content of a complete rung's sweep.json.
      keep: number of cells that go on, at most; failed ones never do.
    """
    chosen = quantity(sweep)
    if chosen is None:
        return []
    entries = measured(sweep, [0.0] * len(sweep["cells"]))
    return sorted(ranking(entries, chosen["better"])[:keep])


def _flags(settings: Texts) -> str:
    return shlex.join(f"--{name}={text}" for name, text in settings.items())
