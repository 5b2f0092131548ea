"""Files that are whole or absent, JSON, and archives of arrays."""

import contextlib
import json
import math
import os
import zipfile
import zlib
from typing import Any

import numpy as np

from elbo_lab.errors import UserError

# Lists and objects within each other in a JSON file; those of ours have six.
DEPTH = 50
# What reading a damaged .npz raises; NotImplementedError comes from a flag's or a method's bit.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)


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
