"""The results of the study information: their file, and the tables made of it."""

import math
import textwrap
from pathlib import Path
from typing import Any

from elbo_lab.reports import documents
from elbo_lab.reports.tables import with_error
from elbo_lab.runs import informing
from elbo_lab.studies import information_analysis, stored_results
from elbo_lab.studies.information_analysis import DIM, OF_RUNS
from elbo_lab.sweeps import sweep_reporting

FILE = "information.json"
_TRAINING = {"latent_dims": str, "epochs": int, "examples": int, "seeds": int}
_TRAINING |= {"elbo": float, "elbo_error": float | None}
_TRAINING |= {f"{name}{end}": float | None for name in OF_RUNS for end in ("", "_error")}
_KIND = {
    "command": str,
    "devices": list[str],
    "data": str,
    "dim": int,
    "laws": list[information_analysis.LAW],
    "gaussians": list[information_analysis.GAUSSIAN],
    "training": list[_TRAINING],
}
_PAIRS = ("InfoNCE", "corrected", "leave-one-out")
LAWS_HEAD = ("law", "sample covariance", "exact I", *_PAIRS)
GAUSSIANS_HEAD = (
    "N",
    "log N",
    "exact I",
    *_PAIRS,
    "InfoNCE, x.z",
    "Barber-Agakov",
    "its exact value",
)
TRAINING_HEAD = ("latents", "epochs", "ELBO", *_PAIRS, "rate", "KL(q(z) || p(z))", "Barber-Agakov")
_Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def content(path: Path, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The stored results of a sweep and its estimates, JSON-ready; None until all are there."""
    stored = information_analysis.read(path)
    done = [cell for cell in sweep["cells"] if stored_results.has_headline(cell)]
    if not (stored and done and stored["laws"] and stored["gaussians"] and stored["runs"]):
        return None
    rows = [_training_row(cell, stored["runs"]) for cell in done]
    return {
        **stored_results.conditions(sweep),
        "data": done[0]["config"]["dataset"],
        "dim": DIM,
        "laws": stored["laws"],
        "gaussians": stored["gaussians"],
        "training": [row for row in rows if row],
    }


def _training_row(cell: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Means over the seeds of a cell; None without estimates of any.

    Standard errors are over seeds, or over the test examples of a single one.
    """
    latents = cell["values"][information_analysis.LATENTS]
    epochs = int(cell["values"][information_analysis.EPOCHS])
    own = [run for run in runs if (run["latent_dims"], run["epochs"]) == (latents, epochs)]
    if not own:
        return None
    elbo = cell["results"]["elbo"]
    row = {"latent_dims": latents, "epochs": epochs, "seeds": len(own)}
    row |= {"examples": own[0]["examples"]}
    row |= {"elbo": elbo["mean"], "elbo_error": elbo["standard_error"]}
    for name in OF_RUNS:
        values = [run[name] for run in own]
        row |= {name: own[0][name], f"{name}_error": own[0][f"{name}_error"]}
        if None in values:
            row[name] = None
        elif len(own) > 1:
            over_seeds = stored_results.mean_and_error(values)
            row |= {name: over_seeds["mean"], f"{name}_error": over_seeds["standard_error"]}
    return row


def read(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if it has none.

    Raises:
      UserError: they cannot be read, or are damaged.
    """
    return stored_results.read(folder / FILE, _KIND)


def laws_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of laws in the plane."""
    rows = [
        (law["law"], _decimal(law["covariance"]), f"{law['exact']:.3f}", *_pairs(law))
        for law in results["laws"]
    ]
    return LAWS_HEAD, rows


def gaussians_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of correlated Gaussians."""
    rows = [
        (
            f"{row['examples']:,}",
            f"{math.log(row['examples']):.2f}",
            f"{row['exact']:g}",
            *_pairs(row),
            _cell(row, "critic"),
            _cell(row, "model"),
            f"{row['model_exact']:.3f}",
        )
        for row in results["gaussians"]
    ]
    return GAUSSIANS_HEAD, rows


def training_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of VAEs while they train."""
    rows = [
        (
            row["latent_dims"],
            str(row["epochs"]),
            _cell(row, "elbo"),
            *_pairs(row),
            *(_cell(row, name) for name in ("rate", "kl", "model")),
        )
        for row in results["training"]
    ]
    return TRAINING_HEAD, rows


def _pairs(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_cell(row, name) for name in informing.ESTIMATES)


def _cell(row: dict[str, Any], name: str) -> str:
    """A value with its standard error."""
    if row[name] is None:
        return "infinite"
    error = row[f"{name}_error"]
    if abs(row[name]) < 5e-4 and error is not None and error < 5e-4:
        return "0.000"  # rounding errors of float32
    return with_error(row[name], error)


def _decimal(value: float) -> str:
    """Three decimals; 0.000 for what rounds to it from below."""
    return "0.000" if abs(value) < 0.0005 else f"{value:.3f}"


def notes(results: dict[str, Any]) -> list[str]:
    """Explanations of the three tables."""
    law, last = results["laws"][0], results["training"][-1]
    over = f"over {last['seeds']} seeds" if last["seeds"] > 1 else "over test images"
    return [
        "Nats; +- one standard error. Two laws with marginals N(0, 1) and covariance 0; means over "
        f"{law['repeats']:,} repeats of N = {law['examples']:,} pairs. InfoNCE: lower bound in "
        "expectation, at most log N. Corrected: its jackknife. Leave-one-out: upper bound in "
        "expectation.",
        f"Correlated Gaussians of {results['dim']} pairs. InfoNCE, x.z: with scores in the place "
        "of log q(z|x). Barber-Agakov: H(z) + E log q(z|x) with the means of q(z|x) a fifth too "
        "near to 0, and the expectation of this bound.",
        f"{last['examples']:,} test images of {results['data']}, one draw z of each; N is all of "
        f"them, log N = {math.log(last['examples']):.2f}; +- {over}. Rate: KL(q(z|x) || p(z)), an "
        "upper bound of I_q(x; z). KL(q(z) || p(z)): the rate minus the corrected estimate. "
        "Barber-Agakov: a lower bound of I_p(x; z), of x and z drawn from the model.",
    ]


def _tables(results: dict[str, Any]) -> list[_Table]:
    return [laws_table(results), gaussians_table(results), training_table(results)]


def text(results: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts = []
    for (head, rows), note in zip(_tables(results), notes(results), strict=True):
        parts += ["\n".join(sweep_reporting.aligned([head, *rows])), textwrap.fill(note, 100)]
    return "\n\n".join(parts)


def markdown(results: dict[str, Any] | None) -> str:
    """The tables for a document."""
    if results is None:
        return "No study is stored yet."
    parts = []
    for (head, rows), note in zip(_tables(results), notes(results), strict=True):
        parts += [documents.table(head, rows), note]
    return "\n\n".join([*parts, f"Devices: {'; '.join(results['devices'])}."])
