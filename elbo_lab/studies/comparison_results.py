"""The results of the studies of published comparisons: a small JSON file for each cell, and the
table of our differences to the baseline beside the published ones.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elbo_lab import configs, json_files
from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.evaluation import comparison
from elbo_lab.reports import documents, html_page, sweep_cells, sweep_figures, tables
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.studies import published, stored_results
from elbo_lab.studies.published import Comparison
from elbo_lab.sweeps import sweep_reporting

_KIND = {
    # The axes and their values are lists, since stored objects have their fields sorted.
    "axes": list[str],
    "values": list[str],
    "position": int,
    "protocol": str,
    "budget": float,
    "changes": dict[str, str],
    "log_px": float,
    "standard_error": float | None,
    "over": str | None,
    "steps": int,
    "device": str,
    "config": {"eval_k": int},
    "difference?": {"mean": float, "low": float, "high": float, "kind": str},
}
# What is compared to decide that a stored row has the same result.
_RESULT = ("values", "position", "changes", "log_px", "standard_error", "difference", "steps")


def rows_of_sweep(
    sweep: dict[str, Any], settings: Mapping[str, str], defaults: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The rows of the complete cells, see `stored_results.is_complete`.

    Args:
      sweep: the content of sweep.json.
      settings: flag -> text, what all cells share.
      defaults: the same without flags on the command line; other settings than these are shown.
    """
    own = ("protocol", "budget")
    changes = {
        name: text
        for name, text in settings.items()
        if name not in own and defaults.get(name) != text
    }
    shared = {name: sweep[name] for name in ("elbo_lab", "jax", "date")} | {
        "protocol": settings["protocol"],
        "budget": float(settings["budget"]),
        "changes": changes,
        "command": stored_results.shown_command(sweep["command"]),
        "device": "; ".join(sweep["devices"]),
    }
    return [
        _row_of_cell(cell) | {"position": position} | shared
        for position, cell in enumerate(sweep["cells"])
        if stored_results.is_complete(cell)
    ]


def _row_of_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell of sweep.json that has results, as a row without what all cells share."""
    result = cell["results"][cell["headline"]]
    row = {
        "axes": list(cell["values"]),
        "values": list(cell["values"].values()),
        "log_px": result["mean"],
        "standard_error": result["standard_error"],
        "over": result["over"],
        "unit": f"nats per test image, {result['symbol']}",
        "steps": cell["steps"],
        "training_seconds": cell["training_seconds"],
        "replicates": cell["replicates"],
        "config": cell["config"],
    }
    if difference := sweep_cells.difference(cell):
        row["difference"] = difference
    return row


def write(folder: Path, name: str, row: dict[str, Any]) -> None:
    """Writes a row of the study `name` into a folder, unless the same result is there, whose date
    is kept.

    Raises:
      UserError: the file cannot be written.
    """
    label = re.sub(r"[^\w.-]+", "_", "-".join(row["values"])).strip("_")
    digest = configs.digest(configs.from_dict(row["config"]))
    path = folder / f"{name}-{label}-{row['protocol']}-{row['budget']:g}-{digest}.json"
    old = _read(path) if path.exists() else None
    if old is None or any(old.get(key) != row.get(key) for key in _RESULT):
        stored_results.write(path, row)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the study `name` in a folder, in the order of the table; damaged files are
    skipped with a warning.
    """
    rows = [row for path in sorted(folder.glob(f"{name}-*.json")) if (row := _read(path))]
    return sorted(
        rows,
        key=lambda row: (row["protocol"], -row["budget"], str(row["changes"]), row["position"]),
    )


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a file; None, with a warning, if it is damaged."""
    try:
        return json_files.read(path, _KIND)
    except UserError as error:
        warnings.warn(f"{error}; its cell is left out", DamageWarning, stacklevel=1)
        return None


def order(difference: Mapping[str, Any] | None, sign: float) -> str:
    """Tells if our difference to the baseline has the published sign beyond its interval.

    Args:
      difference: ours, with the ends "low" and "high" of its interval; None if there is none.
      sign: a number with the published sign; 0 if nothing is published.

    Returns:
      "agrees" or "differs"; "open" if the interval has both signs; "-" if nothing compares.
    """
    if difference is None or not sign:
        return NOT_APPLICABLE
    if difference["low"] <= 0 <= difference["high"]:
        return "open"
    return "agrees" if difference["mean"] * sign > 0 else "differs"


def is_comparable(paper: Comparison, config: Mapping[str, Any]) -> bool:
    """True if a cell has the data, the model, the L_K and the draws of the paper."""
    return all(config.get(name) == value for name, value in paper.settings.items())


def head(paper: Comparison, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The head of the table."""
    columns = (*rows[0]["axes"], "protocol", "log p(x)", "minus baseline")
    columns += ("published", "difference", "order")
    return columns + (("published L_64", "gap") if paper.bounds else ())


