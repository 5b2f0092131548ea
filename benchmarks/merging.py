"""Merges the figures of several commands into one file; all are of one machine."""

import os
from typing import Any

from elbo_lab import json_files
from elbo_lab.errors import UserError

# Fields that must be equal for figures to be in one file.
SAME = ("device", "processor", "machine")
# Parts that are lists of cells, and the fields that identify a cell.
CELLS = {
    "train": {"batch": int, "k": int},
    "replicates": {"batch": int, "k": int, "replicates": int},
    "systems": {"model": str},
    "sampling": {"model": str},
    "optimizers": {"batch": int},
}


def earlier(path: str | None, now: dict[str, Any]) -> dict[str, Any]:
    """The figures that the file has; an empty dict if the file does not exist.

    Args:
      path: the file; None: no file.
      now: the figures of this command.

    Raises:
      UserError: the file is of another machine or of another kind, or its folder is not writable.
    """
    if path and not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise UserError(f"--json={path} is not in a folder that can be written to.")
    if not path or not os.path.exists(path):
        return {}
    kind = {f"{part}?": list[names] for part, names in CELLS.items()}
    try:
        stored = json_files.read(path, kind)
    except UserError as error:
        raise UserError(f"--json={path} is not a file of this benchmark ({error}).") from error
    for name in SAME:
        if stored.get(name) != now[name]:
            raise UserError(
                f"--json={path} has figures of another machine ({stored.get(name)}, here "
                f"{now[name]}); name another file."
            )
    return stored


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The earlier figures, replaced by new ones; every part and cell keeps its command and date."""
    result = {**before, **{name: now[name] for name in SAME}}
    run = {name: now[name] for name in ("command", "date", "python", "versions")}
    for part in set(now) - set(run) - set(SAME):
        if part in CELLS:
            new_cells = [{**cell, "run": run} for cell in now[part]]
            result[part] = _merged_cells(before.get(part, []), new_cells, part)
        else:
            result[part] = {**now[part], "run": run}
    return result


def _merged_cells(before: list[dict], now: list[dict], part: str) -> list[dict]:
    """The cells of both lists, sorted; a new cell replaces an earlier one of the same name."""
    cells = {tuple(cell[key] for key in CELLS[part]): cell for cell in (*before, *now)}
    return [cells[name] for name in sorted(cells)]
