"""One self-contained HTML page of a sweep: what sweep.json holds, to read.

Nothing is loaded from elsewhere: the style sheet and the figures stand inside. The page follows the
reader's light or dark setting, fits a phone 360 pixels wide, and prints.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from elbo_lab.evaluation import comparison
from elbo_lab.reports import html_parts, sweep_cells, sweep_figures
from elbo_lab.reports.html_parts import section, signed, text
from elbo_lab.reports.tables import binarization_text, number_and_error

LEVEL = 0.95


class Answer(NamedTuple):
    """What a study's page shows first."""

    question: str
    figure: str  # SVG; "" where there is nothing to draw yet
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
    title = answer.question if answer else _title(sweep)
    parts = [f"<h1>{text(title)}</h1>", _lede(sweep, done)]
    shown = answer.figure if answer else ""
    if answer and shown:
        parts.append(html_parts.figure(shown, answer.caption, answer.question))
    if done:
        parts += [section("results", "Results", _results(sweep, done))]
        parts += [section("figures", "Figures", _figures(sweep, done, shown))]
        parts += [section("more", "More of each cell", _more(done))]
    parts += _left_out(sweep)
    parts += [
        section("conditions", "Conditions", _conditions(sweep, done)),
        section("commands", "Commands", _commands(sweep)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{html_parts.STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _title(sweep: dict[str, Any]) -> str:
    data = " and ".join(dict.fromkeys(entry["name"] for entry in sweep["data"]))
    axes = [name.replace("_", " ") for name in sweep["grid"]]
    what = ", ".join(axes[:-1]) + (" and " if len(axes) > 1 else "") + "".join(axes[-1:])
    return f"Sweep over {what or 'one configuration'}" + (f" on {data}" if data else "")


def _lede(sweep: dict[str, Any], done: Sequence[dict[str, Any]]) -> str:
    counts = {
        word: sum(cell["status"] in statuses for cell in sweep["cells"])
        for word, statuses in (
            ("skipped", ("skipped",)),
            ("failed", ("failed", "partly")),
            ("not trained yet", ("waiting",)),
        )
    }
    others = "".join(f", {number} {word}" for word, number in counts.items() if number)
    line = f"{len(done)} cells with results of {len(sweep['cells'])}{others}."
    for best in (cell for cell in done if cell["name"] == sweep["best"]):
        found = sweep_cells.headline(best)
        most = {"higher": "highest", "lower": "lowest"}[found["better"]]
        value, error = number_and_error(found["mean"], found["standard_error"])
        line += (
            f" The {most} test {found['title']} is that of {sweep_figures.cell_label(best)}: "
            f"{signed(value)}{f' ± {error}' if error else ''} {found['unit']}"
        )
        if difference := sweep_cells.difference(best):
            unit = sweep_cells.unit([found])
            line += f", {html_parts.interval(difference)} {unit} against the baseline"
        line += "."
    return f'<p class="lede">{text(line)}</p>'


def _results(sweep: dict[str, Any], done: Sequence[dict[str, Any]]) -> str:
    headlines = sweep_cells.headlines(done)
    symbols = sweep_cells.each(headlines, "symbol")
    rows = []
    for cell in done:
        found, name = sweep_cells.headline(cell), html_parts.name(cell)
        if found and len(symbols) > 1:
            name += f'<br><span class="soft">{html_parts.symbol(found["symbol"])}</span>'
        mark = ' class="best"' if cell["name"] == sweep["best"] else ""
        value = html_parts.value(found)
        rows.append((name, f"<td{mark}>{value}</td>", f"<td>{html_parts.difference(cell)}</td>"))
    unit = sweep_cells.unit(headlines)
    of = " or ".join(map(html_parts.symbol, symbols)) if 0 < len(symbols) < 3 else "headline"
    caption = (
        f"{_measured_by(headlines)} (mean ± one standard error over "
        f"{sweep_cells.over(headlines)}), and the difference to the baseline "
        f"({text(sweep['baseline'])}) on the same test images with its {LEVEL:.0%} confidence "
        "interval."
    )
    titles = ["cell", *(f"{title}, {unit}".removesuffix(", ") for title in (of, "minus baseline"))]
    return (
        html_parts.table(caption, titles, rows)
        + f'<p class="note">{text(" ".join(_notes(sweep, done)))}</p>'
    )


def _measured_by(headlines: Sequence[dict[str, Any]]) -> str:
    """ "Test log-likelihood by L_5000, lower bound in expectation, in nats per image"."""
    texts = {}
    for found in headlines:
        by = html_parts.symbol(found["symbol"])
        direction = f", {found['direction']}" if found["direction"] else ""
        texts[by] = f"{text(found['title'])} by {by}{direction}, in {found['unit']}"
    return f"Test {'; '.join(texts.values()) or 'images'}"


def _notes(sweep: dict[str, Any], done: Sequence[dict[str, Any]]) -> list[str]:
    """What intervals cover, and what bounds beside exact values say."""
    compared = sweep_cells.compared(done)
    kinds = dict.fromkeys(sweep_cells.difference(cell)["kind"] for cell in compared)
    notes = [f"Intervals {comparison.COVERS[kind]}." for kind in kinds]
    if kinds:
        notes.append("Each interval stands for itself: of many, some miss by chance.")
    if any(cell["status"] == "partly" for cell in done):
        notes.append("Cells with failed replicates are averages over the others (see below).")
    return notes + sweep_cells.bounds_beside_values(sweep, done)


def _more(done: Sequence[dict[str, Any]]) -> str:
    names, layered = sweep_cells.other_quantities(done), sweep_cells.with_layers(done)
    found = {name: sweep_cells.entries(done, name) for name in names}
    titles = ["cell", "replicates"]
    titles += [
        f"{html_parts.symbol(sweep_cells.heading(e))}, {sweep_cells.unit(e)}"
        for e in found.values()
    ]
    titles += ["active units"] * bool(layered) + ["training of a replicate, s"]
    rows = []
    for cell in done:
        values = [str(cell["replicates"])]
        for name in names:
            own = cell["results"].get(name) if name != cell["headline"] else None
            values.append(html_parts.value(own))
        values += [_active_units(cell)] * bool(layered) + [f"{cell['training_seconds']:,.1f}"]
        rows.append((html_parts.name(cell), *(f"<td>{value}</td>" for value in values)))
    several = [sweep_cells.heading(e) for e in found.values() if _number(e, "symbol") > 1]
    symbols = [e for own in found.values() if _number(own, "symbol") == 1 for e in own]
    caption = (
        "Test images, mean ± one standard error over "
        f"{sweep_cells.over(sweep_cells.headlines(done))}. "
    )
    if glossary := sweep_cells.glossary(symbols):
        caption += f"{'; '.join(map(html_parts.symbol, glossary))}. "
    if several:
        caption += f"{text(', '.join(several))}: with each cell's own number of draws. "
    if layered:
        caption += f"Active units: of a posterior mean's variance above 0.01{_au_images(done)}. "
    caption += (
        "Seconds are wall time, compilation included, a program's divided among the replicates "
        "that it trains."
    )
    table = html_parts.table(caption, titles, rows)
    return f'<div class="wide" tabindex="0" role="region" aria-labelledby="more">{table}</div>'


def _number(found: Sequence[dict[str, Any]], key: str) -> int:
    return len(sweep_cells.each(found, key))


def _active_units(cell: dict[str, Any]) -> str:
    layers = cell.get("active_units")
    if not layers:
        return html_parts.NOTHING
    units = " + ".join(html_parts.value(layer, "units") for layer in layers)
    return f"{units} of {' + '.join(str(layer['of']) for layer in layers)}"


def _au_images(done: Sequence[dict[str, Any]]) -> str:
    numbers = ", ".join(
        map(str, sorted({n for cell in done if (n := cell["config"]["au_images"])}))
    )
    if not numbers:
        return ""
    return f" (where au_images is set: over the first {numbers} training images)"


def _figures(sweep: dict[str, Any], done: Sequence[dict[str, Any]], shown: str) -> str:
    """The figures that every sweep has, but for one that is shown already."""
    label = sweep_figures.cell_label
    compared, layered = sweep_cells.compared(done), sweep_cells.with_layers(done)
    measured = [cell for cell in done if sweep_cells.headline(cell)]
    headlines = sweep_cells.headlines(done)
    titles = " or ".join(sweep_cells.each(headlines, "title"))
    bars = f"Bars: one standard error over {sweep_cells.over(headlines)}."
    drawn = []
    if compared:
        own = " or ".join(sweep_cells.each(sweep_cells.headlines(compared), "title"))
        caption = f"Test {own} minus that of {sweep['baseline']}, on the same test images."
        values = ", ".join(
            f"{label(c)}: {html_parts.interval(sweep_cells.difference(c))}" for c in compared
        )
        drawn.append((sweep_figures.differences(done, LEVEL), caption, values))
    if layered:
        units = ", ".join(
            f"{label(c)}: " + " + ".join(f"{layer['mean']:.3g}" for layer in c["active_units"])
            for c in layered
        )
        caption = "Active units: latent dimensions whose posterior mean has a variance above 0.01. "
        drawn.append((sweep_figures.active_units(done), caption + bars, units))
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
        caption = f"Test {titles} against the wall time of training. {bars}"
        drawn.append((sweep_figures.bound_against_time(done), caption, seconds))
    drawn.append(
        (
            sweep_figures.training_curves(done),
            "What each cell is trained by, on the training images, against wall time; different "
            "objectives and k are different quantities.",
            seconds,
        )
    )
    figures = [html_parts.figure(svg, *texts) for svg, *texts in drawn if svg != shown]
    return f'<div class="figures">{"".join(figures)}</div>'


def _left_out(sweep: dict[str, Any]) -> list[str]:
    """Failed, waiting and skipped cells, with their reasons."""
    parts = []
    failed = [cell for cell in sweep["cells"] if cell.get("failures")]
    if failed:
        items = []
        for cell in failed:
            reasons: dict[str, list[str]] = {}
            for seed, reason in cell["failures"].items():
                reasons.setdefault(reason, []).append(str(seed))
            line = "; ".join(
                f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}: {reason}"
                for reason, seeds in reasons.items()
            )
            items.append(f"<li><strong>{html_parts.name(cell)}</strong>: {text(line)}</li>")
        parts.append(section("failed", "Failed replicates", f"<ul>{''.join(items)}</ul>"))
    skipped = [cell for cell in sweep["cells"] if cell["status"] == "skipped"]
    if skipped:
        items = [
            f"<li><strong>{html_parts.name(cell)}</strong>: {text(cell['reason'])}</li>"
            for cell in skipped
        ]
        parts.append(section("skipped", "Skipped cells", f"<ul>{''.join(items)}</ul>"))
    return parts


def _conditions(sweep: dict[str, Any], done: Sequence[dict[str, Any]]) -> str:
    data = "; ".join(
        f"{d['name']}, {d['train_images']:,} training and {d['test_images']:,} test images of "
        f"{' x '.join(map(str, d['image_shape']))} pixels, {binarization_text(d['binarization'])}"
        for d in sweep["data"]
    )
    configs = [cell["config"] for cell in sweep["cells"] if "config" in cell]
    replicates = sorted({c["replicates"] for c in configs})
    device = "; ".join(sweep["devices"]) or "none yet"
    if sweep["jobs"]:
        device += f" of each process, {sweep['jobs']} at a time"
    rows = [
        ("data", data or "none yet"),
        ("binarization", ", ".join(dict.fromkeys(c["binarization"] for c in configs))),
    ]
    if draws := sorted({c["k"] for c in configs if c["k"] is not None}):
        rows.append(("k of the bounds", ", ".join(map(str, draws))))
    compared_by = {}
    for found in sweep_cells.headlines(done):
        number = f" with {found['draws']:,} draws per image" if found["draws"] else ""
        compared_by[f"{found['title']}, {found['symbol']}{number}"] = None
    rows += [
        ("compared by", "; ".join(compared_by) or "nothing yet"),
        ("replicates", f"{', '.join(map(str, replicates))} of each cell"),
        ("device", device),
        ("versions", f"elbo_lab {sweep['elbo_lab']}, JAX {sweep['jax']}, NumPy {sweep['numpy']}"),
        ("date", sweep["date"]),
    ]
    items = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    return f"<dl>{items}</dl>"


def _commands(sweep: dict[str, Any]) -> str:
    cells = [cell for cell in sweep["cells"] if "command" in cell]
    items = "".join(
        f"<p>{html_parts.name(cell)}</p><pre>{text(cell['command'])}</pre>" for cell in cells
    )
    return (
        f"<p>The whole sweep:</p><pre>{text(sweep['command'])}</pre>"
        f"<details><summary>The first replicate of each cell alone</summary>{items}</details>"
    )
