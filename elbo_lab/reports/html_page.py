"""One self-contained HTML page of a sweep: what sweep.json holds, to read.

Nothing is loaded from elsewhere: the style sheet and the figures stand inside. The page follows the
reader's light or dark setting, fits a phone 360 pixels wide, and prints.
"""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from elbo_lab.evaluation import comparison
from elbo_lab.reports import sweep_figures
from elbo_lab.reports.tables import binarization_text, number_and_error

LEVEL = 0.95

_STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2125; --soft: #59626b; --rule: #d9dee3; --shade: #f4f6f8;
  --axis: #8b949c; --grid: #e3e7ea; --best: #0b6e4f;
  --series-1: #0072b2; --series-2: #d55e00; --series-3: #009e73; --series-4: #b8578f;
  --series-5: #a07800; --series-6: #3a9bd0; --series-7: #6b6b6b; }
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #e6e9ec; --soft: #a3adb6; --rule: #363d44; --shade: #1d2226;
  --axis: #7c868f; --grid: #2b3137; --best: #4fd0a5;
  --series-1: #56a8e8; --series-2: #ff8a4c; --series-3: #3ecfa0; --series-4: #e79cc8;
  --series-5: #e0b840; --series-6: #8fd0f5; --series-7: #aab2b9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; }
p, li { max-width: 44rem; overflow-wrap: anywhere; }
.lede { font-size: 1.06rem; }
.soft, figcaption, caption, .note { color: var(--soft); font-size: 0.9rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.5rem; max-width: 44rem; }
th, td { text-align: right; padding: 0.4rem 0.5rem; border-bottom: 1px solid var(--rule);
  vertical-align: top; font-size: 0.93rem; }
thead th { border-bottom: 2px solid var(--axis); vertical-align: bottom; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
.pair { white-space: nowrap; }
.best { color: var(--best); font-weight: 650; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid var(--series-1); }
.wide table { min-width: 46rem; }
.wide caption { width: min(44rem, calc(100vw - 2rem)); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr));
  gap: 1.5rem 2rem; align-items: start; }
figure { margin: 0; max-width: 31rem; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { fill: var(--ink); }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.3rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
pre { background: var(--shade); padding: 0.7rem 0.8rem; border-radius: 6px; margin: 0.4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; }
summary { cursor: pointer; }
@media (max-width: 30rem) {
  th, td { padding: 0.35rem 0.3rem; font-size: 0.86rem; } h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: 0.5rem; } }