def texts_of(paper: Comparison, row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts, one for each column of `head`."""
    key, difference = tuple(row["values"]), row.get("difference")
    value = paper.log_px.get(key)
    published_difference = paper.difference(key)
    is_better = key in paper.better
    shown_difference = "> 0" if is_better else NOT_APPLICABLE
    if published_difference is not None:
        shown_difference = f"{published_difference:+.2f}"
    sign = published_difference or float(is_better)
    if not is_comparable(paper, row["config"]):
        sign = 0.0
    texts = (
        *row["values"],
        _protocol(row),
        _value(row),
        _interval(row, difference),
        NOT_APPLICABLE if value is None else f"{value:.2f}",
        shown_difference,
        order(difference, sign),
    )
    if not paper.bounds:
        return texts
    bound = paper.bounds.get(key)
    return texts + ((f"{bound.value:.2f}", f"{bound.gap:.2f}") if bound else (NOT_APPLICABLE,) * 2)


def _protocol(row: dict[str, Any]) -> str:
    """ "fast (0.03), estimator dreg": protocol, budget, and settings that are not the study's."""
    changes = [f"{name} {text or 'not given'}" for name, text in row["changes"].items()]
    return ", ".join([f"{row['protocol']} ({row['budget']:g})", *changes])


def _value(row: dict[str, Any]) -> str:
    error = row["standard_error"]
    is_known = error is not None and math.isfinite(error)
    return f"{row['log_px']:.2f}" + (f" +- {error:.2f}" if is_known else "")


def _interval(row: dict[str, Any], difference: dict[str, Any] | None) -> str:
    """ "+1.74 (1.60, 1.88)"; words in place of a missing difference."""
    if difference is None:
        return "the baseline" if row["position"] == 0 else NOT_APPLICABLE
    return tables.interval(difference)


def notes(paper: Comparison, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Explanations of the columns, as far as the rows need them."""
    bounds = " or ".join(f"L_{k}" for k in sorted({row["config"]["eval_k"] for row in rows}))
    over = " or ".join(dict.fromkeys(row["over"] for row in rows if row["over"]))
    kinds = dict.fromkeys(row["difference"]["kind"] for row in rows if "difference" in row)
    lines = [
        f"log p(x): nats per test image by {bounds}, higher is better"
        + (f"; +- one standard error over {over}." if over else "."),
        "minus baseline: the difference to the first cell of the same sweep with its "
        f"{html_page.LEVEL:.0%} interval"
        + "".join(f", {comparison.COVERS[kind]}" for kind in kinds)
        + ".",
        f"published, difference: {paper.source}. order: our difference has the published sign "
        "(agrees), the other one (differs), or an interval with both (open).",
        f"Devices: {'; '.join(sorted({row['device'] for row in rows}))}.",
    ]
    if paper.bounds:
        lines.insert(3, "gap: the published L_64 minus the published log p(x).")
    if not all(is_comparable(paper, row["config"]) for row in rows):
        lines.append(
            "The order is left out for settings other than the papers': "
            + ", ".join(f"{k} {configs.flag_text(value)}" for k, value in paper.settings.items())
            + "."
        )
    return lines


def figure(paper: Comparison, cells: Sequence[dict[str, Any]]) -> str:
    """SVG of our differences to the baseline and, as open markers, the published ones; "" if no
    cell is compared yet.

    Args:
      paper: the published differences.
      cells: of sweep.json, with results.
    """
    compared = sweep_cells.compared(cells)
    if not compared:
        return ""
    differences = {
        cell["name"]: paper.difference(tuple(cell["values"].values()))
        for cell in compared
        if is_comparable(paper, cell["config"])
    }
    marked = {name: value for name, value in differences.items() if value is not None}
    return sweep_figures.differences(cells, html_page.LEVEL, marked)


def text(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """The table of the study `name` for a terminal."""
    if not rows:
        return "No cell is complete yet."
    paper = published.COMPARISONS[name]
    return sweep_reporting.with_notes(
        [head(paper, rows), *(texts_of(paper, row) for row in rows)], notes(paper, rows)
    )


def markdown(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """The table of the study `name` for a document."""
    if not rows:
        return "No cell is complete yet."
    paper = published.COMPARISONS[name]
    table = documents.table(head(paper, rows), [texts_of(paper, row) for row in rows])
    return "\n\n".join([table, *notes(paper, rows)])
