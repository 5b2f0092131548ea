"""Training curves: JSON lines, and TensorBoard events that are made from them.

    workdir/metrics.jsonl   one record a line, with a number for each name, or one per replicate:
                            {"step": 1000, "bound": -101.5, "kl": 19.5}
                            {"step": 1000, "bound": [-101.5, -101.7], "kl": [19.5, 19.4]}
    workdir/tensorboard/    one event file, written anew from the lines when a run is resumed

NaN and infinite numbers, which JSON cannot hold, are written as null and read back as NaN;
TensorBoard shows them as NaN too. Lines that are damaged are left out; `missing_steps` gives the
steps that no line covers.
"""

import contextlib
import json
import math
import operator
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

from elbo_lab.errors import DamageWarning, UserError
from elbo_lab.files import jsonable, parse_json, write_atomically
from elbo_lab.training import events

_LINES = "metrics.jsonl"
_EVENTS = "tensorboard"
# Event files are flushed at most this often: events that a kill loses are written anew on resuming.
_FLUSH_SECONDS = 2.0
_LARGEST_STEP = 2**62


class MetricLog:
    """Writes the training curves of one run; only one process at a time may.

    Write a step's record before saving its checkpoint, so that a run resumed there has the record.
    """

    def __init__(
        self, workdir, resume_step: int, tensorboard: bool = True, names: Sequence[str] = ()
    ):
        """Opens the log of a run that is resumed at a step; removes records of later steps.

        Args:
          workdir: the run's folder; created if need be.
          resume_step: records of later steps are removed, and so is a line that a kill cut short.
            -1 removes all.
          tensorboard: whether to write event files too.
          names: the names that every record has; see `read_metrics`.

        Raises:
          UserError: the folder or a file in it cannot be written or read.
        """
        self._workdir = os.path.abspath(workdir)
        self._path = os.path.join(self._workdir, _LINES)
        self._events = _EventFile(os.path.join(self._workdir, _EVENTS)) if tensorboard else None
        _make_folder(self._events.folder if self._events else self._workdir)
        earlier = read_metrics(self._workdir, names)
        kept = [record for record in earlier if record["step"] <= resume_step]
        self._unwritten_events = kept  # until the event file is begun
        lines = b"".join(_line(record) for record in kept)
        if lines != _read(self._path):
            write_atomically(self._path, lines)
        self._size = len(lines)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one record; it is in the file when this returns.

        Args:
          record: "step" (int), and name -> a number, or R numbers, one per replicate.

        Raises:
          ValueError: no step, or a value is neither a number nor a sequence of numbers.
          UserError: the file cannot be written, with the system's reason.
        """
        line = _line(_checked(record))
        try:
            # Opened for each record, so that no buffer is written later or twice.
            with open(self._path, "ab+") as file:
                if file.tell() != self._size:
                    # Another program has changed the file, and may have cut a line short.
                    file.write(_missing_line_end(file))
                file.write(line)
                self._size = file.tell()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        self._write_events([_nulls_to_nan(json.loads(line))], last=False)

    def sync(self) -> None:
        """Forces all records to the disk.

        Raises:
          UserError: the file cannot be written, with the system's reason.
        """
        try:
            with open(self._path, "ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Completes the event file. Closing twice does no harm."""
        self._write_events([], last=True)
        self._events = None

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _write_events(self, records: list[dict[str, Any]], last: bool) -> None:
        if not self._events:
            return
        try:
            self._events.write(self._unwritten_events + records, last)
        except UserError:
            self._events = None  # `close` must not try again to complete the file
            raise
        self._unwritten_events = []


