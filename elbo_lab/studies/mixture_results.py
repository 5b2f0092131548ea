"""The results of the study mixtures: their file, and the tables made of it."""

from pathlib import Path
from typing import Any

from elbo_lab.reports import documents
from elbo_lab.reports.tables import with_error
from elbo_lab.studies import stored_results
from elbo_lab.studies.mixture_analysis import Analysis
from elbo_lab.sweeps import sweep_reporting

FILE = "mixtures.json"
_CELL = {
    # Values are lists, since stored objects have their fields sorted.
    "values": list[str],
    "log_px": float,
    "standard_error": float | None,
    "over": str | None,
    "steps": int,
    "replicates": int,
}
_PARTS = {"q": str, "log_px": float, "elbo": float, "kl": float, "residual": float}
_KIND = {
    "command": str,
    "devices": list[str],
    "axes": list[str],
    "data": str,
    "components": int,
    "cells": list[_CELL],
    "decomposition": list[_PARTS],
    "path": {"log_px": list[float], "elbo": list[float]},
}


def content(sweep: dict[str, Any], analysis: Analysis) -> dict[str, Any]:
    """The stored results of a sweep and of its first cell's analysis, JSON-ready."""
    done = [cell for cell in sweep["cells"] if stored_results.is_complete(cell)]
    config = sweep["cells"][0]["config"]
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        "components": config["components"],
        "axes": list(sweep["grid"]),
        "cells": [_row(cell) for cell in done],
        "decomposition": analysis.decomposition,
        "path": {
            "log_px": analysis.path.log_px.tolist(),
            "elbo": analysis.path.elbo.tolist(),
        },
    }


def _row(cell: dict[str, Any]) -> dict[str, Any]:
    result = cell["results"]["log_px"]
    return {
        "values": list(cell["values"].values()),
        "log_px": result["mean"],
        "standard_error": result["standard_error"],
        "over": result["over"],
        "steps": cell["steps"],
        "replicates": cell["replicates"],
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def cells_table(results: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of cells."""
    rows = []
    for cell in results["cells"]:
        value = with_error(cell["log_px"], cell["standard_error"])
        rows.append((*cell["values"], value, f"{cell['steps']:,}"))
    return (*results["axes"], "log p(x)", "steps"), rows


def parts_table(results: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of log p(x) = ELBO + KL."""
    rows = [
        (row["q"], *(_decimal(row[name]) for name in ("log_px", "elbo", "kl")), _power(row))
        for row in results["decomposition"]
    ]
    return ("q(z)", "log p(x)", "ELBO(q)", "KL(q || p(z|x))", "largest difference"), rows


def _decimal(value: float) -> str:
    return f"{value:.4f}".replace("-0.0000", "0.0000")  # a KL of zero, within rounding


def _power(row: dict[str, Any]) -> str:
    return f"{row['residual']:.0e}" if row["residual"] else "0"


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the tables."""
    over = " or ".join(dict.fromkeys(cell["over"] for cell in results["cells"] if cell["over"]))
    return [
        f"log p(x): nats per test example of {results['data']}, {results['components']} "
        f"components, exact{f'; +- one standard error over {over}' if over else ''}.",
        f"Devices: {'; '.join(results['devices'])}.",
    ]


PARTS_NOTE = (
    "Means over the test examples, of the first cell's mixture (seed 0). Each number is a sum of "
    "its own over the components; largest difference: of log p(x) and ELBO + KL, on any example."
)


def path_note(results: dict[str, Any]) -> str:
    """The numbers of EM's first iteration, and of the path's end, in words."""
    log_px, elbo = results["path"]["log_px"], results["path"]["elbo"]
    return (
        f"Iteration 1: log p(x) was {log_px[0]:.4f} before it. The M-step raises the bound from "
        f"there to {elbo[0]:.4f}, and the next E-step raises it to log p(x), {log_px[1]:.4f}. "
        f"After {len(elbo)} iterations log p(x) is {log_px[-1]:.4f}, and the last E-step raised "
        f"the bound by {log_px[-1] - elbo[-1]:.1e} (means over the training examples, nats)."
    )


def text(results: dict[str, Any]) -> str:
    """The table of log p(x) = ELBO + KL for a terminal."""
    head, rows = parts_table(results)
    lines = sweep_reporting.aligned([head, *rows])
    return "\n".join([*lines, "", PARTS_NOTE, "", path_note(results)])


def markdown(results: dict[str, Any] | None) -> str:
    """The tables for a document."""
    if results is None:
        return "No study is stored yet."
    head, rows = parts_table(results)
    return "\n\n".join(
        [
            documents.table(*cells_table(results)),
            *notes(results),
            documents.table(head, rows),
            PARTS_NOTE,
            path_note(results),
        ]
    )
