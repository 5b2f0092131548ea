"""The results of sweep.json as one self-contained HTML page.

It loads nothing: the style sheet and the figures are inside. The page follows the reader's light or
dark setting, fits a phone 360 pixels wide, and can be printed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from elbo_lab.evaluation import comparison
from elbo_lab.reports import html_parts, sweep_cells, sweep_figures, words
from elbo_lab.reports.html_parts import section, signed, text
from elbo_lab.reports.tables import binarization_text, number_and_error

LEVEL = 0.95


class Answer(NamedTuple):
    """The first part of a study's page."""

    question: str
    figure: str  # SVG; "" while there is nothing to draw
    caption: str


def page(sweep: dict[str, Any], answer: Answer | None = None) -> str:
    """The page of a sweep.

    Args:
      sweep: what sweep.json holds.
      answer: the question as the title, and the figure that answers it.

    Returns:
      A whole HTML document.
    """
    done = [cell for cell in sweep["cells"] if "results" in cell]
    kind = _kind(sweep)
    title = answer.question if answer else _title(sweep)
    parts = [f"<h1>{text(title)}</h1>", _lede(sweep, done, kind)]
    first_figure = answer.figure if answer else ""
    if answer and first_figure:
        parts.append(html_parts.figure(first_figure, answer.caption, answer.question))
    if done:
        parts += [section("results", "Results", _results(sweep, done, kind))]
        parts += [section("figures", "Figures", _figures(sweep, done, first_figure, kind))]
        parts += [section("more", "More of each cell", _more(done, kind))]
    parts += _left_out(sweep)
    parts += [
        section("conditions", "Conditions", _conditions(sweep, done, kind)),
        section("commands", "Commands", _commands(sweep)),
    ]
    return html_parts.document(title, parts)


def _kind(sweep: dict[str, Any]) -> str:
    """The kind of the data, which decides the nouns: "image" if all data sets are images."""
    kinds = [entry["kind"] for entry in sweep["data"] if entry["kind"] != "image"]
    return kinds[0] if kinds else "image"


def _title(sweep: dict[str, Any]) -> str:
    data = " and ".join(dict.fromkeys(entry["name"] for entry in sweep["data"]))
    *others, last = [name.replace("_", " ") for name in sweep["grid"]] or ["one configuration"]
    axes = f"{', '.join(others)} and {last}" if others else last
    return f"Sweep over {axes}" + (f" on {data}" if data else "")


def _lede(sweep: dict[str, Any], done: Sequence[dict[str, Any]], kind: str) -> str:
    """The numbers of cells by status, and the best cell."""
    statuses = [cell["status"] for cell in sweep["cells"]]
    counts = {
        "skipped": statuses.count("skipped"),
        "failed": statuses.count("failed") + statuses.count("partly"),
        "not trained yet": statuses.count("waiting"),
    }
    others = "".join(f", {number} {status}" for status, number in counts.items() if number)
    line = f"{len(done)} cells with results of {len(sweep['cells'])}{others}."
    best = [cell for cell in done if cell["name"] == sweep["best"]]
    if best:
        line += f" {_best_cell(best[0], kind)}"
    return f'<p class="lede">{text(line)}</p>'


def _best_cell(cell: dict[str, Any], kind: str) -> str:
    """A sentence about the best cell's headline."""
    headline = sweep_cells.headline(cell)
    most = {"higher": "highest", "lower": "lowest"}[headline["better"]]
    value, error = number_and_error(headline["mean"], headline["standard_error"])
    sentence = (
        f"The {most} test {headline['title']} is that of {sweep_figures.cell_label(cell)}: "
        f"{signed(value)}{f' ± {error}' if error else ''} {words.for_kind(headline['unit'], kind)}"
    )
    if difference := sweep_cells.difference(cell):
        unit = sweep_cells.unit([headline])
        sentence += f", {html_parts.interval(difference)} {unit} against the baseline"
    return f"{sentence}."


