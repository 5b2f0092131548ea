"""The results of the study collapse: their file, and the table made of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab.reports import documents, sweep_cells, tables
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.studies import collapse_analysis, stored_results
from elbo_lab.studies.collapse_analysis import AXIS, MEASURES
from elbo_lab.sweeps import sweep_reporting
from elbo_lab.training.metrics import read_metrics

FILE = "collapse.json"
# What is drawn over the steps: the mean KL of training batches, and L_K of the first test images.
KL, PROBE = "kl", "test_log_likelihood"
_VALUE = {"mean": float, "standard_error": float | None}
_CURVES = {"kl_steps": list[int], "kl": list, "probe_steps": list[int], "probe": list}
_ROW = {
    "name": str,
    "log_likelihood": _VALUE,
    "over": str | None,
    "difference?": {"mean": float, "low": float, "high": float, "kind": str},
    "elbo": float,
    "kl": float,
    "active_units": float,
    "seconds": float,
    "curves": _CURVES,
    "examples?": int,
} | {f"{name}?": _VALUE for name in MEASURES}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "latent_dim": int,
    "steps": int,
    "batch_size": int,
    "replicates": int,
    "eval_k": int,
    "rows": list[_ROW],
}


def content(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results of a sweep, JSON-ready; None until a cell is trained.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
    """
    done = [cell for cell in sweep["cells"] if stored_results.has_headline(cell)]
    if not done:
        return None
    config = done[0]["config"]
    measured = collapse_analysis.read(path)
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        "latent_dim": config["latent_dims"][0],
        "steps": done[0]["steps"],
        "replicates": config["replicates"],
        **{name: config[name] for name in ("batch_size", "eval_k")},
        "rows": [_row(path, cell) | _measures(cell, measured) for cell in done],
    }


def _row(path: Path, cell: dict[str, Any]) -> dict[str, Any]:
    results = cell["results"]
    row = {
        "name": cell["values"][AXIS],
        "log_likelihood": {name: results["log_likelihood"][name] for name in _VALUE},
        "over": results["log_likelihood"]["over"],
        "elbo": results["elbo"]["mean"],
        "kl": results["kl"]["mean"],
        "active_units": cell["active_units"][0]["mean"],
        "seconds": cell["compiled_seconds"],
        "curves": _curves(path, cell["runs"]),
    }
    if difference := sweep_cells.difference(cell):
        row["difference"] = difference
    return row


def _measures(cell: dict[str, Any], measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the measures over the replicates of a cell; {} if they are not computed yet.

    Standard errors are over replicates, or over the test images of a single one.
    """
    own = [row for row in measured if row["name"] == cell["values"][AXIS]]
    if not own or any(row[name] is None for row in own for name in MEASURES):
        return {}
    row: dict[str, Any] = {"examples": own[0]["examples"]}
    for name in MEASURES:
        row[name] = stored_results.mean_and_error([replicate[name] for replicate in own])
        if len(own) == 1:
            row[name]["standard_error"] = own[0][f"{name}_error"]
    return row


def _curves(path: Path, runs: list[dict[str, Any]]) -> dict[str, list]:
    """KL and L_K over the steps, means over the replicates; values that are not finite are None."""
    kl, probe = ([_curve(path, run, name) for run in runs] for name in (KL, PROBE))
    kl_steps, kl_values = _mean(kl)
    probe_steps, probe_values = _mean(probe)
    return {
        "kl_steps": kl_steps,
        "kl": kl_values,
        "probe_steps": probe_steps,
        "probe": probe_values,
    }


def _curve(path: Path, run: dict[str, Any], name: str) -> dict[int, float]:
    """Step -> value of one replicate, at the steps that have it."""
    return {
        record["step"]: float(np.ravel(record[name])[run["replicate"]])
        for record in read_metrics(path / run["run"])
        if name in record
    }


def _mean(curves: list[dict[int, float]]) -> tuple[list[int], list[float | None]]:
    """The steps that all curves have, and their means there."""
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    means = [float(np.mean([curve[step] for curve in curves])) for step in steps]
    return steps, [mean if np.isfinite(mean) else None for mean in means]


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def head(results: dict[str, Any]) -> tuple[str, ...]:
    """The heads of the table's columns."""
    bound = f"test L_{results['eval_k']}"
    measures = ("I(x; z)", "KL(q(z) || p(z))")
    return ("remedy", bound, "minus none", "ELBO", "KL", *measures, "active units", "s of training")


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table, of texts for `head`."""
    return [_texts(row) for row in results["rows"]]


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        _text(row["log_likelihood"]),
        tables.interval(row["difference"]) if "difference" in row else NOT_APPLICABLE,
        f"{row['elbo']:.2f}",
        f"{row['kl']:.2f}",
        *(_text(row[name]) if name in row else NOT_APPLICABLE for name in MEASURES),
        f"{row['active_units']:.3g}",
        f"{row['seconds']:.0f}",
    )


def _text(value: dict[str, float | None]) -> str:
    return tables.with_error(value["mean"], value["standard_error"])


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the columns."""
    over = " or ".join(dict.fromkeys(row["over"] for row in results["rows"] if row["over"]))
    errors = f"; +- one standard error over {over}" if over else ""
    measures = (
        "I(x; z), the mutual information, and KL(q(z) || p(z)), of the aggregate posterior: of the "
        "test images alone, by one draw of z for each; their sum is KL but for the noise of the "
        "draws."
    )
    numbers = [row["examples"] for row in results["rows"] if "examples" in row]
    if numbers:
        measures += f" I(x; z) is at most log {numbers[0]:,} = {math.log(numbers[0]):.2f}."
    return [
        f"Nats per image of {results['data']}{errors}; minus none: the difference to the first row "
        f"with its interval. {results['steps']:,} steps of {results['batch_size']} images; "
        f"replicates: {results['replicates']}.",
        "KL: KL(q(z|x) || p(z)) of the test images. Active units: of "
        f"{results['latent_dim']} latents, those whose posterior mean has a variance above 0.01 "
        "over the test images.",
        measures,
        f"Devices: {'; '.join(results['devices'])}. Seconds: without compilation.",
    ]


def text(results: dict[str, Any]) -> str:
    """The table for a terminal."""
    return sweep_reporting.with_notes([head(results), *rows(results)], notes(results))


def markdown(results: dict[str, Any] | None) -> str:
    """The table and the figure for a document."""
    if results is None:
        return "No study is stored yet."
    figure = "![KL and L_K over the steps of training, for each remedy](collapse.svg)"
    return "\n\n".join([documents.table(head(results), rows(results)), *notes(results), figure])
