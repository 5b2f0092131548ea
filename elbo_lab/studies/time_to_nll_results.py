"""The results of time_to_nll: a small JSON file for each run, and the tables made from these files.

The file `OUTSIDE` has the runs of another program, which our tools do not write here.
"""

import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elbo_lab import json_files
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.reports import compute_figures, documents
from elbo_lab.reports.compute_figures import Point
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.studies import published, stored_results
from elbo_lab.sweeps import sweep_reporting

PREFIX, OUTSIDE = "time_to_nll-", "time_to_nll-pytorch.json"
PUBLISHED = published.TABLE1["mnist", 1, "iwae", 5].nll
# NLLs whose time is reported, nats per test image by L_5000; the last is the paper's.
THRESHOLDS = (90.0, 88.5, 87.5, 86.5, 86.0, PUBLISHED)
_KIND = {
    "protocol": str,
    "budget": float,
    "seed": int,
    "replicates": int,
    "steps": int,
    "nll": float,
    "standard_error": float | None,
    "over": str | None,
    "train_seconds": float,
    "device": str,
    "eval_k": int,
}
_POINT = {"steps": int, "train_seconds": float, "nll": float, "standard_error": float | None}
_OUTSIDE_KIND = {"name": str, "device": str, "eval_k": int, "points": list[_POINT]}
HEAD = ("protocol", "budget", "steps", "minutes", "NLL")


