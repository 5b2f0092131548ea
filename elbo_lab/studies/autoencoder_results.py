"""The results of the study autoencoder: their file, and the tables made of it."""

import math
from pathlib import Path
from typing import Any

from elbo_lab.reports import documents
from elbo_lab.reports.tables import with_error
from elbo_lab.studies import autoencoder_analysis, stored_results
from elbo_lab.studies.autoencoder_analysis import COMPARED, COVERED, DRAWS, Comparison
from elbo_lab.sweeps import sweep_reporting

FILE = "autoencoder.json"
# Field of a replicate -> the heading of its column.
_COLUMNS = {
    "squared_error": "squared error",
    "nearest": "to the nearest draw",
    "outside": f"codes outside {COVERED:.0%}",
    "log_pz": "log p(z) of codes",
}
_ELBO = "elbo"
_VALUE = {"mean": float, "standard_error": float | None}
_SYSTEM = {"system": str, "replicates": int, "elbo?": _VALUE, **dict.fromkeys(_COLUMNS, _VALUE)}
_COMPARISON = {"system": str, **dict.fromkeys(Comparison._fields, float)}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "variance": float,
    "epochs": int,
    "latent_dim": int,
    "systems": list[_SYSTEM],
    "comparisons": list[_COMPARISON],
}
_Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def content(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results of a sweep, JSON-ready; None until a cell is trained.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
    """
    systems, comparisons = [], []
    for cell in sweep["cells"]:
        replicates = autoencoder_analysis.of_cell(path, cell)
        if not replicates:
            continue
        name = cell["values"]["system"]
        row: dict[str, Any] = {"system": name, "replicates": len(replicates)}
        row |= {
            field: stored_results.mean_and_error([getattr(r, field) for r in replicates])
            for field in _COLUMNS
        }
        if _ELBO in cell["results"]:
            row[_ELBO] = {field: cell["results"][_ELBO][field] for field in _VALUE}
        systems.append(row)
        if replicates[0].comparison is not None:
            comparisons.append({"system": name, **replicates[0].comparison._asdict()})
    if not systems:
        return None
    config = sweep["cells"][0]["config"]
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        "variance": config["likelihood_variance"],
        "epochs": config["epochs"],
        "latent_dim": config["latent_dims"][0],
        "systems": systems,
        "comparisons": comparisons,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def systems_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of systems."""
    rows = [
        (
            system["system"],
            *(_text(system[field], field) for field in _COLUMNS),
            _text(system[_ELBO], _ELBO) if _ELBO in system else "-",
        )
        for system in results["systems"]
    ]
    return ("system", *_COLUMNS.values(), "ELBO"), rows


def _text(value: dict[str, float | None], field: str) -> str:
    """A mean and its standard error, parts as percentages."""
    mean, error = value["mean"], value["standard_error"]
    if field == "outside":
        return f"{100 * mean:.1f}%" + (f" +- {100 * error:.1f}" if error is not None else "")
    return with_error(mean, error)


def comparisons_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of (13.28) beside the ELBO."""
    rows = [
        (
            row["system"],
            f"{row['objective']:.5f}",
            f"{row['scaled_elbo']:.5f}",
            f"{row['difference']:.0e}",
            f"{row['gradient_norm']:.4f}",
            f"{row['gradient_difference']:.0e}",
        )
        for row in results["comparisons"]
    ]
    values = ("J (13.28)", "lambda (ELBO + D/2 log 2 pi lambda)", "largest difference")
    return ("trained as", *values, "|dJ|", "|dJ - lambda dELBO| / |dJ|"), rows


def systems_note(results: dict[str, Any]) -> str:
    """The explanation of the table of systems."""
    latent_dim = results["latent_dim"]
    at_most = -latent_dim / 2 * (math.log(2 * math.pi) + 1)
    replicates = sorted({system["replicates"] for system in results["systems"]})
    over = f"; +- one standard error over {replicates[-1]} replicates" if replicates[-1] > 1 else ""
    return (
        f"{results['data']}, {results['epochs']} epochs, p(x|z) of variance "
        f"{results['variance']:g}{over}. Squared error: per pixel, of a test image and its decoded "
        "code E_q[z|x]. To the nearest draw: per pixel, of a test image and the nearest of "
        f"{DRAWS:,} decoded draws from the prior. Codes outside {COVERED:.0%}: test images whose "
        f"code lies outside of the ball that holds {COVERED:.0%} of the prior, radius "
        f"{autoencoder_analysis.radius(latent_dim):.2f}. log p(z): nats, mean over codes; draws "
        f"from the prior have {at_most:.2f}. ELBO: nats per test image, a density."
    )


COMPARISONS_NOTE = (
    f"The first replicate of each, on {COMPARED} test images with one draw of z: means, the "
    "largest difference of an image, and the gradients by all parameters (float32)."
)


def text(results: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts = ["\n".join(_aligned(systems_table(results))), systems_note(results)]
    if results["comparisons"]:
        parts += ["\n".join(_aligned(comparisons_table(results))), COMPARISONS_NOTE]
    return "\n\n".join(parts)


def _aligned(table: _Table) -> list[str]:
    head, rows = table
    return sweep_reporting.aligned([head, *rows])


def markdown(results: dict[str, Any] | None) -> str:
    """The tables for a document."""
    if results is None:
        return "No study is stored yet."
    return "\n\n".join(
        [
            documents.table(*systems_table(results)),
            systems_note(results),
            documents.table(*comparisons_table(results)),
            COMPARISONS_NOTE,
            f"Devices: {'; '.join(results['devices'])}.",
        ]
    )
