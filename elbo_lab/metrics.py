"""Training curves: JSON lines, which are the record, and TensorBoard events, which follow it.

    workdir/metrics.jsonl   {"step": 1000, "bound": -101.5, "kl": 19.5}      one line a record,
                            {"step": 1000, "bound": [-101.5, -101.7], ...}   or a number a replicate
    workdir/tensorboard/    one event file, made anew from the lines when a run is resumed

A number that is NaN or infinite is written as null, since JSON has no word for it, and is read back
as NaN; TensorBoard shows it as NaN as well.
"""

import contextlib
import json
import math
import operator
import os
import time
import warnings
from typing import Any

from elbo_lab.errors import UserError
from elbo_lab.report import jsonable, write_atomically

_LINES = "metrics.jsonl"
_EVENTS = "tensorboard"
# Event files are flushed to the disk at most this often; what a kill costs is made anew.
_FLUSH_SECONDS = 2.0


class MetricLog:
    """Writes the training curves of one run; one process at a time may.

    Write a step's record before its checkpoint is saved: then a run resumed there has it.
    """

    def __init__(self, workdir, resume_step: int, tensorboard: bool = True):
        """Opens the log of a run at a step, and forgets what an earlier process wrote after it.

        TensorBoard's library is imported, and its event file made, at the first record or at
        `close`, so that training starts sooner.

        Args:
          workdir: the run's folder; created if need be.
          resume_step: records of later steps are removed, and so is a line that a kill cut short.
            -1 removes all.
          tensorboard: whether to write event files too.

        Raises:
          UserError: the folder or a file in it cannot be written or read.
        """
        self._workdir = os.path.abspath(workdir)
        self._path = os.path.join(self._workdir, _LINES)
        self._events = _EventFile(os.path.join(self._workdir, _EVENTS)) if tensorboard else None
        _make_folder(self._events.folder if self._events else self._workdir)
        self._kept = [r for r in read_metrics(self._workdir) if r["step"] <= resume_step]
        lines = b"".join(_line(record) for record in self._kept)
        if lines != _read(self._path):
            write_atomically(self._path, lines)

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
            with open(self._path, "ab") as file:
                file.write(line)
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        self._write_events([_numbers(json.loads(line))], last=False)

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


def read_metrics(workdir) -> list[dict[str, Any]]:
    """Reads the records of a run.

    Args:
      workdir: the run's folder.

    Returns:
      One dict per record in the order of writing: "step" (int) and numbers or lists of R numbers,
      NaN for null; [] if there is no file. A last line that is cut short is left out; other lines
      that are damaged are too, with a warning.

    Raises:
      UserError: the file cannot be read.
    """
    path = os.path.join(os.path.abspath(workdir), _LINES)
    lines = _read(path).split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_numbers(_checked(json.loads(line))))
        except ValueError:
            if number < len(lines):
                warnings.warn(f"{path}: line {number} is damaged, left out", stacklevel=2)
    return records


class _EventFile:
    """One TensorBoard event file; begun, and older ones deleted, at the first write."""

    def __init__(self, folder: str):
        self.folder = folder
        self._writer = None
        self._flushed = -math.inf

    def write(self, records: list[dict[str, Any]], last: bool) -> None:
        # The plain record writer: tensorboardX.SummaryWriter has a thread that dies on a full disk,
        # and then blocks its caller for ever.
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event

        try:
            if self._writer is None:
                # First delete, then write: a new file may have the same name.
                _remove_events(self.folder)
                name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
                self._writer = RecordWriter(os.path.join(self.folder, name))
                begin = Event(wall_time=time.time(), file_version="brain.Event:2")
                self._writer.write(begin.SerializeToString())
            for record in records:
                self._writer.write(_event(record).SerializeToString())
            if last or time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
            if last:
                self.close()
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()
            raise UserError(f"cannot write in {self.folder}: {error.strerror}") from error

    def close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None


def _event(record: dict[str, Any]):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=tag, simple_value=value)
        for name, item in record.items()
        if name != "step"
        for tag, value in _scalars(name, item)
    ]
    return Event(wall_time=time.time(), step=record["step"], summary=Summary(value=values))


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
        plain = {"step": operator.index(record["step"]), **jsonable(dict(record))}
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record needs a step and numbers, not {record!r}") from error
    for name, item in plain.items():
        for value in item if isinstance(item, list) else [item]:
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"{name} has to be a number or R numbers, not {item!r}")
    return plain


def _numbers(plain: dict[str, Any]) -> dict[str, Any]:
    def number(value):
        return math.nan if value is None else value

    return {
        name: [number(value) for value in item] if isinstance(item, list) else number(item)
        for name, item in plain.items()
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


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}") from error


def _remove_events(folder: str) -> None:
    for name in os.listdir(folder):
        if name.startswith("events.out.tfevents."):
            os.remove(os.path.join(folder, name))
