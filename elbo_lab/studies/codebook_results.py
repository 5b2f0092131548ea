"""The results of the study codebooks: their file, and the table made of it."""

from pathlib import Path
from typing import Any

from elbo_lab.reports import documents
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.reports.tables import with_error
from elbo_lab.studies import stored_results
from elbo_lab.studies.codebook_analysis import ROW, VQVAE
from elbo_lab.sweeps import sweep_reporting

FILE = "codebooks.json"
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "likelihood": str,
    "epochs": int,
    "batch_size": int,
    "replicates": int,
    "rows": list[ROW],
}
HEAD = (
    *("model", "distortion D", "M log K", "one table", "rate R"),
    *("-(D + M log K)", "-(D + R)", "perplexity"),
)


def content(sweep: dict[str, Any], rates: dict[str, Any]) -> dict[str, Any]:
    """The stored results of a sweep and of what `codebook_analysis` has computed, JSON-ready."""
    config = next(cell["config"] for cell in sweep["cells"] if cell.get("runs"))
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        **{name: config[name] for name in ("likelihood", "epochs", "batch_size", "replicates")},
        "rows": rates["rows"],
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table, of texts for HEAD."""
    return [_texts(row) for row in results["rows"]]


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    distortion, rate, bound = (_text(row[name]) for name in ("distortion", "rate", "bound"))
    if row["model"] != VQVAE:
        missing = NOT_APPLICABLE
        name = f"VAE, beta = {row['setting']}"
        return name, distortion, missing, missing, rate, missing, bound, missing
    return (
        f"VQ-VAE, K = {row['setting']}",
        distortion,
        f"{row['fixed_rate']:.2f}",
        _text(row["usage_rate"]),
        rate,
        _text(row["fixed_bound"]),
        bound,
        f"{row['perplexity']:.1f}",
    )


def _text(value: dict[str, float | None]) -> str:
    return with_error(value["mean"], value["standard_error"])


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the columns."""
    over = " or ".join(dict.fromkeys(row["over"] for row in results["rows"] if row["over"]))
    errors = f"; +- one standard error over {over}" if over else ""
    positions = dict.fromkeys(
        str(row["positions"]) for row in results["rows"] if "positions" in row
    )
    return [
        f"Nats per test image of {results['data']} (1 nat = 1.443 bits){errors}. "
        f"Passes: {results['epochs']}, in batches of {results['batch_size']}; replicates: "
        f"{results['replicates']}. p(x|.) is {results['likelihood']}.",
        "D: -log p(x|codes) of the VQ-VAE, -E log p(x|z) of the VAE. R of the VQ-VAE: -log "
        "p(codes) by a table of frequencies for each position, counted on the training images; a "
        "learned prior can have a smaller one. One table: the same by frequencies of all positions "
        "together. M log K: codes of equal length"
        + "".join(f", M = {number}" for number in positions)
        + ". R of the VAE: KL(q(z|x) || p(z)).",
        "-(D + M log K), -(D + R): lower bounds of log p(x); the VAE's is its ELBO. Perplexity: "
        "exp of the entropy of the test images' codes, at most K.",
        f"Devices: {'; '.join(results['devices'])}.",
    ]


def text(results: dict[str, Any]) -> str:
    """The table for a terminal."""
    return sweep_reporting.with_notes([HEAD, *rows(results)], notes(results))


def markdown(results: dict[str, Any] | None) -> str:
    """The table and the figure for a document."""
    if results is None:
        return "No study is stored yet."
    figure = "![Distortion against rate of VQ-VAE and VAE](codebooks.svg)"
    return "\n\n".join([documents.table(HEAD, rows(results)), *notes(results), figure])
