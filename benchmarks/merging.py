"""A file of figures that grows: several commands, cell by cell, on one machine."""

import os
from typing import Any

from elbo_lab import json_files
from elbo_lab.errors import UserError

# What must be alike for figures to stand in one file.
SAME = ("device", "processor", "machine")
# Lists of cells, and what names a cell.
CELLS = {
    "train": {"batch": int, "k": int},
    "replicates": {"batch": int, "k": int, "replicates": int},
    "systems": {"model": str},
}


def earlier(path: str | None, now: dict[str, Any]) -> dict[str, Any]:
    """What the file holds already; nothing if there is none.

    Raises:
      UserError: it is of another machine, or no such file, or cannot be written.
    """
    if path and not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise UserError(f"--json={path} is in no folder that can be written to.")
    if not path or not os.path.exists(path):
        return {}
    kind = {f"{part}?": list[names] for part, names in CELLS.items()}
    try:
        found = json_files.read(path, kind)
    except UserError as error:
        raise UserError(f"--json={path} is no file of this benchmark ({error}).") from error
    for name in SAME:
        if found.get(name) != now[name]:
            raise UserError(
                f"--json={path} holds figures of another machine ({found.get(name)}, here "
                f"{now[name]}); name another file."
            )
    return found


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """New figures in the place of earlier ones; every part keeps its own command and date."""
    whole = {**before, **{name: now[name] for name in SAME}}
    own = {name: now[name] for name in ("command", "date", "python", "versions")}
    parts = set(now) - set(own) - set(SAME)
    for part in parts:
        value = now[part]
        if part in CELLS:
            value = _with_cells(before.get(part, []), [{**c, "run": own} for c in value], part)
        else:
            value = {**value, "run": own}
        whole[part] = value
    return whole


def _with_cells(before: list[dict], now: list[dict], part: str) -> list[dict]:
    def name(cell: dict) -> tuple:
        return tuple(cell[key] for key in CELLS[part])

    cells = {name(cell): cell for cell in (*before, *now)}
    return [cells[key] for key in sorted(cells)]
