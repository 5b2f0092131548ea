"""Training curves: JSON lines, which are the record, and TensorBoard events, which follow it.

    workdir/metrics.jsonl   {"step": 1000, "bound": -101.5, "kl": 19.5}      one line a record,
                            {"step": 1000, "bound": [-101.5, -101.7], ...}   or a number a replicate
    workdir/tensorboard/    one event file, made anew from the lines when a run is resumed

A number that is NaN or infinite is written as null, since JSON has no word for it, and is read back
as NaN; TensorBoard shows it as NaN as well. Lines that are lost or damaged are left out, and
`missing_steps` tells which steps they were of.
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
# Event files are flushed to the disk at most this often; what a kill costs is made anew.
_FLUSH_SECONDS = 2.0
_LARGEST_STEP = 2**62


class MetricLog:
    """Writes the training curves of one run; one process at a time may.

    Write a step's record before its checkpoint is saved: then a run resumed there has it.
    """

    def __init__(
        self, workdir, resume_step: int, tensorboard: bool = True, names: Sequence[str] = ()
    ):
        """Opens the log of a run at a step, and forgets what an earlier process wrote after it.

        Args:
          workdir: the run's folder; created if need be.
          resume_step: records of later steps are removed, and so is a line that a kill cut short.
            -1 removes all.
          tensorboard: whether to write event files too.
          names: what every record has; see `read_metrics`.

        Raises:
          UserError: the folder or a file in it cannot be written or read.
        """
        self._workdir = os.path.abspath(workdir)
        self._path = os.path.join(self._workdir, _LINES)
        self._events = _EventFile(os.path.join(self._workdir, _EVENTS)) if tensorboard else None
        _make_folder(self._events.folder if self._events else self._workdir)
        earlier = read_metrics(self._workdir, names)
        self._kept = [record for record in earlier if record["step"] <= resume_step]
        lines = b"".join(_line(record) for record in self._kept)
        if lines != _read(self._path):
            write_atomically(self._path, lines)
        self._size = len(lines)

    def write(self, record: dict[str, Any]) -> None:
        """Adds one record, which is in the file when this returns.

        Args:
          record: "step" (int) and any names with a number or, one per replicate, R numbers.

        Raises:
          ValueError: no step, or a value is neither a number nor a sequence of numbers.
          UserError: the disk refuses, with its reason.
        """
        record = _checked(record)
        line = _line(record)
        try:
            # Opened each time: nothing is left in a buffer that could be written twice or later.
            with open(self._path, "ab+") as file:
                if file.tell() != self._size:
                    # Another program has changed the file, and may have cut a line short.
                    file.write(_end_of_line(file))
                file.write(line)
                self._size = file.tell()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        self._write_events([_numbers(json.loads(line))], last=False)

    def sync(self) -> None:
        """Returns when all records are on the disk.

        Raises:
          UserError: the disk refuses, with its reason.
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
            self._events.write(self._kept + records, last)
        except UserError:
            self._events = None  # it cannot be completed: `close` must not try again
            raise
        self._kept = []


