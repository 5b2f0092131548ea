"""The last stage of a sweep: sweep.json, report.html, and the table to print."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elbo_lab.evaluation import comparison
from elbo_lab.files import jsonable, write_atomically, write_summary
from elbo_lab.reports import html_page, svg_figures, sweep_cells, tables
from elbo_lab.runs import rundir
from elbo_lab.sweeps import sweep_folder


def report(path: Path, sweep: dict[str, Any]) -> str:
    """Writes the results into the sweep's folder, unless it is read-only. Returns the table.

    Raises:
      UserError: a file cannot be written.
    """
    sweep = jsonable(sweep)
    return "\n\n".join([table(sweep), *write(path, sweep)])


def write(path: Path, sweep: dict[str, Any], answer: html_page.Answer | None = None) -> list[str]:
    """Writes sweep.json, the page and a study's figure, unless the folder is read-only.

    Args:
      path: the sweep's folder.
      sweep: the content of sweep.json, JSON-ready.
      answer: the first section of a study's page.

    Returns:
      A text that names the files to look at; nothing if the folder is read-only.

    Raises:
      UserError: a file cannot be written.
    """
    if rundir.is_read_only(path):
        return []
    write_summary(path / sweep_folder.SWEEP, sweep)
    write_atomically(path / sweep_folder.REPORT, html_page.page(sweep, answer).encode())
    lines = [f"report: {path / sweep_folder.REPORT}"]
    if answer and answer.figure:
        figure = svg_figures.standalone(answer.figure)
        write_atomically(path / sweep_folder.FIGURE, figure.encode())
        lines.append(f"figure: {path / sweep_folder.FIGURE}")
    return ["\n".join(lines)]


def table(sweep: dict[str, Any]) -> str:
    """The cells as plain text, with notes on the numbers and a line for each skip and failure."""
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
    """The heading, and a line for each cell that has results."""
    symbols = sweep_cells.distinct(sweep_cells.headlines(done), "symbol")
    with_symbol = len(symbols) > 1  # cells have headlines of different quantities
    with_active_units = bool(sweep_cells.with_layers(done))
    quantities = [
        name
        for name in sweep_cells.other_quantities(done)
        if any(entry["compared"] for entry in sweep_cells.entries(done, name))
    ]
    headings = [*axes, "runs"]
    headings += ["headline", "by"] if with_symbol else symbols or ["headline"]
    headings += [sweep_cells.heading(sweep_cells.entries(done, name)) for name in quantities]
    headings += ["active"] if with_active_units else []
    headings += ["train s", "minus baseline"]
    rows = [headings]
    for cell in done:
        headline = sweep_cells.headline(cell)
        row = [*cell["values"].values(), str(cell["replicates"]), _value(headline)]
        if with_symbol:
            row.append(headline["symbol"] if headline else sweep_cells.NOT_APPLICABLE)
        for name in quantities:
            is_headline = name == cell["headline"]  # it has a column already
            row.append(_value(None if is_headline else cell["results"].get(name)))
        if with_active_units:
            layers = [f"{layer['mean']:.3g}" for layer in cell.get("active_units", [])]
            row.append(" + ".join(layers) or sweep_cells.NOT_APPLICABLE)
        rows.append([*row, f"{cell['training_seconds']:.1f}", _difference(cell)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines, with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def with_notes(rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Rows as `aligned`, and the notes below them, wrapped at 100 columns."""
    wrapped = [textwrap.fill(note, 100, subsequent_indent="  ") for note in notes]
    return "\n".join([*aligned(rows), "", *wrapped])


def _notes(sweep: dict[str, Any], done: list[dict[str, Any]]) -> list[str]:
    """What a reader needs to know about the numbers of the table."""
    headlines = sweep_cells.headlines(done)
    units = " or ".join(sweep_cells.distinct(headlines, "unit"))
    for noun in ("image", "example"):
        units = units.replace(f"per {noun}", f"per test {noun}")
    notes = []
    if headlines:
        notes.append(f"{units}; +-: one standard error over {sweep_cells.error_noun(headlines)}")
    if len(sweep_cells.distinct(headlines, "symbol")) > 1:
        notes += sweep_cells.glossary(headlines)
    kinds = dict.fromkeys(sweep_cells.difference(c)["kind"] for c in sweep_cells.compared(done))
    if kinds:
        notes.append(f"baseline: {sweep['baseline']}; in brackets a 95% confidence interval")
    notes += [comparison.COVERS[kind] for kind in kinds]
    return notes + sweep_cells.bounds_beside_values(sweep, done)


def _value(result: dict[str, Any] | None) -> str:
    """A result and its standard error; "-" for None."""
    if result is None:
        return sweep_cells.NOT_APPLICABLE
    return tables.with_error(result["mean"], result["standard_error"])


def _difference(cell: dict[str, Any]) -> str:
    """The difference to the baseline with its interval, or the reason why there is none."""
    if difference := sweep_cells.difference(cell):
        return tables.interval(difference)
    return cell.get("difference", {"reason": "no baseline"})["reason"]