def _results(sweep: dict[str, Any], done: Sequence[dict[str, Any]], kind: str) -> str:
    headlines = sweep_cells.headlines(done)
    symbols = sweep_cells.distinct(headlines, "symbol")
    rows = []
    for cell in done:
        headline, name = sweep_cells.headline(cell), html_parts.name(cell)
        if headline and len(symbols) > 1:
            name += f'<br><span class="soft">{html_parts.symbol(headline["symbol"])}</span>'
        mark = ' class="best"' if cell["name"] == sweep["best"] else ""
        value = html_parts.value(headline)
        rows.append((name, f"<td{mark}>{value}</td>", f"<td>{html_parts.difference(cell)}</td>"))
    caption = (
        f"{_measured_by(headlines, kind)} (mean ± one standard error over "
        f"{_over(headlines, kind)}), and the difference to the baseline "
        f"({text(sweep['baseline'])}) on the same test {words.for_kind('images', kind)} with its "
        f"{LEVEL:.0%} confidence interval."
    )
    titles = ["headline", "minus baseline"]
    if 0 < len(symbols) < 3:
        titles[0] = " or ".join(map(html_parts.symbol, symbols))
    if unit := sweep_cells.unit(headlines):
        titles = [f"{title}, {unit}" for title in titles]
    return (
        html_parts.table(caption, ["cell", *titles], rows)
        + f'<p class="note">{text(" ".join(_notes(sweep, done, kind)))}</p>'
    )


def _measured_by(headlines: Sequence[dict[str, Any]], kind: str) -> str:
    """ "Test log-likelihood by L_5000, lower bound in expectation, in nats per image"."""
    texts = {}
    for headline in headlines:
        symbol = html_parts.symbol(headline["symbol"])
        direction = f", {headline['direction']}" if headline["direction"] else ""
        unit = words.for_kind(headline["unit"], kind)
        texts[symbol] = f"{text(headline['title'])} by {symbol}{direction}, in {unit}"
    return f"Test {'; '.join(texts.values()) or words.for_kind('images', kind)}"


def _over(headlines: Sequence[dict[str, Any]], kind: str) -> str:
    """The noun of what standard errors are over."""
    return words.for_kind(sweep_cells.error_noun(headlines), kind)


def _notes(sweep: dict[str, Any], done: Sequence[dict[str, Any]], kind: str) -> list[str]:
    """Sentences on what intervals cover, and on bounds beside exact values."""
    compared = sweep_cells.compared(done)
    intervals = dict.fromkeys(sweep_cells.difference(cell)["kind"] for cell in compared)
    notes = [f"Intervals {words.for_kind(comparison.COVERS[name], kind)}." for name in intervals]
    if intervals:
        notes.append(
            "Each interval is for one comparison: among many intervals, some miss by chance."
        )
    if any(cell["status"] == "partly" for cell in done):
        notes.append("Cells with failed replicates are averages over the others (see below).")
    return notes + sweep_cells.bounds_beside_values(sweep, done)


def _more(done: Sequence[dict[str, Any]], kind: str) -> str:
    """A table of the quantities beside the headlines, of active units, and of times."""
    names, has_layers = sweep_cells.other_quantities(done), bool(sweep_cells.with_layers(done))
    quantities = {name: sweep_cells.entries(done, name) for name in names}
    titles = ["cell", "replicates"]
    for entries in quantities.values():
        heading = html_parts.symbol(sweep_cells.heading(entries))
        titles.append(f"{heading}, {sweep_cells.unit(entries)}")
    if has_layers:
        titles.append("active units")
    titles.append("training of a replicate, s")
    rows = []
    for cell in done:
        values = [str(cell["replicates"])]
        for name in names:
            # The headline stands in the table of results.
            entry = cell["results"].get(name) if name != cell["headline"] else None
            values.append(html_parts.value(entry))
        if has_layers:
            values.append(_active_units(cell))
        values.append(f"{cell['training_seconds']:,.1f}")
        rows.append((html_parts.name(cell), *(f"<td>{value}</td>" for value in values)))
    table = html_parts.table(_more_caption(done, quantities, kind), titles, rows)
    return f'<div class="wide" tabindex="0" role="region" aria-labelledby="more">{table}</div>'


