"""Folders that flags name, looked at before anything is computed."""

import os
import tempfile
from pathlib import Path

from elbo_lab.errors import UserError


def check(**folders: str | None) -> None:
    """Raises a UserError where a flag (the argument's name) names a file instead of a folder."""
    for flag, name in folders.items():
        if name is not None and os.path.exists(path := os.path.expanduser(name)):
            if not os.path.isdir(path):
                raise UserError(f"--{flag}={name} is a file; give a folder.")


def made(flag: str, name: str) -> Path:
    """Makes the folder that a flag names, before anything is computed.

    Raises:
      UserError: files cannot be written there.
    """
    path = Path(name).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(f"--{flag}={name} cannot be written: {error.strerror}.") from error
    return path
