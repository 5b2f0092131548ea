"""What cells of sweep.json hold, as tables, the page and figures read it.

What is read of a quantity (title, symbol, unit, direction) stands beside its values.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from elbo_lab.evaluation.quantities import LOG_PX

# Stands where a cell has no value of an axis, or nothing of a column.
NOT_APPLICABLE = "-"

Cell = dict[str, Any]
Entry = dict[str, Any]  # a quantity of a cell: mean, standard error, title, symbol, unit, ...


def headline(cell: Cell) -> Entry | None:
    """The quantity that a cell with results is compared by, if there is one."""
    return cell["results"][cell["headline"]] if cell["headline"] else None


def headlines(cells: Iterable[Cell]) -> list[Entry]:
    """The headlines of the cells that have one."""
    return [entry for cell in cells if (entry := headline(cell))]


def difference(cell: Cell) -> dict[str, Any] | None:
    """A cell's headline minus the baseline's, where they compare."""
    return cell.get("difference", {}).get("headline")


def compared(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that are compared with the baseline."""
    return [cell for cell in cells if difference(cell)]


def other_quantities(cells: Sequence[Cell]) -> list[str]:
    """The quantities beside the headlines, those that are compared first."""
    found = {
        name: entry
        for cell in cells
        for name, entry in cell["results"].items()
        if name != cell["headline"]
    }
    return sorted(found, key=lambda name: not found[name]["compared"])


def entries(cells: Iterable[Cell], name: str) -> list[Entry]:
    """A quantity of the cells that have it."""
    return [cell["results"][name] for cell in cells if name in cell["results"]]


def each(found: Iterable[Entry], key: str) -> list[str]:
    """The different texts of a key, in their order."""
    return list(dict.fromkeys(entry[key] for entry in found if entry[key]))


def heading(found: Sequence[Entry]) -> str:
    """The symbol of a quantity in several cells, or its title where their numbers of draws
    differ.
    """
    symbols = each(found, "symbol")
    return symbols[0] if len(symbols) == 1 else each(found, "title")[0]


def unit(found: Iterable[Entry]) -> str:
    """The unit beside a number: nats per image are just nats."""
    return " or ".join(text.removesuffix(" per image") for text in each(found, "unit"))


def with_layers(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that have stochastic layers."""
    return [cell for cell in cells if cell.get("active_units")]


def over(found: Iterable[Entry]) -> str:
    """What standard errors are over."""
    return " or ".join(each(found, "over")) or "nothing"


def glossary(found: Iterable[Entry]) -> list[str]:
    """ "L_5000: log-likelihood, lower bound in expectation" for each symbol."""
    texts = {}
    for entry in found:
        words = [entry["title"]] if entry["title"] != entry["symbol"] else []
        words += [entry["direction"]] if entry["direction"] else []
        if words:
            texts[entry["symbol"]] = ", ".join(words)
    return [f"{symbol}: {text}" for symbol, text in texts.items()]


def bounds_beside_values(sweep: dict[str, Any], done: Iterable[Cell]) -> list[str]:
    """Where compared headlines are different quantities: which are bounds, and which are exact."""
    cells = [c for c in done if difference(c) or c["name"] == sweep["baseline"]]
    found = {entry["symbol"]: entry["direction"] for entry in headlines(cells)}
    if len(found) < 2:
        return []
    listed = ", ".join(f"{symbol} ({direction})" for symbol, direction in found.items())
    note = f"Compared are {listed}, all of {LOG_PX}"
    return [f"{note}: a model that is measured by a lower bound may be better than its number."]
