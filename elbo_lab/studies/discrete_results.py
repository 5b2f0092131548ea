"""The results of the study discrete: their file, and the table made of it."""

from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab import configs
from elbo_lab.reports import documents, sweep_cells, tables
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.studies import discrete_analysis, stored_results
from elbo_lab.studies.discrete_analysis import Analysis
from elbo_lab.sweeps import sweep_reporting

FILE = "discrete.json"
# What the test for bias found.
EXACT, UNBIASED, BIASED, OTHER = "exact", "none found", "biased", "another target"
_GRADIENT = {"variance": float, "bias": float, "cosine": float, "verdict": str}
_ROW = {
    "name": str,
    "objective": str,
    "k": int,
    "test": float,
    "standard_error": float | None,
    "over": str | None,
    "difference?": {"mean": float, "low": float, "high": float, "kind": str},
    "train": float,
    "gap": float,
    "milliseconds": float,
    "gradient?": _GRADIENT,
}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "latent_dims": list[int],
    "steps": int,
    "replicates": int,
    "num_train": int,
    "batch_size": int,
    "num_gradients": int,
    "rows": list[_ROW],
}
HEAD = (
    *("way to train", "bound, K", "test log p(x)", "minus exact", "train log p(x)"),
    *("log p(x) - ELBO", "gradient: variance", "bias", "ms a step"),
)


def content(sweep: dict[str, Any], analysis: Analysis) -> dict[str, Any]:
    """The stored results of a sweep and of its analysis, JSON-ready."""
    done = [cell for cell in sweep["cells"] if _name(cell) in analysis.train_log_px]
    config = done[0]["config"]
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        "latent_dims": config["latent_dims"],
        "steps": done[0]["steps"],
        "replicates": config["replicates"],
        "num_train": analysis.num_train,
        "batch_size": analysis.batch_size,
        "num_gradients": discrete_analysis.GRADIENTS,
        "rows": [_row(cell, analysis) for cell in done],
    }


def _name(cell: dict[str, Any]) -> str:
    return cell["values"][discrete_analysis.AXIS]


def _row(cell: dict[str, Any], analysis: Analysis) -> dict[str, Any]:
    name, config, results = _name(cell), cell["config"], cell["results"]
    test = results["log_px"]
    row = {
        "name": name,
        "objective": config["objective"],
        "k": config["k"],
        "test": test["mean"],
        "standard_error": test["standard_error"],
        "over": test["over"],
        "train": float(np.mean(analysis.train_log_px[name])),
        "gap": test["mean"] - results["elbo"]["mean"],
        "milliseconds": 1000 * cell["compiled_seconds"] / cell["steps"],
    }
    if difference := sweep_cells.difference(cell):
        row["difference"] = difference
    if gradient := _gradient(name, config, analysis):
        row["gradient"] = gradient
    return row


def _gradient(name: str, config: dict[str, Any], analysis: Analysis) -> dict[str, Any] | None:
    """The quality of the inference network's gradient; None if it was not measured."""
    if name == discrete_analysis.EXACT:
        return {"variance": 0.0, "bias": 0.0, "cosine": 1.0, "verdict": EXACT}
    quality = analysis.gradients.get(name)
    if quality is None:
        return None
    verdict = BIASED if quality.is_biased else UNBIASED
    if discrete_analysis.has_other_target(configs.from_dict(config)):
        verdict = OTHER
    return {
        "variance": quality.variance,
        "bias": quality.bias,
        "cosine": quality.cosine,
        "verdict": verdict,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table, of texts for `HEAD`."""
    return [_texts(row) for row in results["rows"]]


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['objective']}, {row['k']}",
        tables.with_error(row["test"], row["standard_error"]),
        tables.interval(row["difference"]) if "difference" in row else NOT_APPLICABLE,
        f"{row['train']:.2f}",
        f"{row['gap']:.2f}",
        *_gradient_texts(row.get("gradient")),
        _three_digits(row["milliseconds"]),
    )


def _gradient_texts(gradient: dict[str, Any] | None) -> tuple[str, str]:
    """Variance and bias; the bias as a number only where one was found."""
    if gradient is None:
        return NOT_APPLICABLE, NOT_APPLICABLE
    variance = _three_digits(gradient["variance"])
    if gradient["verdict"] == BIASED:
        return variance, f"{gradient['bias']:.2g} (cosine {gradient['cosine']:.2f})"
    return variance, gradient["verdict"]


def _three_digits(value: float) -> str:
    """Three significant digits, without an exponent where the number is large."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the columns."""
    over = " or ".join(dict.fromkeys(row["over"] for row in results["rows"] if row["over"]))
    units = ",".join(map(str, results["latent_dims"]))
    return [
        f"log p(x): nats per image of {results['data']}, {units} binary units, exact"
        f"{f'; +- one standard error over {over}' if over else ''}; minus exact: the difference to "
        "the first row with its interval; train: all "
        f"{results['num_train']:,} training images. {results['steps']:,} steps of "
        f"{results['batch_size']} images; replicates: {results['replicates']}.",
        "log p(x) - ELBO: KL(q(z|x) || p(z|x)) of the test images (13.3), the ELBO from draws.",
        "Gradient: of the inference network for one batch, at the end of the row "
        f'"{discrete_analysis.POINT}", against the exact gradient g of the ELBO. Variance: summed '
        f"over parameters, over |g|^2, from {results['num_gradients']:,} gradients. Bias: length "
        "of the mean gradient minus g over |g|, and the cosine of their angle, where Hotelling's "
        "test finds one. vimco is measured here on the ELBO, with its K draws.",
        f'"{OTHER}": q follows the sleep or the wake phase, not the ELBO.',
        f"Devices: {'; '.join(results['devices'])}. ms a step: without compilation.",
    ]


def gradients_markdown(results: dict[str, Any] | None) -> str:
    """A table of variance and bias alone, of the estimators of the ELBO's gradient."""
    if results is None:
        return "No study is stored yet."
    rows = [
        (row["name"], str(row["k"]), *_gradient_texts(row["gradient"]))
        for row in results["rows"]
        if row.get("gradient", {}).get("verdict") in (UNBIASED, BIASED)
    ]
    note = (
        f"Gradient of the inference network, the mean ELBO of {results['batch_size']} images of "
        f"{results['data']}, at the end of a run of {results['steps']:,} steps; variance: summed "
        f"over parameters, over the exact gradient's squared norm, from "
        f"{results['num_gradients']:,} gradients; bias: over its norm. From `.venv/bin/"
        f"{results['command']}` ([systems/discrete.md](systems/discrete.md))."
    )
    table = documents.table(("estimator", "K", "variance", "bias"), rows)
    return f"{table}\n\n{note}"


def text(results: dict[str, Any]) -> str:
    """The table for a terminal."""
    return sweep_reporting.with_notes([HEAD, *rows(results)], notes(results))


def markdown(results: dict[str, Any] | None) -> str:
    """The table and the figure for a document."""
    if results is None:
        return "No study is stored yet."
    figure = "![Likelihoods, and noise and bias of gradients, of each way to train](discrete.svg)"
    return "\n\n".join([documents.table(HEAD, rows(results)), *notes(results), figure])
