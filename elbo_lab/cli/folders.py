"""Checks folders that flags name, before anything is computed."""

import os
import tempfile
from pathlib import Path

from elbo_lab.errors import UserError


def check(**folders: str | None) -> None:
    """Raises a UserError if a flag names a file instead of a folder.

    Args:
      **folders: flag -> its value. None and folders that do not exist yet pass.
    """
    for flag, name in folders.items():
        if name is None:
            continue
        path = os.path.expanduser(name)
        if os.path.exists(path) and not os.path.isdir(path):
            raise UserError(f"--{flag}={name} is a file; give a folder.")


def create(flag: str, name: str) -> Path:
    """Creates the folder that a flag names, and checks that files can be written there.

    Raises:
      UserError: the folder cannot be created or written to.
    """
    path = Path(name).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(f"--{flag}={name} cannot be written: {error.strerror}.") from error
    return path
