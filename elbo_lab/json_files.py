"""Stored JSON files, read and checked against a kind: a description of their required content.

A kind is a type (`int`, `float`, `str`, `bool`, `dict`, `list`, `None`), a union of kinds,
`list[kind]` (also `tuple[kind, ...]`), `dict[str, kind]`, or, for a JSON object, a dict from its
fields to their kinds. A field "name?" is optional. Fields that the kind does not name are allowed.
"""

import types
import typing
from collections.abc import Iterable
from typing import Any

from elbo_lab import files
from elbo_lab.errors import UserError

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    tuple: "a list",
    types.NoneType: "null",
}


def read(path, kind: Any) -> Any:
    """Reads a JSON file and checks its content.

    Raises:
      UserError: the file cannot be read, is not valid JSON, or differs from the kind.
    """
    value = files.read_json(path)
    if message := fault(value, kind):
        raise UserError(f"{path} is damaged: {message}")
    return value


def fault(value: Any, kind: Any, name: str = "") -> str:
    """A clause that says how a JSON value differs from its kind; "" if it does not.

    Args:
      value: dicts, lists, strings, numbers, bool and None.
      kind: the required kind, in the notation of this module.
      name: the value's path inside the file ("rows.0.value"); "" for the whole content.
    """
    if isinstance(kind, dict):
        return _fault_of_fields(value, kind, name)
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        faults = [fault(value, alternative, name) for alternative in arguments]
        return "" if "" in faults else faults[0]
    expected = {tuple: list, float: (int, float), None: types.NoneType}.get(origin, origin)
    # A bool is an int for isinstance.
    if not isinstance(value, expected) or (isinstance(value, bool) and origin is not bool):
        return _is_not(value, origin, name)
    if origin is dict and arguments:
        return _fault_of_items(value.items(), arguments[1], name)
    if origin in (list, tuple) and arguments:
        return _fault_of_items(enumerate(value), arguments[0], name)
    return ""


def _fault_of_fields(value: Any, kinds: dict[str, Any], name: str) -> str:
    """`fault` of an object whose fields have a kind each."""
    if not isinstance(value, dict):
        return _is_not(value, dict, name)
    for field, kind in kinds.items():
        key = field.removesuffix("?")
        is_optional = key != field
        if key in value:
            message = fault(value[key], kind, _path(name, key))
        else:
            message = "" if is_optional else f"{_path(name, key)} is missing"
        if message:
            return message
    return ""


def _fault_of_items(items: Iterable[tuple[Any, Any]], kind: Any, name: str) -> str:
    """`fault` of (key, item) pairs whose items all have one kind."""
    for key, item in items:
        if message := fault(item, kind, _path(name, key)):
            return message
    return ""


def _path(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _is_not(value: Any, kind: Any, name: str) -> str:
    words = _WORDS.get(types.NoneType if kind is None else kind, str(kind))
    return f"{name or 'its content'} must be {words}; got {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return _WORDS[type(value)]
    text = "null" if value is None else repr(value)
    return text if len(text) < 40 else text[:36] + " ..."
