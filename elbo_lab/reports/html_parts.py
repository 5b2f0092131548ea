"""Parts of a sweep's page: its style sheet, and texts and numbers as HTML."""

import html
import re
from collections.abc import Sequence
from typing import Any

from elbo_lab.reports import sweep_cells, sweep_figures, tables

# The text of a cell of a table without a value.
NOTHING = "–"

STYLE = """
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


def document(title: str, parts: Sequence[str]) -> str:
    """A whole HTML document of these parts of its body."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(name: str, title: str, content: str) -> str:
    """A part of the page with a heading; `name` is the heading's id."""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{text(title)}</h2>{content}</section>'
    )


def figure(svg: str, caption: str, values: str) -> str:
    """A figure with its caption; screen readers hear the caption and the values."""
    alt = html.escape(f"{caption} {values}.", quote=True)
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)
    return f"<figure>{labelled}<figcaption>{text(caption)}</figcaption></figure>"


def table(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML: rows are a heading, then whole <td> elements."""
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = "".join(f'<tr><th scope="row">{first}</th>{"".join(rest)}</tr>' for first, *rest in rows)
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def name(cell: dict[str, Any]) -> str:
    """A cell's label."""
    return text(sweep_figures.cell_label(cell))


def symbol(plain: str) -> str:
    """ "L_5000" with its subscript below the line."""
    return re.sub(r"_(\w+)", r"<sub>\1</sub>", text(plain))


def value(entry: dict[str, Any] | None, unit: str = "") -> str:
    """A mean with its standard error; NOTHING for None."""
    if entry is None:
        return NOTHING
    mean, error = tables.number_and_error(entry["mean"], entry["standard_error"], unit)
    return f'{signed(mean)} <span class="pair">± {error}</span>' if error else signed(mean)


def difference(cell: dict[str, Any]) -> str:
    """A cell minus the baseline with its interval, or the reason why they are not compared."""
    compared = sweep_cells.difference(cell)
    if not compared:
        reason = cell.get("difference", {"reason": "the baseline has no results"})["reason"]
        return f'<span class="soft">{text(reason)}</span>'
    mean, limits = interval(compared).split(" ", 1)
    return f'{mean} <span class="pair">{limits}</span>'


def interval(difference: dict[str, Any]) -> str:
    """`tables.interval` with minus signs."""
    return signed(tables.interval(difference))


def signed(number: str) -> str:
    """A number with a minus sign in place of its hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")


def text(plain: Any) -> str:
    """Plain text, escaped for HTML."""
    return html.escape(str(plain), quote=False)
