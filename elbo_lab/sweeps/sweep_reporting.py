"""The last stage of a sweep: sweep.json, report.html, and the table to print."""

from pathlib import Path
from typing import Any

from elbo_lab.evaluation import comparison
from elbo_lab.files import jsonable, write_atomically, write_summary
from elbo_lab.reports import html_page, sweep_figures
from elbo_lab.reports.tables import number_and_error
from elbo_lab.runs import rundir
from elbo_lab.sweeps import sweep_folder


def report(path: Path, sweep: dict[str, Any]) -> str:
    """Writes the results into the sweep's folder, unless nothing can be written there, and returns
    the table.

    Raises:
      UserError: the disk refuses.
    """
    sweep = jsonable(sweep)
    return "\n\n".join([table(sweep), *write(path, sweep)])


def write(path: Path, sweep: dict[str, Any], answer: html_page.Answer | None = None) -> list[str]:
    """Writes sweep.json, the page and a study's figure, unless nothing can be written there.

    Args:
      path: the sweep's folder.
      sweep: what sweep.json is to hold, JSON-ready.
      answer: what a study's page shows first.

    Returns:
      What was written, as texts for a person.

    Raises:
      UserError: the disk refuses.
    """
    if rundir.is_read_only(path):
        return []
    write_summary(path / sweep_folder.SWEEP, sweep)
    write_atomically(path / sweep_folder.REPORT, html_page.page(sweep, answer).encode())
    lines = [f"report: {path / sweep_folder.REPORT}"]
    if answer and answer.figure:
        figure = sweep_figures.standalone(answer.figure)
        write_atomically(path / sweep_folder.FIGURE, figure.encode())
        lines.append(f"figure: {path / sweep_folder.FIGURE}")
    return ["\n".join(lines)]


def table(sweep: dict[str, Any]) -> str:
    """The cells as plain text, with notes on what the numbers are, and what failed."""
    done = [cell for cell in sweep["cells"] if "results" in cell]
    lines = []
    if done:
        lines += _lines(list(sweep["grid"]), done) + [""] + _notes(sweep, done)
    for cell in sweep["cells"]:
        if cell["status"] == "skipped":
            lines.append(f"skipped: {cell['name']}: {cell['reason']}")
        for seed, reason in cell.get("failures", {}).items():
            lines.append(f"failed: {cell['name']}, seed {seed}: {reason}")
    return "\n".join(lines)


def _lines(axes: list[str], done: list[dict[str, Any]]) -> list[str]:
    draws = {cell["config"]["eval_k"] for cell in done}
    bound = f"L_{draws.pop()}" if len(draws) == 1 else "log-lik."
    rows = [[*axes, "runs", bound, "ELBO", "active", "train s", "minus baseline"]]
    for cell in done:
        found = cell["results"]
        rows.append(
            [
                *cell["values"].values(),
                str(found["replicates"]),
                _value(found["log_likelihood"]),
                _value(found["elbo"]),
                " + ".join(f"{layer['mean']:.3g}" for layer in found["active_units"]),
                f"{found['training_seconds']:.1f}",
                _difference(cell.get("difference", {"reason": "no baseline"})),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = [[text.ljust(w) for text, w in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(text).rstrip() for text in texts]


def _notes(sweep: dict[str, Any], done: list[dict[str, Any]]) -> list[str]:
    over = " or ".join(
        dict.fromkeys(cell["results"]["log_likelihood"]["over"] or "nothing" for cell in done)
    )
    notes = [f"nats per test image; +-: one standard error over {over}"]
    kinds = dict.fromkeys(
        cell["difference"]["log_likelihood"]["kind"]
        for cell in done
        if "log_likelihood" in cell.get("difference", {})
    )
    if kinds:
        notes.append(f"baseline: {sweep['baseline']}; in brackets a 95% confidence interval")
    return notes + [comparison.COVERS[kind] for kind in kinds]


def _value(found: dict[str, Any]) -> str:
    value, error = number_and_error(found["mean"], found["standard_error"])
    return f"{value} +- {error}" if error else value


def _difference(difference: dict[str, Any]) -> str:
    if "log_likelihood" not in difference:
        return difference["reason"]
    return html_page.interval(difference["log_likelihood"]).replace("\N{MINUS SIGN}", "-")
