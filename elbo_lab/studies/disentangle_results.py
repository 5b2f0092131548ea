"""The results of the study disentangle: their file, and the table made of it."""

from pathlib import Path
from typing import Any

from elbo_lab.reports import documents
from elbo_lab.reports.tables import with_error
from elbo_lab.runs import disentangling
from elbo_lab.runs.disentangling import Scores
from elbo_lab.studies import disentangle_analysis, stored_results
from elbo_lab.sweeps import sweep_reporting, sweep_results

FILE = "disentangle.json"
# Column -> its heading: quantities of the run, then scores.
QUANTITIES = {"reconstruction": "E_q log p(x|z)", "kl": "KL"}
SCORES = {name: symbol for name, (_, symbol) in disentangling.TITLES.items()}
_VALUE = {"mean": float, "standard_error": float | None}
_ROW = {
    "objective": str,
    "weight": str,
    "replicates": int,
    **dict.fromkeys((*QUANTITIES, "active", *SCORES), _VALUE),
}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "epochs": int,
    "latent_dim": int,
    "rows": list[_ROW],
}


def content(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results of a sweep, JSON-ready; None while a cell waits, and without scores.

    Args:
      path: the sweep's folder.
      sweep: the content of its sweep.json.
    """
    if sweep_results.is_waiting(sweep):
        return None
    rows, scores = [], disentangle_analysis.read(path)
    for cell in sweep["cells"]:
        replicates = disentangle_analysis.of_cell(cell, scores)
        if not replicates:
            continue
        quantities = {name: cell["results"][name] for name in QUANTITIES}
        rows.append(
            {name: cell["values"][name] for name in ("objective", "weight")}
            | {"replicates": len(replicates)}
            | {name: {field: q[field] for field in _VALUE} for name, q in quantities.items()}
            | {
                name: stored_results.mean_and_error([getattr(r, name) for r in replicates])
                for name in Scores._fields
            }
        )
    if not rows:
        return None
    config = sweep["cells"][0]["config"]
    return {
        **stored_results.conditions(sweep),
        "data": config["dataset"],
        "epochs": config["epochs"],
        "latent_dim": config["latent_dims"][0],
        "rows": rows,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def table(results: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table: a row for each cell."""
    rows = [
        (
            row["objective"],
            row["weight"],
            *(with_error(*row[name].values()) for name in (*QUANTITIES, "active")),
            *(_score(**row[name]) for name in SCORES),
        )
        for row in results["rows"]
    ]
    return ("objective", "weight", *QUANTITIES.values(), "AU", *SCORES.values()), rows


def _score(mean: float, standard_error: float | None) -> str:
    return f"{mean:.3f}" + ("" if standard_error is None else f" +- {standard_error:.3f}")


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the columns."""
    replicates = " or ".join(str(n) for n in sorted({row["replicates"] for row in results["rows"]}))
    return [
        f"{results['latent_dim']} latents, trained on {results['data']}; passes: "
        f"{results['epochs']}, replicates: {replicates}; +- one standard error over them. weight: "
        "beta of beta_vae, whose 1 is the VAE, and of beta_tcvae.",
        "E_q log p(x|z) and KL(q(z|x) || p(z)): nats per test image. AU: active units. Scores of "
        "the means of q(z|x), in 0..1, higher is better: MIG of 20 bins, SAP by accuracies, DCI by "
        "random forests. Chance is 1/5 for the FactorVAE and the beta-VAE score.",
        f"Devices: {'; '.join(results['devices'])}.",
    ]


def text(results: dict[str, Any]) -> str:
    """The table for a terminal."""
    head, rows = table(results)
    return sweep_reporting.with_notes([head, *rows], notes(results))


def markdown(results: dict[str, Any] | None) -> str:
    """The table for a document."""
    if results is None:
        return "No results are stored yet."
    return "\n\n".join([documents.table(*table(results)), *notes(results)])