def _more_caption(
    done: Sequence[dict[str, Any]], quantities: dict[str, list[dict[str, Any]]], kind: str
) -> str:
    of_one_symbol, several = [], []
    for entries in quantities.values():
        if len(sweep_cells.distinct(entries, "symbol")) > 1:
            several.append(sweep_cells.heading(entries))
        else:
            of_one_symbol += entries
    images = words.for_kind("images", kind)
    over = _over(sweep_cells.headlines(done), kind)
    caption = f"Test {images}, mean ± one standard error over {over}. "
    if glossary := sweep_cells.glossary(of_one_symbol):
        caption += f"{'; '.join(map(html_parts.symbol, glossary))}. "
    if several:
        caption += f"{text(', '.join(several))}: with each cell's own number of draws. "
    if sweep_cells.with_layers(done):
        caption += "Active units: of a posterior mean's variance above 0.01"
        numbers = sorted({cell["config"]["au_images"] for cell in done} - {None})
        if numbers:
            listed = ", ".join(map(str, numbers))
            caption += f" (where au_images is set: over the first {listed} training {images})"
        caption += ". "
    return caption + (
        "Seconds are wall time with compilation; those of a program that trains several replicates "
        "are divided among them."
    )


def _active_units(cell: dict[str, Any]) -> str:
    layers = cell.get("active_units")
    if not layers:
        return html_parts.NOTHING
    units = " + ".join(html_parts.value(layer, "units") for layer in layers)
    return f"{units} of {' + '.join(str(layer['of']) for layer in layers)}"


def _figures(
    sweep: dict[str, Any], done: Sequence[dict[str, Any]], first_figure: str, kind: str
) -> str:
    """The figures that every sweep has, except for the page's first one."""
    label = sweep_figures.cell_label
    compared, layered = sweep_cells.compared(done), sweep_cells.with_layers(done)
    measured = [cell for cell in done if sweep_cells.headline(cell)]
    headlines = sweep_cells.headlines(done)
    images = words.for_kind("images", kind)
    bars = f"Bars: one standard error over {_over(headlines, kind)}."
    drawn = []  # (SVG, caption, values for screen readers)
    if compared:
        titles = " or ".join(sweep_cells.distinct(sweep_cells.headlines(compared), "title"))
        caption = f"Test {titles} minus that of {sweep['baseline']}, on the same test {images}."
        values = ", ".join(
            f"{label(c)}: {html_parts.interval(sweep_cells.difference(c))}" for c in compared
        )
        drawn.append((sweep_figures.differences(done, LEVEL), caption, values))
    if layered:
        values = ", ".join(
            f"{label(c)}: " + " + ".join(f"{layer['mean']:.3g}" for layer in c["active_units"])
            for c in layered
        )
        caption = "Active units: latent dimensions whose posterior mean has a variance above 0.01. "
        drawn.append((sweep_figures.active_units(done), caption + bars, values))
    if sweep_figures.has_several_k(measured):
        values = ", ".join(
            f"{label(c)}: {sweep_cells.headline(c)['mean']:.2f}"
            for c in measured
            if c["config"]["k"] is not None
        )
        caption = f"Test bounds against k. {bars}"
        drawn.append((sweep_figures.bound_against_k(done), caption, values))
    seconds = ", ".join(
        f"{label(c)}: {sweep_cells.headline(c)['mean']:.2f} after {c['training_seconds']:.0f} s"
        for c in measured
    )
    if measured:
        titles = " or ".join(sweep_cells.distinct(headlines, "title"))
        caption = f"Test {titles} against the wall time of training. {bars}"
        drawn.append((sweep_figures.bound_against_time(done), caption, seconds))
    caption = (
        f"The first term of each cell's loss on the training {images}, against wall time; "
        "different objectives and k are different quantities."
    )
    drawn.append((sweep_figures.training_curves(done), caption, seconds))
    figures = [
        html_parts.figure(svg, caption, values)
        for svg, caption, values in drawn
        if svg != first_figure
    ]
    return f'<div class="figures">{"".join(figures)}</div>'