def read_metrics(workdir, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Reads the records of a run.

    Args:
      workdir: the run's folder.
      names: the names that every record has besides "step", with a number or a list of R numbers.

    Returns:
      One dict per record, steps rising: "step" (int) and numbers or lists of R numbers, NaN for
      null; [] if there is no file. A last line that is cut short is left out; other damaged lines
      are left out with a warning.

    Raises:
      UserError: the file cannot be read.
    """
    path = os.path.join(os.path.abspath(workdir), _LINES)
    lines = _read(path).split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    records: list[dict[str, Any]] = []
    damaged = []  # line numbers
    for number, line in enumerate(lines, start=1):
        try:
            record = _nulls_to_nan(_checked(parse_json(line)))
            _check_follows(record, records, names)
        except (ValueError, OverflowError):
            is_last = number == len(lines)
            if not is_last:
                damaged.append(number)
        else:
            records.append(record)
    if damaged:
        message = f"line {damaged[0]} is damaged and left out"
        if len(damaged) > 1:
            message = (
                f"{len(damaged)} lines are damaged and left out, the first is line {damaged[0]}"
            )
        warnings.warn(f"{path}: {message}", DamageWarning, stacklevel=1)
    return records


def covered_steps(records: list[dict[str, Any]], steps_per_line: int) -> list[tuple[int, int]]:
    """The steps that each record covers, as ranges (first, last) of steps counted from 1.

    A record covers one compiled call, and its "step" is the last of them.

    Args:
      records: with rising steps.
      steps_per_line: steps of a call; the last call may have fewer.
    """
    ends = [record["step"] for record in records]
    starts = [(end - 1) // steps_per_line * steps_per_line + 1 for end in ends]
    return list(zip(starts, ends, strict=True))


def missing_steps(
    records: list[dict[str, Any]], last_step: int, steps_per_line: int
) -> list[tuple[int, int]]:
    """The steps that no record covers, as ranges (first, last) of steps counted from 1.

    Args:
      records: with rising steps.
      last_step: number of steps done.
      steps_per_line: see `covered_steps`.
    """
    covered = [(0, 0), *covered_steps(records, steps_per_line), (last_step + 1, last_step + 1)]
    pairs = zip(covered, covered[1:], strict=False)
    return [(before[1] + 1, after[0] - 1) for before, after in pairs if after[0] - before[1] > 1]


def warn_of_missing(workdir, missing: Sequence[tuple[int, int]]) -> None:
    """Warns of the steps that a run's curves lack, as `missing_steps` gives them."""
    ranges = [f"{first:,} to {last:,}" for first, last in missing[:5]]
    if len(missing) > 5:
        ranges.append(f"{len(missing) - 5} more ranges")
    warnings.warn(
        f"{os.path.join(workdir, _LINES)} has lost the lines of steps {', '.join(ranges)}: curves "
        "lack these steps, and the training bound too if they belong to the last pass",
        DamageWarning,
        stacklevel=1,
    )


class _EventFile:
    """One TensorBoard event file. The first write deletes older files and begins this one."""

    def __init__(self, folder: str):
        self.folder = folder
        self._file = None
        self._flushed = -math.inf

    def write(self, records: list[dict[str, Any]], last: bool) -> None:
        try:
            if self._file is None:
                # First delete, then write: a new file may have the same name.
                _remove_events(self.folder)
                name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
                self._file = open(os.path.join(self.folder, name), "ab")
                self._file.write(events.version_event(time.time()))
            for record in records:
                self._file.write(_event(record))
            if last or time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()
            if last:
                self.close()
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()
            raise UserError(f"cannot write in {self.folder}: {error.strerror}") from error

    def close(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()


def _event(record: dict[str, Any]) -> bytes:
    scalars: list[tuple[str, float]] = []
    for name, item in record.items():
        if name != "step":
            scalars += _scalars(name, item)
    return events.scalars_event(time.time(), record["step"], scalars)


def _scalars(name: str, item: float | list[float]) -> list[tuple[str, float]]:
    """(tag, value) of a number; of R numbers those of each replicate, and their mean as `name`."""
    if not isinstance(item, list):
        return [(name, item)]
    # A replicate that failed stays visible as NaN in its own curve and is left out of the mean.
    finite = [value for value in item if math.isfinite(value)]
    mean = sum(finite) / len(finite) if finite else math.nan
    return [(name, mean)] + [(f"{name}/replicate_{i}", value) for i, value in enumerate(item)]


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """The record in JSON's types, "step" first.

    Raises:
      ValueError: it is not a valid record.
    """
    try:
        plain = {"step": operator.index(record["step"])}
        plain |= {name: item for name, item in jsonable(dict(record)).items() if name != "step"}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a record needs a step and numbers, not {record!r}") from error
    if not 0 <= plain["step"] <= _LARGEST_STEP:
        raise ValueError(f"step must lie in 0..{_LARGEST_STEP}, not {plain['step']}")
    for name, item in plain.items():
        values = item if isinstance(item, list) else [item]
        if not all(_is_number_or_null(value) for value in values):
            raise ValueError(f"{name} must be a number or a list of R numbers, not {item!r}")
    return plain


def _is_number_or_null(value: Any) -> bool:
    if isinstance(value, bool):  # bool is a subclass of int
        return False
    return value is None or isinstance(value, int | float)


def _check_follows(
    record: dict[str, Any], earlier: list[dict[str, Any]], names: Sequence[str]
) -> None:
    """Raises ValueError if a name is missing or the record cannot follow the earlier ones."""
    if missing := [name for name in names if name not in record]:
        raise ValueError(f"it has no {missing[0]}")
    if not earlier:
        return
    if record["step"] <= earlier[-1]["step"]:
        raise ValueError("its step is not above the one before")
    for name in names:
        if _num_replicates(record[name]) != _num_replicates(earlier[-1][name]):
            raise ValueError(f"its {name} has another number of replicates than the one before")


def _num_replicates(item: float | list[float]) -> int:
    return len(item) if isinstance(item, list) else 1


def _nulls_to_nan(plain: dict[str, Any]) -> dict[str, Any]:
    """The record with floats for all numbers, NaN for null."""

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    step = {"step": plain["step"]}
    return step | {
        name: [number(value) for value in item] if isinstance(item, list) else number(item)
        for name, item in plain.items()
        if name != "step"
    }


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(jsonable(record), allow_nan=False).encode() + b"\n"


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _missing_line_end(file) -> bytes:
    """The line end that a file lacks: b"" if it is empty or ends with one."""
    if not file.tell():
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}") from error


def _remove_events(folder: str) -> None:
    for name in os.listdir(folder):
        if name.startswith("events.out.tfevents."):
            os.remove(os.path.join(folder, name))