def rows_of_sweep(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the complete cells, see `stored_results.is_complete`, whose time is known.

    Args:
      sweep: the content of sweep.json.
    """
    shared = {name: sweep[name] for name in ("elbo_lab", "jax", "date")}
    shared["command"] = stored_results.shown_command(sweep["command"])
    shared["device"] = "; ".join(sweep["devices"])
    return [
        row_of_cell(cell) | shared
        for cell in sweep["cells"]
        if is_timed(cell) and stored_results.is_complete(cell)
    ]


def is_timed(cell: dict[str, Any]) -> bool:
    """True if a cell of sweep.json has a finite headline and a known speed.

    The speed of a run that has lost its metrics is unknown.
    """
    return stored_results.has_headline(cell) and cell["compiled_seconds"] is not None


def row_of_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell of sweep.json that `is_timed`, as a row; the sweep's device and date are not in it.

    The NLL is minus the log-likelihood, mean over replicates.
    """
    result, values = cell["results"][cell["headline"]], cell["values"]
    return {
        "protocol": values["protocol"],
        "budget": float(values["budget"]),
        "steps": cell["steps"],
        "nll": -result["mean"],
        "standard_error": result["standard_error"],
        "over": result["over"],
        "unit": f"nats per test image, minus {result['symbol']}",
        "train_seconds": cell["compiled_seconds"],
        "wall_seconds": cell["training_seconds"],
        "eval_k": cell["config"]["eval_k"],
        "replicates": cell["replicates"],
        "seed": cell["config"]["seed"],
        "config": cell["config"],
    }


def write(folder: Path, row: dict[str, Any]) -> None:
    """Writes a row into a folder, unless the same numbers are there, whose date is kept.

    Raises:
      UserError: the file cannot be written.
    """
    name = f"{row['protocol']}-{row['budget']:g}-s{row['seed']}-r{row['replicates']}"
    path = folder / f"{PREFIX}{name}.json"
    if path.exists():
        old = _read(path, _KIND)
        if old and all(old[key] == row[key] for key in ("nll", "train_seconds", "eval_k")):
            return
    stored_results.write(path, row)


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows in a folder, in the order of the table; damaged files are skipped with a warning.

    The points of `OUTSIDE` are rows whose protocol is the name of the program, without a budget.
    """
    rows = []
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        if path.name == OUTSIDE:
            continue
        row = _read(path, _KIND)
        rows += [row] if row else []
    rows.sort(key=lambda row: (_name(row), row["train_seconds"]))
    outside = _read(folder / OUTSIDE, _OUTSIDE_KIND) if (folder / OUTSIDE).exists() else None
    if outside:
        shared = {"protocol": outside["name"], "budget": None, "over": "images"}
        shared |= {name: outside[name] for name in ("device", "eval_k")}
        points = sorted(outside["points"], key=lambda point: point["train_seconds"])
        rows += [shared | point for point in points]
    return rows


def _read(path: Path, kind: dict[str, Any]) -> dict[str, Any] | None:
    """The content of a file; None, with a warning, if it is damaged."""
    try:
        return json_files.read(path, kind)
    except UserError as error:
        warnings.warn(f"{error}; it is left out", DamageWarning, stacklevel=1)
        return None


def by_protocol(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Name of a protocol -> its rows; other seeds and replicates are apart and in the name."""
    protocols: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        protocols.setdefault(_name(row), []).append(row)
    return protocols


def _name(row: dict[str, Any]) -> str:
    """ "fast" or "fast, seed 1": the best of several seeds is not the time of a protocol."""
    seed, replicates = row.get("seed", 0), row.get("replicates", 1)
    parts = [row["protocol"]]
    parts += [f"seed {seed}"] if seed != 0 else []
    parts += [f"{replicates} replicates"] if replicates != 1 else []
    return ", ".join(parts)


def seconds_to(rows: Sequence[dict[str, Any]], threshold: float) -> float | None:
    """The seconds of the cheapest run whose NLL is at most the threshold; None if there is none."""
    passing = [row["train_seconds"] for row in rows if row["nll"] <= threshold]
    return min(passing, default=None)


def times(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table of thresholds as texts: its head, and a row for each protocol."""
    head = ("protocol", *(f"{threshold:g}" for threshold in THRESHOLDS))
    body = []
    for protocol, own in by_protocol(rows).items():
        seconds = [seconds_to(own, threshold) for threshold in THRESHOLDS]
        body.append((protocol, *(NOT_APPLICABLE if s is None else _minutes(s) for s in seconds)))
    return head, body


def runs(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table of runs as texts, one for each column of HEAD."""
    return [
        (
            _name(row),
            NOT_APPLICABLE if row["budget"] is None else f"{row['budget']:g}",
            f"{row['steps']:,}",
            _minutes(row["train_seconds"]),
            _nll(row),
        )
        for row in rows
    ]


def _minutes(seconds: float) -> str:
    """ "0.42", "4.2", "42": minutes to two digits, and whole minutes from ten on."""
    minutes = seconds / 60
    decimals = 0 if minutes >= 10 else 1 if minutes >= 1 else 2
    return f"{minutes:,.{decimals}f}"


def _nll(row: dict[str, Any]) -> str:
    error = row["standard_error"]
    is_known = error is not None and math.isfinite(error)
    return f"{row['nll']:.2f}" + (f" +- {error:.2f}" if is_known else "")


def notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Explanations of the tables."""
    bounds = " or ".join(f"L_{k}" for k in sorted({row["eval_k"] for row in rows}))
    over = " or ".join(dict.fromkeys(row["over"] for row in rows if row["over"]))
    lines = [
        "Minutes of training of the cheapest run whose test NLL is at most the number at the head "
        f"of the column ({NOT_APPLICABLE}: no run passes it). Each run is a run of its own length, "
        "at whose end its learning rate is zero if its protocol lowers it.",
        "Minutes are steps by the median speed of the compiled calls: training without "
        "compilation, checkpoints and evaluation.",
        f"NLL: nats per test image by {bounds}"
        + (f"; +- one standard error over {over}." if over else "."),
        f"Devices: {'; '.join(sorted({row['device'] for row in rows}))}.",
    ]
    outside = dict.fromkeys(row["protocol"] for row in rows if row["budget"] is None)
    lines += [
        f"{name}: one training at a constant learning rate, evaluated on its way. Its minutes are "
        "wall time without evaluation."
        for name in outside
    ]
    return lines


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """SVG of NLL against minutes, a line for each protocol."""
    series = {
        protocol: [Point(r["train_seconds"] / 60, r["nll"], r["standard_error"]) for r in own]
        for protocol, own in by_protocol(rows).items()
    }
    return compute_figures.time_to_quality(series, THRESHOLDS[:-1], PUBLISHED)


def text(rows: Sequence[dict[str, Any]]) -> str:
    """The tables for a terminal."""
    if not rows:
        return "No run is complete yet."
    head, body = times(rows)
    wrapped = [textwrap.fill(note, 100, subsequent_indent="  ") for note in notes(rows)]
    tables = [sweep_reporting.aligned([head, *body]), sweep_reporting.aligned([HEAD, *runs(rows)])]
    return "\n".join([*tables[0], "", *tables[1], "", *wrapped])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The tables for a document."""
    if not rows:
        return "No run is complete yet."
    head, body = times(rows)
    tables = [documents.table(head, body), documents.table(HEAD, runs(rows))]
    return "\n\n".join([*tables, *notes(rows)])
