"""Readers of the cells of sweep.json, for tables, the page and figures.

A quantity's title, symbol, unit and direction stand beside its values.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from elbo_lab.evaluation.quantities import LOG_PX
from elbo_lab.reports import words

# The text of a cell of a table without a value.
NOT_APPLICABLE = "-"

Cell = dict[str, Any]
Entry = dict[str, Any]  # a quantity of a cell: mean, standard error, title, symbol, unit, ...


def headline(cell: Cell) -> Entry | None:
    """The quantity that a cell with results is compared by; None if there is none."""
    return cell["results"][cell["headline"]] if cell["headline"] else None


def headlines(cells: Iterable[Cell]) -> list[Entry]:
    """The headlines of the cells that have one."""
    return [entry for cell in cells if (entry := headline(cell))]


def difference(cell: Cell) -> dict[str, Any] | None:
    """A cell's headline minus the baseline's; None if they do not compare."""
    return cell.get("difference", {}).get("headline")


def compared(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that are compared with the baseline."""
    return [cell for cell in cells if difference(cell)]


def other_quantities(cells: Sequence[Cell]) -> list[str]:
    """The names of the quantities beside the headlines; those that are compared come first."""
    others: dict[str, Entry] = {}
    for cell in cells:
        others |= {n: entry for n, entry in cell["results"].items() if n != cell["headline"]}
    return sorted(others, key=lambda name: not others[name]["compared"])


def entries(cells: Iterable[Cell], name: str) -> list[Entry]:
    """The entries of a quantity, of the cells that have it."""
    return [cell["results"][name] for cell in cells if name in cell["results"]]


def distinct(results: Iterable[Entry], key: str) -> list[str]:
    """The distinct texts of a key, in their order."""
    return list(dict.fromkeys(entry[key] for entry in results if entry[key]))


def heading(results: Sequence[Entry]) -> str:
    """The symbol of a quantity in several cells; its title if their numbers of draws differ."""
    symbols = distinct(results, "symbol")
    return symbols[0] if len(symbols) == 1 else distinct(results, "title")[0]


def unit(results: Iterable[Entry]) -> str:
    """The unit beside a number, e.g. "nats" of "nats per image"."""
    return " or ".join(dict.fromkeys(map(words.short_unit, distinct(results, "unit"))))


def with_layers(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that have stochastic layers."""
    return [cell for cell in cells if cell.get("active_units")]


def error_noun(results: Iterable[Entry]) -> str:
    """The noun of what standard errors are over, e.g. "replicates"."""
    return " or ".join(distinct(results, "over")) or "nothing"


def glossary(results: Iterable[Entry]) -> list[str]:
    """ "L_5000: log-likelihood, lower bound in expectation" for each symbol."""
    texts = {}
    for entry in results:
        parts = [entry["title"]] if entry["title"] != entry["symbol"] else []
        parts += [entry["direction"]] if entry["direction"] else []
        if parts:
            texts[entry["symbol"]] = ", ".join(parts)
    return [f"{symbol}: {text}" for symbol, text in texts.items()]


def bounds_beside_values(sweep: dict[str, Any], done: Iterable[Cell]) -> list[str]:
    """A note on which of the compared headlines are bounds; [] if all are the same quantity."""
    cells = [c for c in done if difference(c) or c["name"] == sweep["baseline"]]
    directions = {entry["symbol"]: entry["direction"] for entry in headlines(cells)}
    if len(directions) < 2:
        return []
    listed = ", ".join(f"{symbol} ({direction})" for symbol, direction in directions.items())
    of_what = headlines(cells)[0]["target"] or LOG_PX
    note = f"Compared are {listed}, all of {of_what}"
    return [f"{note}: a model that is measured by a lower bound may be better than its number."]