@media print {
  main { max-width: none; padding: 0; } body { font-size: 11pt; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure, tr, pre { break-inside: avoid; } h2, caption { break-after: avoid; }
  .wide { overflow: visible; } .wide table { min-width: 0; } .wide td, .wide th { font-size: 8pt; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""


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
    title = answer.question if answer else _title(sweep, done)
    parts = [f"<h1>{_text(title)}</h1>", _lede(sweep, done)]
    shown = answer.figure if answer else ""
    if answer and shown:
        parts.append(_figure(shown, answer.caption, answer.question))
    if done:
        parts += [_section("results", "Results", _results(sweep, done))]
        parts += [_section("figures", "Figures", _figures(sweep, done, shown))]
        parts += [_section("more", "More of each cell", _more(done))]
    parts += _left_out(sweep)
    parts += [
        _section("conditions", "Conditions", _conditions(sweep)),
        _section("commands", "Commands", _commands(sweep)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{_text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _title(sweep: dict[str, Any], done: Sequence[dict[str, Any]]) -> str:
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
    text = f"{len(done)} cells with results of {len(sweep['cells'])}{others}."
    best = best_cell(done)
    if best is not None:
        found = best["results"]["log_likelihood"]
        value, error = number_and_error(found["mean"], found["standard_error"])
        text += (
            f" The highest test log-likelihood is that of {sweep_figures.cell_label(best)}: "
            f"{_signed(value)}{f' ± {error}' if error else ''} nats per image"
        )
        difference = best.get("difference", {}).get("log_likelihood")
        if difference:
            text += f", {interval(difference)} nats against the baseline"
        text += "."
    return f'<p class="lede">{_text(text)}</p>'


def best_cell(done: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The cell of the highest test log-likelihood, where cells are comparable by it."""
    likelihoods = {cell["config"]["likelihood"] for cell in done}
    draws = {cell["config"]["eval_k"] for cell in done}
    sets = {(cell["config"]["dataset"], cell["config"]["binarization"]) for cell in done}
    if len(done) < 2 or max(len(likelihoods), len(draws), len(sets)) > 1:
        return None
    return max(done, key=lambda cell: cell["results"]["log_likelihood"]["mean"])


def _results(sweep: dict[str, Any], done: Sequence[dict[str, Any]]) -> str:
    best = best_cell(done)
    rows = []
    for cell in done:
        found = cell["results"]["log_likelihood"]
        mark = ' class="best"' if cell is best else ""
        rows.append(
            f'<tr><th scope="row">{_name(cell)}</th>'
            f"<td{mark}>{_value(found)}</td>"
            f"<td>{_difference_cell(cell)}</td></tr>"
        )
    draws = sorted({cell["config"]["eval_k"] for cell in done})
    bound = " or ".join(f"L<sub>{k}</sub>" for k in draws)
    caption = (
        f"Test log-likelihood by {bound}, a lower bound in expectation, in nats per image "
        f"(mean ± one standard error over {_over(done)}), and the difference to the "
        f"baseline ({_text(sweep['baseline'])}) on the same test images with its {LEVEL:.0%} "
        "confidence interval."
    )
    kinds = dict.fromkeys(
        cell["difference"]["log_likelihood"]["kind"]
        for cell in done
        if "log_likelihood" in cell.get("difference", {})
    )
    notes = [f"Intervals {comparison.COVERS[kind]}." for kind in kinds]
    if kinds:
        notes.append("Each interval stands for itself: of many, some miss by chance.")
    if any(cell["status"] == "partly" for cell in done):
        notes.append("Cells with failed replicates are averages over the others (see below).")
    head = _head(["cell", f"{bound}, nats", "minus baseline, nats"])
    return (
        f"<table><caption>{caption}</caption>{head}<tbody>{''.join(rows)}</tbody></table>"
        f'<p class="note">{_text(" ".join(notes))}</p>'
    )


def _more(done: Sequence[dict[str, Any]]) -> str:
    rows = []
    for cell in done:
        found = cell["results"]
        units = " + ".join(_value(layer, "units") for layer in found["active_units"])
        of = " + ".join(str(layer["of"]) for layer in found["active_units"])
        values = [
            str(found["replicates"]),
            *(_value(found[name]) for name in ("elbo", "iwae", "kl", "reconstruction")),
            f"{units} of {of}",
            f"{found['training_seconds']:,.1f}",
        ]
        cells = "".join(f"<td>{value}</td>" for value in values)
        rows.append(f'<tr><th scope="row">{_name(cell)}</th>{cells}</tr>')
    head = _head(
        [
            *("cell", "replicates", "ELBO, nats", "IWAE bound L<sub>k</sub>, nats", "KL, nats"),
            *("reconstruction, nats", "active units", "training of a replicate, s"),
        ]
    )
    train_images = sorted({n for cell in done if (n := cell["config"]["au_images"])})
    of_train = ", ".join(map(str, train_images))
    if of_train:
        of_train = f" (where au_images is set: over the first {of_train} training images)"
    caption = (
        f"Test images, mean ± one standard error over {_over(done)}; L<sub>k</sub> with each "
        f"cell's own k. Active units: of a posterior mean's variance above 0.01{of_train}. Seconds "
        "are wall time, compilation included, a program's divided among the replicates that it "
        "trains."
    )
    table = f"<table><caption>{caption}</caption>{head}<tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-labelledby="more">{table}</div>'


def _figures(sweep: dict[str, Any], done: Sequence[dict[str, Any]], shown: str) -> str:
    """The figures that every sweep has, but for one that is shown already."""
    compared = [cell for cell in done if "log_likelihood" in cell.get("difference", {})]
    bars = f"Bars: one standard error over {_over(done)}."
    drawn = []
    if compared:
        drawn.append(
            (
                sweep_figures.differences(done, LEVEL),
                f"Test log-likelihood minus that of {sweep['baseline']}, on the same test images.",
                ", ".join(
                    f"{sweep_figures.cell_label(c)}: {interval(c['difference']['log_likelihood'])}"
                    for c in compared
                ),
            )
        )
    listed = ", ".join(
        f"{sweep_figures.cell_label(c)}: {c['results']['log_likelihood']['mean']:.2f}" for c in done
    )
    units = ", ".join(
        f"{sweep_figures.cell_label(c)}: "
        + " + ".join(f"{layer['mean']:.3g}" for layer in c["results"]["active_units"])
        for c in done
    )
    caption = "Active units: latent dimensions whose posterior mean has a variance above 0.01. "
    drawn.append((sweep_figures.active_units(done), caption + bars, units))
    if sweep_figures.has_several_k(done):
        caption = f"Test bounds against k. {bars}"
        drawn.append((sweep_figures.bound_against_k(done), caption, listed))
    seconds = ", ".join(
        f"{sweep_figures.cell_label(c)}: {c['results']['log_likelihood']['mean']:.2f} after "
        f"{c['results']['training_seconds']:.0f} s"
        for c in done
    )
    drawn += [
        (
            sweep_figures.bound_against_time(done),
            f"Test log-likelihood against the wall time of training. {bars}",
            seconds,
        ),
        (
            sweep_figures.training_curves(done),
            "What each cell maximizes on the training images, against wall time; different "
            "objectives and k are different quantities.",
            seconds,
        ),
    ]
    figures = [_figure(svg, *texts) for svg, *texts in drawn if svg != shown]
    return f'<div class="figures">{"".join(figures)}</div>'


def _figure(svg: str, caption: str, values: str) -> str:
    alt = html.escape(f"{caption} {values}.", quote=True)
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)
    return f"<figure>{labelled}<figcaption>{_text(caption)}</figcaption></figure>"


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
            text = "; ".join(
                f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}: {reason}"
                for reason, seeds in reasons.items()
            )
            items.append(f"<li><strong>{_name(cell)}</strong>: {_text(text)}</li>")
        parts.append(_section("failed", "Failed replicates", f"<ul>{''.join(items)}</ul>"))
    skipped = [cell for cell in sweep["cells"] if cell["status"] == "skipped"]
    if skipped:
        items = [
            f"<li><strong>{_name(cell)}</strong>: {_text(cell['reason'])}</li>" for cell in skipped
        ]
        parts.append(_section("skipped", "Skipped cells", f"<ul>{''.join(items)}</ul>"))
    return parts


def _conditions(sweep: dict[str, Any]) -> str:
    data = "; ".join(
        f"{d['name']}, {d['train_images']:,} training and {d['test_images']:,} test images of "
        f"{' x '.join(map(str, d['image_shape']))} pixels, {binarization_text(d['binarization'])}"
        for d in sweep["data"]
    )
    configs = [cell["config"] for cell in sweep["cells"] if "config" in cell]
    draws = sorted({c["eval_k"] for c in configs})
    replicates = sorted({c["replicates"] for c in configs})
    device = "; ".join(sweep["devices"]) or "none yet"
    if sweep["jobs"]:
        device += f" of each process, {sweep['jobs']} at a time"
    rows = [
        ("data", data or "none yet"),
        ("binarization", ", ".join(dict.fromkeys(c["binarization"] for c in configs))),
        ("k of the bounds", ", ".join(map(str, sorted({c["k"] for c in configs})))),
        ("log-likelihood", f"L_K with K = {', '.join(f'{k:,}' for k in draws)} draws per image"),
        ("replicates", f"{', '.join(map(str, replicates))} of each cell"),
        ("device", device),
        ("versions", f"elbo_lab {sweep['elbo_lab']}, JAX {sweep['jax']}, NumPy {sweep['numpy']}"),
        ("date", sweep["date"]),
    ]
    items = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows)
    return f"<dl>{items}</dl>"


def _commands(sweep: dict[str, Any]) -> str:
    cells = [cell for cell in sweep["cells"] if "command" in cell]
    items = "".join(f"<p>{_name(cell)}</p><pre>{_text(cell['command'])}</pre>" for cell in cells)
    return (
        f"<p>The whole sweep:</p><pre>{_text(sweep['command'])}</pre>"
        f"<details><summary>The first replicate of each cell alone</summary>{items}</details>"
    )


def _section(name: str, title: str, content: str) -> str:
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{_text(title)}</h2>{content}</section>'
    )


def _head(titles: Sequence[str]) -> str:
    return "<thead><tr>" + "".join(f'<th scope="col">{t}</th>' for t in titles) + "</tr></thead>"


def _name(cell: dict[str, Any]) -> str:
    return _text(sweep_figures.cell_label(cell))


def _over(done: Sequence[dict[str, Any]]) -> str:
    overs = dict.fromkeys(cell["results"]["log_likelihood"]["over"] for cell in done)
    return " or ".join(over for over in overs if over) or "nothing"


def _value(found: dict[str, Any], unit: str = "") -> str:
    value, error = number_and_error(found["mean"], found["standard_error"], unit)
    pair = f'{_signed(value)} <span class="pair">± {error}</span>' if error else _signed(value)
    return pair


def _difference_cell(cell: dict[str, Any]) -> str:
    difference = cell.get("difference", {"reason": "the baseline has no results"})
    if "log_likelihood" not in difference:
        return f'<span class="soft">{_text(difference["reason"])}</span>'
    first, rest = interval(difference["log_likelihood"]).split(" ", 1)
    return f'{first} <span class="pair">{rest}</span>'


def interval(difference: dict[str, Any]) -> str:
    """ "+1.74 (1.60, 1.88)", to the digits that the interval leaves."""
    half = (difference["high"] - difference["low"]) / 2
    _, error = number_and_error(difference["mean"], half)
    decimals = len(error.partition(".")[2]) if half else 2
    mean, low, high = (f"{difference[name]:.{decimals}f}" for name in ("mean", "low", "high"))
    sign = "" if mean.startswith("-") else "+"
    return f"{_signed(sign + mean)} ({_signed(low)}, {_signed(high)})"


def _signed(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")


def _text(text: str) -> str:
    return html.escape(str(text), quote=False)
