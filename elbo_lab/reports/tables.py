"""Results of a run as a table for the terminal."""

import math
import textwrap
from typing import Any, NamedTuple

import numpy as np

_WIDTH = 80
# Units of counts, which are shown without decimals unless they are averages.
_COUNTED_UNITS = ("units", "steps", "images", "examples", "codes", "draws", "replicates")
# Columns of a line of the table; a number is split at its decimal point.
_WHOLE, _FRACTION, _UNIT = 3, 4, 6


class Result(NamedTuple):
    """One reported number with what is needed to read it."""

    name: str  # "log-likelihood"
    symbol: str  # "L_5000"; "" where there is none
    value: float
    standard_error: float | None = None
    over: str | None = None  # of the standard error: "images", "examples", "replicates"
    unit: str = ""  # "nats per image", "nats per example", "units", "s", "steps/s", "draws"
    bound: str | None = None  # "lower bound in expectation", "estimate"
    k: int | None = None  # K, draws inside the bound
    split: str | None = None  # "train", "test"
    count: int | None = None  # number of examples or replicates of the standard error


def result_table(title_rows: list[tuple[str, str]], results: list[Result]) -> str:
    """Lays out results as plain text of at most 80 columns (more for very long names alone).

    Args:
      title_rows: headings and texts, e.g. ("data", "mnist_small, dynamic binarization").
      results: one line each, in this order. Notes below the lines say what the standard errors are
        over and which quantities are bounds.

    Returns:
      The table without a newline at its end.
    """
    blocks = [_title_lines(title_rows), _result_lines(results), _notes(results)]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def replicate_results(per_replicate: list[list[Result]]) -> list[Result]:
    """Averages equal lists of results over replicates.

    Args:
      per_replicate: the results of each of R replicates, in the same order. Leave out replicates
        that failed: a NaN among them makes the mean NaN.

    Returns:
      The means, with the standard error over replicates (sample standard deviation / sqrt(R)). For
      R = 1 the results as they are, since one replicate says nothing about the spread.

    Raises:
      ValueError: there is no replicate, or the lists differ in what they report.
    """
    if not per_replicate:
        raise ValueError("replicate_results needs at least one replicate")
    labels = [_labels(results) for results in per_replicate]
    for index, own in enumerate(labels):
        if own != labels[0]:
            raise ValueError(f"replicate {index} reports {own}, replicate 0 reports {labels[0]}")
    if len(per_replicate) == 1:
        return list(per_replicate[0])
    return [_average(same) for same in zip(*per_replicate, strict=True)]


def binarization_text(mode: str) -> str:
    """The binarization of images in words: "dynamic binarization", or "no binarization"."""
    return f"{'no' if mode == 'none' else mode} binarization"


def _labels(results: list[Result]) -> list[tuple]:
    """The identity of each result, which replicates have in common."""
    return [(r.name, r.symbol, r.unit, r.k, r.split) for r in results]


def _average(results: tuple[Result, ...]) -> Result:
    """The mean of one result over replicates, with its standard error."""
    values = np.array([r.value for r in results], np.float64)
    return results[0]._replace(
        value=float(values.mean()),
        standard_error=float(values.std(ddof=1) / math.sqrt(len(values))),
        over="replicates",
        count=len(values),
    )


def _title_lines(rows: list[tuple[str, str]]) -> list[str]:
    width = max((len(heading) for heading, _ in rows), default=0) + 2
    lines = []
    for heading, text in rows:
        lines += textwrap.wrap(
            text or "-",
            _WIDTH,
            initial_indent=heading.ljust(width),
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _result_lines(results: list[Result]) -> list[str]:
    if not results:
        return []
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    line = ""
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        if not width:
            continue
        # The decimal points stand below each other.
        line += text.rjust(width) if column == _WHOLE else text.ljust(width)
        if column == _WHOLE:
            line += "" if widths[_FRACTION] else " "
        elif column != _UNIT:
            line += " " if column == _FRACTION else "  "
    return line.rstrip()


def _marks(results: list[Result]) -> dict[tuple, str]:
    """A letter for each kind of standard error, by which notes refer to it; "" for a lone kind."""
    kinds = list(dict.fromkeys((r.over, r.count) for r in results if r.standard_error is not None))
    if len(kinds) < 2:
        return dict.fromkeys(kinds, "")
    return {kind: f" {chr(ord('a') + index)}" for index, kind in enumerate(kinds)}


def _notes(results: list[Result]) -> list[str]:
    notes = []
    for (over, count), mark in _marks(results).items():
        head = f"+- ...{mark}" if mark else "+-"
        number = f"{count:,} " if count else ""
        tail = f" over {number}{over}" if over else ""
        notes.append(f"{head}: one standard error{tail}")
    bounds: dict[str, list[str]] = {}
    for result in results:
        if result.bound:
            bounds.setdefault(result.bound, []).append(result.symbol or result.name)
    for bound, symbols in bounds.items():
        notes.append(f"{', '.join(dict.fromkeys(symbols))}: {bound}")
    return [line for note in notes for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ")]


def number_and_error(value: float, error: float | None, unit: str = "") -> tuple[str, str]:
    """The value to the digits that its standard error leaves significant, and two digits of that
    error ("" if there is none), as texts.
    """
    if error is None or not math.isfinite(value):
        return _number(value, unit), "" if error is None else _number(error, "")
    if not math.isfinite(error) or error == 0:
        return _number(value, unit), _number(error, "")
    # The exponent of the rounded error: 0.0996 counts as 0.10.
    decimals = max(0, 1 - int(f"{error:.1e}".partition("e")[2]))
    if decimals > 7 or max(abs(value), error) >= 1e9:
        return f"{value:.4g}", f"{error:.1e}"
    return f"{value:,.{decimals}f}", f"{error:,.{decimals}f}"


def with_error(value: float, error: float | None) -> str:
    """ "-128.0 +- 2.5": both numbers of `number_and_error`, or the first alone."""
    number, shown_error = number_and_error(value, error)
    return f"{number} +- {shown_error}" if shown_error else number


def interval(difference: dict[str, Any]) -> str:
    """ "+1.74 (1.60, 1.88)", to the digits that the interval leaves significant.

    Args:
      difference: its "mean", and the interval's ends "low" and "high".
    """
    half = (difference["high"] - difference["low"]) / 2
    _, error = number_and_error(difference["mean"], half)
    decimals = len(error.partition(".")[2]) if half else 2
    mean, low, high = (f"{difference[name]:.{decimals}f}" for name in ("mean", "low", "high"))
    sign = "" if mean.startswith("-") else "+"
    return f"{sign}{mean} ({low}, {high})"


def _number(value: float, unit: str) -> str:
    """Four significant digits; all digits of a count."""
    if not math.isfinite(value):
        return str(float(value))
    if value == 0 or (float(value).is_integer() and unit in _COUNTED_UNITS):
        return f"{int(value):,}"
    digits = 3 - int(f"{abs(value):.3e}".partition("e")[2])
    if not -6 < digits < 9:
        return f"{value:.4g}"
    return f"{value:,.{max(0, digits)}f}"
