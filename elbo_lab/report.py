"""Results of a run: a table for the terminal and JSON files that are whole or absent."""

import contextlib
import json
import math
import os
import textwrap
from typing import Any, NamedTuple

import numpy as np

from elbo_lab.errors import UserError

# Lists and objects within each other in a JSON file; those of ours have six.
DEPTH = 50
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


def jsonable(value: Any) -> Any:
    """Converts to what JSON can hold.

    Args:
      value: dicts, sequences, NamedTuples (become dicts), paths, strings, None, numbers and arrays
        of numpy or JAX. NaN and infinities become None, since JSON has no word for them.

    Returns:
      The same of dicts, lists, strings, bool, int, float and None.

    Raises:
      TypeError: something in it is of another type.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "_asdict"):
        return jsonable(value._asdict())
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if hasattr(value, "__array__"):
        return jsonable(_plain(np.asarray(value)))
    raise TypeError(f"cannot write {value!r} of type {type(value).__name__} as JSON")


def write_summary(path, summary: dict) -> None:
    """Writes a dict as JSON with sorted keys, atomically; non-finite numbers become null.

    Args:
      path: the file, replaced if it exists; its folder has to exist.
      summary: see `jsonable` for what it may hold.

    Raises:
      UserError: the file cannot be written.
      TypeError: the summary holds something that JSON cannot.
    """
    text = json.dumps(jsonable(summary), allow_nan=False, indent=2, sort_keys=True)
    write_atomically(path, (text + "\n").encode())


def read_json(path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is missing, unreadable or no JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse_json(file.read())
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{os.fspath(path)} is not valid JSON: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, in which lists and objects are nested at most DEPTH deep: what
    works on the value afterwards may recurse.

    Raises:
      ValueError: the text is no JSON, or nested deeper.
    """
    try:
        value = json.loads(text)
        is_shallow = _is_shallow(value, DEPTH)
    except RecursionError:
        is_shallow = False
    if not is_shallow:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    return value


def _is_shallow(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)


def write_atomically(path, content: bytes) -> None:
    """Writes a file that is on the disk when this returns, and otherwise is as it was before.

    One process at a time may write a path.

    Raises:
      UserError: the system refuses, with its reason.
    """
    path = os.path.abspath(path)
    # One fixed name per file, so that a process killed here leaves no pile of leftovers.
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _sync_folder(folder: str) -> None:
    # The new name is in the folder's own data. Some file systems cannot sync folders: they keep
    # their own order, and the file itself is safe already.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain(array: np.ndarray) -> Any:
    if array.dtype.kind not in "biufU":  # bfloat16 and its like have kind "V"
        if array.dtype.kind != "V" or array.dtype.fields is not None:
            raise TypeError(f"cannot write an array of type {array.dtype} as JSON")
        array = array.astype(np.float64)
    return array.tolist()


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