def _left_out(sweep: dict[str, Any]) -> list[str]:
    """Sections of replicates that failed or are not trained yet, and of skipped cells."""
    parts = []
    failed = [cell for cell in sweep["cells"] if cell.get("failures")]
    if failed:
        items = "".join(_item(cell, _reasons(cell["failures"])) for cell in failed)
        parts.append(section("failed", "Failed replicates", f"<ul>{items}</ul>"))
    skipped = [cell for cell in sweep["cells"] if cell["status"] == "skipped"]
    if skipped:
        items = "".join(_item(cell, cell["reason"]) for cell in skipped)
        parts.append(section("skipped", "Skipped cells", f"<ul>{items}</ul>"))
    return parts


def _item(cell: dict[str, Any], reason: str) -> str:
    return f"<li><strong>{html_parts.name(cell)}</strong>: {text(reason)}</li>"


def _reasons(failures: dict[Any, str]) -> str:
    """The reasons of failed seeds, those of the same reason together."""
    seeds: dict[str, list[str]] = {}
    for seed, reason in failures.items():
        seeds.setdefault(reason, []).append(str(seed))
    return "; ".join(
        f"seed{'s' if len(own) > 1 else ''} {', '.join(own)}: {reason}"
        for reason, own in seeds.items()
    )


def _conditions(sweep: dict[str, Any], done: Sequence[dict[str, Any]], kind: str) -> str:
    """A list of what the numbers depend on: data, settings, device, versions, date."""
    configs = [cell["config"] for cell in sweep["cells"] if "config" in cell]
    rows = [("data", "; ".join(map(_data_text, sweep["data"])) or "none yet")]
    if not sweep["data"] or any(entry["kind"] == "image" for entry in sweep["data"]):
        rows.append(("binarization", ", ".join(dict.fromkeys(c["binarization"] for c in configs))))
    if draws := sorted({c["k"] for c in configs} - {None}):
        rows.append(("k of the bounds", ", ".join(map(str, draws))))
    measured_by = []
    for headline in sweep_cells.headlines(done):
        number = f" with {headline['draws']:,} draws per image" if headline["draws"] else ""
        number = words.for_kind(number, kind)
        measured_by.append(f"{headline['title']}, {headline['symbol']}{number}")
    replicates = ", ".join(map(str, sorted({c["replicates"] for c in configs})))
    device = "; ".join(sweep["devices"]) or "none yet"
    if sweep["jobs"]:
        device += f" of each process, {sweep['jobs']} at a time"
    rows += [
        ("compared by", "; ".join(dict.fromkeys(measured_by)) or "nothing yet"),
        ("replicates", f"{replicates} of each cell"),
        ("device", device),
        ("versions", f"elbo_lab {sweep['elbo_lab']}, JAX {sweep['jax']}, NumPy {sweep['numpy']}"),
        ("date", sweep["date"]),
    ]
    items = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    return f"<dl>{items}</dl>"


def _data_text(data: dict[str, Any]) -> str:
    """A data set's name, sizes and shape; how images were binarized."""
    numbers = f"{data['name']}, {data['train_images']:,} training and {data['test_images']:,} test"
    shape = " x ".join(map(str, data["image_shape"]))
    if data["kind"] != "image":
        return f"{numbers} examples of shape {shape}"
    return f"{numbers} images of {shape} pixels, {binarization_text(data['binarization'])}"


def _commands(sweep: dict[str, Any]) -> str:
    cells = [cell for cell in sweep["cells"] if "command" in cell]
    items = "".join(
        f"<p>{html_parts.name(cell)}</p><pre>{text(cell['command'])}</pre>" for cell in cells
    )
    return (
        f"<p>The whole sweep:</p><pre>{text(sweep['command'])}</pre>"
        f"<details><summary>The first replicate of each cell alone</summary>{items}</details>"
    )
