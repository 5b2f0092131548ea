"""The table of a study with rungs, from the content of study.json (`halving.content`)."""

from pathlib import Path
from typing import Any

from elbo_lab import json_files
from elbo_lab.reports import documents
from elbo_lab.reports.sweep_cells import NOT_APPLICABLE
from elbo_lab.reports.tables import with_error
from elbo_lab.sweeps import sweep_reporting

_RESULT = {
    "compute": float,
    "failure": str,
    "value?": float | None,
    "over?": str | None,
    "standard_error?": float | None,
    "compiled_seconds?": float | None,
}
_RUNG = {"budget": float, "keep": int, "complete": bool}
_CANDIDATE = {
    "name": str,
    "flags": str,
    "eliminated": int | None,
    "reason": str,
    "rungs": list[_RESULT],
}
# The fields of study.json that the table shows.
_KIND = {
    "command": str,
    "devices": list[str],
    "quantity": dict | None,
    "complete": bool,
    "rungs": list[_RUNG],
    "candidates": list[_CANDIDATE],
}


def read(file: Path) -> dict[str, Any]:
    """The content of a file that `report` wrote.

    Raises:
      UserError: it cannot be read, or is damaged.
    """
    return json_files.read(file, _KIND)


def ordered(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The candidates, those that came furthest first, and of these the best first."""
    sign = 1.0 if content["quantity"] and content["quantity"]["better"] == "lower" else -1.0

    def key(candidate: dict[str, Any]) -> tuple[float, float, float]:
        last = candidate["rungs"][-1]
        value = None if last["failure"] else last.get("value")
        return -len(candidate["rungs"]), value is None, sign * (value or 0.0)

    return sorted(content["candidates"], key=key)


def rows(content: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table as texts: its head, and a row for each candidate."""
    symbol = content["quantity"]["symbol"] if content["quantity"] else "value"
    begun = max(len(candidate["rungs"]) for candidate in content["candidates"])
    head = ["candidate"]
    for rung in content["rungs"][:begun]:
        head += [f"{symbol} at {rung['budget']:,.10g}", "train s"]
    body = []
    for candidate in ordered(content):
        row = [candidate["name"]]
        for entry in candidate["rungs"]:
            row += [_value(entry), _seconds(entry)]
        row += [NOT_APPLICABLE] * (len(head) - len(row))
        body.append((*row, _fate(candidate, content)))
    return (*head, "eliminated"), body


def _value(entry: dict[str, Any]) -> str:
    if entry.get("value") is None:
        return "failed" if entry["failure"] else NOT_APPLICABLE
    return with_error(entry["value"], entry["standard_error"])


def _seconds(entry: dict[str, Any]) -> str:
    seconds = entry.get("compiled_seconds")
    return NOT_APPLICABLE if seconds is None else f"{seconds:,.1f}"


def _fate(candidate: dict[str, Any], content: dict[str, Any]) -> str:
    """ "in rung 1, place 9 of 24"; "no" for what is left at the end."""
    if candidate["eliminated"] is None:
        is_last = len(candidate["rungs"]) == len(content["rungs"])
        return "no" if is_last and content["rungs"][-1]["complete"] else "not yet"
    failed = candidate["rungs"][-1]["failure"]
    return f"in rung {candidate['eliminated']}, {'failed' if failed else candidate['reason']}"


def failures(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, "rung 1: reason") of every candidate that failed."""
    return [
        (candidate["name"], f"rung {number}: {entry['failure']}")
        for candidate in content["candidates"]
        for number, entry in enumerate(candidate["rungs"], 1)
        if entry["failure"] and content["rungs"][number - 1]["complete"]
    ]


def notes(content: dict[str, Any]) -> list[str]:
    """Explanations of the table."""
    rungs = content["rungs"]
    steps = []
    for number, rung in enumerate(rungs, 1):
        verbs = ("goes on", "go on") if number < len(rungs) else ("is left", "are left")
        steps.append(f"{rung['budget']:,.10g} ({rung['keep']} {verbs[rung['keep'] > 1]})")
    lines = [
        "Every candidate of a rung is trained from the start with the same compute, in reference "
        f"steps: {', '.join(steps)}."
    ]
    entries = [e for c in content["candidates"] for e in c["rungs"] if e.get("over")]
    over = " or ".join(dict.fromkeys(entry["over"] for entry in entries))
    if content["quantity"]:
        lines.append(
            f"{content['quantity']['symbol']}: {content['quantity']['unit']}, over training images "
            f"that were held out{f'; +- one standard error over {over}' if over else ''}."
        )
    lines.append("train s: time of training a replicate, without compilation.")
    return lines


def table(content: dict[str, Any]) -> str:
    """The table for a terminal."""
    head, body = rows(content)
    lines = [*sweep_reporting.aligned([head, *body]), "", *notes(content)]
    lines += [f"failed: {name}, {reason}" for name, reason in failures(content)]
    return "\n".join(lines)


def markdown(content: dict[str, Any]) -> str:
    """The table for a document."""
    head, body = rows(content)
    devices = f"Devices: {'; '.join(content['devices'])}."
    return "\n\n".join([documents.table(head, body), *notes(content), devices])