def read_metrics(workdir, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Reads the records of a run.

    Args:
      workdir: the run's folder.
      names: what every record has besides its step: numbers, or lists of R numbers.

    Returns:
      One dict per record, of rising steps: "step" (int) and numbers or lists of R numbers, NaN for
      null; [] if there is no file. A last line that is cut short is left out; other lines that are
      damaged are too, with a warning.

    Raises:
      UserError: the file cannot be read.
    """
    path = os.path.join(os.path.abspath(workdir), _LINES)
    lines = _read(path).split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    records: list[dict[str, Any]] = []
    damaged = []
    for number, line in enumerate(lines, start=1):
        try:
            record = _numbers(_checked(parse_json(line)))
            _check_follows(record, records, names)
            records.append(record)
        except (ValueError, OverflowError):
            damaged += [number] * (number < len(lines))
    if damaged:
        words = f"line {damaged[0]} is damaged and left out"
        if len(damaged) > 1:
            words = f"{len(damaged)} lines are damaged and left out, the first is line {damaged[0]}"
        warnings.warn(f"{path}: {words}", DamageWarning, stacklevel=1)
    return records


def covered_steps(records: list[dict[str, Any]], steps_per_line: int) -> list[tuple[int, int]]:
    """The steps that each record tells of, those of one compiled call, as ranges (first, last) of
    steps counted from 1.

    Args:
      records: of rising steps.
      steps_per_line: steps of a call; the last one may have fewer.
    """
    ends = [record["step"] for record in records]
    starts = [(end - 1) // steps_per_line * steps_per_line + 1 for end in ends]
    return list(zip(starts, ends, strict=True))


def missing_steps(
    records: list[dict[str, Any]], last_step: int, steps_per_line: int
) -> list[tuple[int, int]]:
    """The steps that no record tells of, as ranges (first, last) of steps counted from 1.

    Args:
      records: of rising steps.
      last_step: how many steps have been done.
      steps_per_line: see `covered_steps`.
    """
    covered = [(0, 0), *covered_steps(records, steps_per_line), (last_step + 1, last_step + 1)]
    pairs = zip(covered, covered[1:], strict=False)
    return [(before[1] + 1, after[0] - 1) for before, after in pairs if after[0] - before[1] > 1]


def warn_of_missing(workdir, missing: Sequence[tuple[int, int]]) -> None:
    """Says which steps of `missing_steps` a run's curves lack."""
    ranges = [f"{first:,} to {last:,}" for first, last in missing[:5]]
    ranges += [f"{len(missing) - 5} more ranges"] if len(missing) > 5 else []
    warnings.warn(
        f"{os.path.join(workdir, _LINES)} has lost the lines of steps {', '.join(ranges)}: curves "
        "lack them, and so does the training bound if they are of the last pass",
        DamageWarning,
        stacklevel=1,
    )


class _EventFile:
    """One TensorBoard event file; begun, and older ones deleted, at the first write."""

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
    scalars = [
        scalar for name, item in record.items() if name != "step" for scalar in _scalars(name, item)
    ]
    return events.scalars_event(time.time(), record["step"], scalars)


def _scalars(name: str, item: float | list[float]) -> list[tuple[str, float]]:
    """A value under its name; replicates under name/replicate_0, ..., their mean under the name."""
    if not isinstance(item, list):
        return [(name, item)]
    # A replicate that failed stays visible as NaN in its own curve, and is left out of the mean.
    finite = [value for value in item if math.isfinite(value)]
    mean = sum(finite) / len(finite) if finite else math.nan
    return [(name, mean)] + [(f"{name}/replicate_{i}", value) for i, value in enumerate(item)]


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """The record as JSON has it, or ValueError."""
    try:
        plain = {"step": operator.index(record["step"])}
        plain |= {name: item for name, item in jsonable(dict(record)).items() if name != "step"}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a record needs a step and numbers, not {record!r}") from error
    if not 0 <= plain["step"] <= _LARGEST_STEP:
        raise ValueError(f"step has to be at least 0, not {plain['step']}")
    for name, item in plain.items():
        for value in item if isinstance(item, list) else [item]:
            if value is not None and (
                not isinstance(value, int | float) or isinstance(value, bool)
            ):
                raise ValueError(f"{name} has to be a number or R numbers, not {item!r}")
    return plain


def _check_follows(
    record: dict[str, Any], earlier: list[dict[str, Any]], names: Sequence[str]
) -> None:
    """Raises ValueError if the record does not go on where the earlier ones ended."""
    if missing := [name for name in names if name not in record]:
        raise ValueError(f"it has no {missing[0]}")
    if not earlier:
        return
    if record["step"] <= earlier[-1]["step"]:
        raise ValueError("its step is not above the one before")
    for name in names:
        if _replicates(record[name]) != _replicates(earlier[-1][name]):
            raise ValueError(f"its {name} is of other replicates")


def _replicates(item: float | list[float]) -> int:
    return len(item) if isinstance(item, list) else 1


def _numbers(plain: dict[str, Any]) -> dict[str, Any]:
    def number(value):
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


def _end_of_line(file) -> bytes:
    """What has to be written before a new line."""
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
