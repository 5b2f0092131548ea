"""The results of the study features: their file, and the table made of it."""

from pathlib import Path
from typing import Any

from elbo_lab.reports import documents
from elbo_lab.reports.tables import with_error
from elbo_lab.studies import feature_analysis, stored_results
from elbo_lab.sweeps import sweep_reporting

FILE = "features.json"
_ROW = {
    "method": str,
    "labels": int,
    "accuracy": float,
    "standard_error": float | None,
    "seeds": int,
}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "train": int,
    "test": int,
    "rows": list[_ROW],
}


def rows_of(probed: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean and standard error over seeds of each method with each number of labels.

    Args:
      probed: the content of probes.json.

    Returns:
      Rows in the order of the methods, then of the numbers. The standard error is None for one
      seed.
    """
    values: dict[tuple[str, int], list[float]] = {}
    for row in probed["rows"]:
        values.setdefault((row["method"], row["labels"]), []).append(row["accuracy"])
    order = feature_analysis.METHODS
    rows = []
    for method, labels in sorted(values, key=lambda pair: (order.index(pair[0]), pair[1])):
        own = values[method, labels]
        accuracy = stored_results.mean_and_error(own)
        row = {"method": method, "labels": labels, "accuracy": accuracy["mean"]}
        rows.append(row | {"standard_error": accuracy["standard_error"], "seeds": len(own)})
    return rows


def content(sweep: dict[str, Any], probed: dict[str, Any]) -> dict[str, Any]:
    """The stored results of a sweep and its probes, JSON-ready."""
    return {
        **stored_results.conditions(sweep),
        **{name: probed[name] for name in ("data", "train", "test")},
        "rows": rows_of(probed),
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def table(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table: a row for each method, a column for each number of labels."""
    numbers = sorted({row["labels"] for row in rows})
    texts = {(row["method"], row["labels"]): _percent(row) for row in rows}
    methods = dict.fromkeys(row["method"] for row in rows)
    body = [(method, *(texts.get((method, n), "") for n in numbers)) for method in methods]
    return ("", *(f"{number:,} labels" for number in numbers)), body


def _percent(row: dict[str, Any]) -> str:
    error = row["standard_error"]
    return with_error(100 * row["accuracy"], None if error is None else 100 * error)


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the table."""
    seeds = max(row["seeds"] for row in results["rows"])
    error = f"; +- one standard error over {seeds} seeds" if seeds > 1 else ""
    return [
        f"Accuracy, per cent of the {results['test']:,} test examples of {results['data']}{error}. "
        "A seed draws the labelled examples, in equal numbers of each class, and trains the "
        f"encoders on all {results['train']:,} examples without labels."
    ]


def text(results: dict[str, Any]) -> str:
    """The table for a terminal."""
    head, body = table(results["rows"])
    return "\n".join([*sweep_reporting.aligned([head, *body]), "", *notes(results)])


def markdown(results: dict[str, Any] | None) -> str:
    """The table for a document."""
    if results is None:
        return "No study is stored yet."
    devices = f"Devices: {'; '.join(results['devices'])}."
    return "\n\n".join([documents.table(*table(results["rows"])), *notes(results), devices])
