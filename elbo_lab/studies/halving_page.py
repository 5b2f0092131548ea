"""The page of a study with rungs, from the content of study.json (`halving.content`)."""

from typing import Any

from elbo_lab.reports import html_parts
from elbo_lab.reports.html_parts import section, signed, text
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.studies import halving_table
from elbo_lab.sweeps import sweep_folder

CAPTION = (
    "Held-out value against the compute of training, a point for each rung that a candidate was "
    "trained in. Coloured: the best of the last rung that was begun; grey: the others. Values far "
    "below are cut off. "
    "Bars: one standard error."
)


def page(content: dict[str, Any], figure: str) -> str:
    """The page of the study: the question, the figure, the table, and the pages of its rungs."""
    question = content["study"]["question"]
    parts = [f"<h1>{text(question)}</h1>", f'<p class="lede">{text(_lede(content))}</p>']
    if figure:
        values = ", ".join(f"{row[0]}: {row[-1]}" for row in halving_table.rows(content)[1])
        parts.append(html_parts.figure(figure, CAPTION, values))
    parts.append(section("results", "Results", _html_table(content)))
    if failed := halving_table.failures(content):
        items = "".join(f"<li><strong>{text(n)}</strong>, {text(r)}</li>" for n, r in failed)
        parts.append(section("failed", "Failed candidates", f"<ul>{items}</ul>"))
    parts.append(section("rungs", "Rungs", _links(content)))
    parts.append(section("conditions", "Conditions", _conditions(content)))
    flags = "".join(
        f"<dt>{text(c['name'])}</dt><dd>{text(c['flags'])}</dd>" for c in content["candidates"]
    )
    commands = f"<pre>{text(content['command'])}</pre><p>The candidates' flags:</p><dl>{flags}</dl>"
    parts.append(section("commands", "Commands", commands))
    return html_parts.document(question, parts)


def _lede(content: dict[str, Any]) -> str:
    """The number of candidates, and those that are left."""
    count = f"{len(content['candidates'])} candidates in {len(content['rungs'])} rungs"
    left = [c["name"] for c in halving_table.ordered(content) if c["eliminated"] is None]
    if not content["complete"]:
        return f"{count}, not complete yet: {len(left)} are left."
    return f"{count}. Left at the end: {'; '.join(left) or 'none'}."


def _html_table(content: dict[str, Any]) -> str:
    head, body = halving_table.rows(content)
    shown = [
        (text(first), *(f"<td>{_shown(value)}</td>" for value in values), f"<td>{text(last)}</td>")
        for first, *values, last in body
    ]
    titles = [html_parts.symbol(title) for title in head]
    table_text = html_parts.table(text(" ".join(halving_table.notes(content))), titles, shown)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-labelledby="results">{table_text}</div>'
    )


def _shown(value: str) -> str:
    """A number of the table as HTML."""
    if value == NOT_APPLICABLE:
        return html_parts.NOTHING
    return signed(value.replace("+-", "±"))


def _links(content: dict[str, Any]) -> str:
    begun = max(len(candidate["rungs"]) for candidate in content["candidates"])
    items = "".join(
        f'<li><a href="rung{n}/{sweep_folder.REPORT}">rung {n}</a></li>'
        for n in range(1, begun + 1)
    )
    return f"<p>Each rung is a sweep with a page of its own:</p><ul>{items}</ul>"


def _conditions(content: dict[str, Any]) -> str:
    data = "; ".join(
        f"{d['name']}, {d['train_images']:,} training and {d['test_images']:,} held-out examples"
        for d in content["data"]
    )
    device = "; ".join(content["devices"]) or "none yet"
    if content["jobs"]:
        device += f" of each process, {content['jobs']} at a time"
    entries = {
        "data": data or "none yet",
        "device": device,
        "versions": f"elbo_lab {content['elbo_lab']}, JAX {content['jax']}",
        "date": content["date"],
    }
    items = "".join(f"<dt>{text(n)}</dt><dd>{text(v)}</dd>" for n, v in entries.items())
    return f"<dl>{items}</dl>"
