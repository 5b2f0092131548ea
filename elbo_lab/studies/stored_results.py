"""Small JSON files of results that are kept, such as those in results/."""

import datetime
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elbo_lab import json_files
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary
from elbo_lab.sweeps import sweep_results

# Flags that do not affect the numbers; they are not stored, since folders differ between machines.
_OWN = re.compile(
    r"--(workdir|results_dir|data_dir|manual_dir|platform|compilation_cache_dir|jobs)="
)


def shown_command(command: str) -> str:
    """A command line without the flags that do not affect its numbers."""
    return shlex.join(part for part in shlex.split(command) if not _OWN.match(part))


def has_headline(cell: dict[str, Any]) -> bool:
    """True if a cell of sweep.json has a finite headline."""
    if not cell.get("headline"):
        return False
    # JSON has no NaN: a value that is not finite was written as null.
    return cell["results"][cell["headline"]]["mean"] is not None


def is_complete(cell: dict[str, Any]) -> bool:
    """True if a cell of sweep.json has a finite headline, and all its replicates have been trained
    or have failed.
    """
    return has_headline(cell) and sweep_results.WAITING not in cell["failures"].values()


def day(file: Path) -> str:
    """The day on which a file was last changed, 2026-01-31."""
    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).date().isoformat()


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file, whose folder is created if it does not exist.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    write_summary(path, content)


def read(path: Path, kind: Any) -> dict[str, Any] | None:
    """The content of a file that `write` wrote; None if there is none.

    Args:
      path: the file.
      kind: of the content, as `json_files` checks it.

    Raises:
      UserError: it cannot be read, or is damaged.
    """
    return json_files.read(path, kind) if path.exists() else None


def read_undamaged(path: Path, kind: Any) -> dict[str, Any] | None:
    """The content of a file that can be computed again; None if it is missing or damaged.

    Args:
      path: the file.
      kind: of the content, as `json_files` checks it.
    """
    try:
        return json_files.read(path, kind)
    except UserError:
        return None


def conditions(sweep: dict[str, Any]) -> dict[str, Any]:
    """What the results of a sweep are stored with: versions, date, devices and the command."""
    names = ("elbo_lab", "jax", "date", "devices")
    return {name: sweep[name] for name in names} | {"command": shown_command(sweep["command"])}


def mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    """The mean over replicates with its standard error, None for a single replicate."""
    error = None
    if len(values) > 1:
        error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    return {"mean": float(np.mean(values)), "standard_error": error}
