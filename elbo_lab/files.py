"""Atomic writes, JSON, and the errors that a damaged .npz file raises."""

import contextlib
import io
import json
import math
import os
import zipfile
import zlib
from typing import Any

import numpy as np

from elbo_lab.errors import UserError

# Maximum depth of nested lists and objects in a JSON file; our own files have a depth of six.
DEPTH = 50
# Exceptions from reading a damaged .npz file. NotImplementedError: a wrong bit in a zip entry's
# flags or compression method.
DAMAGE_ERRORS = (
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
    """Converts a value to types that JSON can represent.

    Args:
      value: dicts, sequences, NamedTuples (become dicts), paths, strings, None, numbers and arrays
        of NumPy or JAX. NaN and infinities become None, since JSON cannot represent them.

    Returns:
      The same value as dicts, lists, strings, bool, int, float and None.

    Raises:
      TypeError: the value contains another type.
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
        return jsonable(_as_list(np.asarray(value)))
    raise TypeError(f"cannot write {value!r} of type {type(value).__name__} as JSON")


def write_summary(path, summary: dict) -> None:
    """Writes a dict as JSON with sorted keys, atomically; non-finite numbers become null.

    Args:
      path: the file, replaced if it exists; its folder has to exist.
      summary: values that `jsonable` converts.

    Raises:
      UserError: the file cannot be written.
      TypeError: `jsonable` cannot convert the summary.
    """
    text = json.dumps(jsonable(summary), allow_nan=False, indent=2, sort_keys=True)
    write_atomically(path, (text + "\n").encode())


def read_json(path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: the file is missing, unreadable or not valid JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse_json(file.read())
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{os.fspath(path)} is not valid JSON: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Lists and objects may be nested at most DEPTH deep, so that callers can recurse over the value.

    Raises:
      ValueError: the text is not valid JSON, or is nested deeper.
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
    """Writes a file: it is complete and synced to disk on return, or unchanged after an error.

    Only one process at a time may write to a path.

    Raises:
      UserError: the file cannot be written; the message gives the system's reason.
    """
    path = os.path.abspath(path)
    # One fixed name per file: processes killed here leave at most one temporary file.
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


def write_arrays(path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays by name as a compressed .npz file, atomically.

    Raises:
      UserError: the file cannot be written.
    """
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(path, content.getvalue())


def _sync_folder(folder: str) -> None:
    # The renaming is stored in the folder, which has to be synced as well. Some file systems cannot
    # sync a folder; the file's content is on disk by then in any case.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _as_list(array: np.ndarray) -> Any:
    """The array as nested lists of Python numbers or strings; a scalar array as one of them."""
    if array.dtype.kind not in "biufU":  # bfloat16 and float8 have kind "V"
        if array.dtype.kind != "V" or array.dtype.fields is not None:
            raise TypeError(f"cannot write an array of type {array.dtype} as JSON")
        array = array.astype(np.float64)
    return array.tolist()
