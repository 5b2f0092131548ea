"""Results of a run as a table for the terminal."""

import math
import textwrap
from typing import NamedTuple

import numpy as np

_WIDTH = 80
# Counts are shown without decimals, unless they are averages.
_COUNTED_UNITS = ("units", "steps", "images", "draws", "replicates")


class Result(NamedTuple):
    """One reported number with what is needed to read it."""

    name: str  # "log-likelihood"
    symbol: str  # "L_5000"; "" where there is none
    value: float
    standard_error: float | None = None
    over: str | None = None  # what the standard error is over: "images", "replicates"
    unit: str = ""  # "nats per image", "units", "s", "steps/s", "draws"
    bound: str | None = None  # "lower bound in expectation", "estimate"
    k: int | None = None  # K, draws inside the bound
    split: str | None = None  # "train", "test"
    count: int | None = None  # how many images or replicates the standard error is over


def result_table(title_rows: list[tuple[str, str]], results: list[Result]) -> str:
    """Lays out results as plain text of at most 80 columns (more only for very long names).

    Args:
      title_rows: headings and texts, e.g. ("data", "mnist_small, dynamic binarization").
      results: one line each, in this order. Notes below the lines say what the standard errors are
        over and which quantities are bounds.

    Returns:
      The table without a newline at its end.
    """
    lines = _title_lines(title_rows)
    if results:
        lines += [""] * bool(lines) + _result_lines(results)
    notes = _notes(results)
    return "\n".join(lines + [""] * bool(notes) + notes)


def replicate_results(per_replicate: list[list[Result]]) -> list[Result]:
    """Averages equal lists of results over replicates.

    Args:
      per_replicate: for each of R replicates its results, in the same order. Leave out replicates
        that failed: a NaN among them makes the mean NaN.

    Returns:
      The means, with the standard error over replicates (sample standard deviation / sqrt(R)). For
      R = 1 the results as they are, since one replicate says nothing about the spread.

    Raises:
      ValueError: there is no replicate, or the lists differ in what they report.
    """
    if not per_replicate:
        raise ValueError("replicate_results needs at least one replicate")
    labels = [[(r.name, r.symbol, r.unit, r.k, r.split) for r in rs] for rs in per_replicate]
    for index, other in enumerate(labels):
        if other != labels[0]:
            raise ValueError(f"replicate {index} reports {other}, replicate 0 reports {labels[0]}")
    if len(per_replicate) == 1:
        return list(per_replicate[0])
    return [_average(same) for same in zip(*per_replicate, strict=True)]


def binarization_text(mode: str) -> str:
    """How images became binary, in words: "dynamic binarization", or "no binarization"."""
    return f"{'no' if mode == 'none' else mode} binarization"


def _average(results: tuple[Result, ...]) -> Result:
    values = np.array([r.value for r in results], np.float64)
    return results[0]._replace(
        value=float(values.mean()),
        standard_error=float(values.std(ddof=1) / math.sqrt(len(values))),
        over="replicates",
        count=len(values),
    )


def _title_lines(rows: list[tuple[str, str]]) -> list[str]:
    width = max((len(heading) for heading, _ in rows), default=0) + 2
    return [
        line
        for heading, text in rows
        for line in textwrap.wrap(
            text or "-",
            _WIDTH,
            initial_indent=heading.ljust(width),
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def _result_lines(results: list[Result]) -> list[str]:
    marks = _marks(results)
    rows = []
    for result in results:
        value, error = number_and_error(result.value, result.standard_error, result.unit)
        whole, point, fraction = value.partition(".")
        mark = marks.get((result.over, result.count), "") if error else ""
        rows.append(
            [
                result.name,
                result.split or "",
                result.symbol,
                whole,
                point + fraction,
                f"+- {error}{mark}" if error else "",
                result.unit,
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return [_line(row, widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    line = ""
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        if not width:
            continue
        # The decimal points stand below each other: digits before it right, after it left.
        line += text.rjust(width) if column == 3 else text.ljust(width)
        line += {3: "", 4: " ", 6: ""}.get(column, "  ")
        if column == 3 and not widths[4]:
            line += " "
    return line.rstrip()


def _marks(results: list[Result]) -> dict[tuple, str]:
    """A letter per kind of standard error where there are several, so that notes can tell them."""
    kinds = list(dict.fromkeys((r.over, r.count) for r in results if r.standard_error is not None))
    if len(kinds) < 2:
        return dict.fromkeys(kinds, "")
    return {kind: f" {chr(ord('a') + index)}" for index, kind in enumerate(kinds)}


def _notes(results: list[Result]) -> list[str]:
    notes = []
    for (over, count), mark in _marks(results).items():
        across = " ".join(([f"{count:,}"] if count else []) + ([over] if over else []))
        notes.append(
            f"+-{mark and ' ...' + mark}: one standard error"
            + (f" over {across}" if across else "")
        )
    bounds: dict[str, list[str]] = {}
    for result in results:
        if result.bound:
            bounds.setdefault(result.bound, []).append(result.symbol or result.name)
    for bound, symbols in bounds.items():
        notes.append(f"{', '.join(dict.fromkeys(symbols))}: {bound}")
    return [line for note in notes for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ")]


def number_and_error(value: float, error: float | None, unit: str = "") -> tuple[str, str]:
    """The value to the digits that its standard error leaves, and two digits of that error; "" for
    the error where there is none.
    """
    if error is None or not math.isfinite(value):
        return _number(value, unit), "" if error is None else _number(error, "")
    if not math.isfinite(error) or error == 0:
        return _number(value, unit), _number(error, "")
    # From the rounded number: an error of 0.0996 counts as 0.10.
    decimals = max(0, 1 - int(f"{error:.1e}".partition("e")[2]))
    if decimals > 7 or max(abs(value), error) >= 1e9:
        return f"{value:.4g}", f"{error:.1e}"
    return f"{value:,.{decimals}f}", f"{error:,.{decimals}f}"


def _number(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return str(float(value))
    if value == 0 or (float(value).is_integer() and unit in _COUNTED_UNITS):
        return f"{int(value):,}"
    digits = 3 - int(f"{abs(value):.3e}".partition("e")[2])
    if not -6 < digits < 9:
        return f"{value:.4g}"
    return f"{value:,.{max(0, digits)}f}"
