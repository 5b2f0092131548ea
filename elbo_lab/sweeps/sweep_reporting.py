"""The last stage of a sweep: sweep.json, report.html, and the table to print."""

from pathlib import Path
from typing import Any

from elbo_lab.evaluation import comparison
from elbo_lab.files import jsonable, write_atomically, write_summary
from elbo_lab.reports import html_page, html_parts, sweep_cells, sweep_figures
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
    symbols = sweep_cells.each(sweep_cells.headlines(done), "symbol")
    several = len(symbols) > 1
    others = [
        name
        for name in sweep_cells.other_quantities(done)
        if any(entry["compared"] for entry in sweep_cells.entries(done, name))
    ]
    headings = [sweep_cells.heading(sweep_cells.entries(done, name)) for name in others]
    active = ["active"] if sweep_cells.with_layers(done) else []
    rows = [
        [
            *(*axes, "runs", *(["headline", "by"] if several else symbols or ["headline"])),
            *(*headings, *active, "train s", "minus baseline"),
        ]
    ]
    for cell in done:
        found, headline = cell["results"], sweep_cells.headline(cell)
        beside = [found.get(name) if name != cell["headline"] else None for name in others]
        layers = " + ".join(f"{layer['mean']:.3g}" for layer in cell.get("active_units", []))
        rows.append(
            [
                *cell["values"].values(),
                str(cell["replicates"]),
                _value(headline),
                *(
                    [headline["symbol"] if headline else sweep_cells.NOT_APPLICABLE]
                    if several
                    else []
                ),
                *map(_value, beside),
                *([layers or sweep_cells.NOT_APPLICABLE] if active else []),
                f"{cell['training_seconds']:.1f}",
                _difference(cell),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = [[text.ljust(w) for text, w in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(text).rstrip() for text in texts]


def _notes(sweep: dict[str, Any], done: list[dict[str, Any]]) -> list[str]:
    headlines = sweep_cells.headlines(done)
    units = " or ".join(sweep_cells.each(headlines, "unit")).replace("per image", "per test image")
    notes = []
    if headlines:
        notes.append(f"{units}; +-: one standard error over {sweep_cells.over(headlines)}")
    if len(sweep_cells.each(headlines, "symbol")) > 1:
        notes += sweep_cells.glossary(headlines)
    kinds = dict.fromkeys(sweep_cells.difference(c)["kind"] for c in sweep_cells.compared(done))
    if kinds:
        notes.append(f"baseline: {sweep['baseline']}; in brackets a 95% confidence interval")
    notes += [comparison.COVERS[kind] for kind in kinds]
    return notes + sweep_cells.bounds_beside_values(sweep, done)


def _value(found: dict[str, Any] | None) -> str:
    if found is None:
        return sweep_cells.NOT_APPLICABLE
    value, error = number_and_error(found["mean"], found["standard_error"])
    return f"{value} +- {error}" if error else value


def _difference(cell: dict[str, Any]) -> str:
    if difference := sweep_cells.difference(cell):
        return html_parts.interval(difference).replace("\N{MINUS SIGN}", "-")
    return cell.get("difference", {"reason": "no baseline"})["reason"]
