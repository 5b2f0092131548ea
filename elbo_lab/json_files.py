"""Stored JSON files, read by what they have to hold.

What a file has to hold is written as a kind: a type (`int`, `float`, `str`, `bool`, `dict`, `list`,
`None`), a union of kinds, `list[kind]` (also `tuple[kind, ...]`), `dict[str, kind]`, or, for a JSON
object, a dict of its fields with a kind each. A field "name?" may be missing, and others than those
named may be there.
"""

import types
import typing
from typing import Any

from elbo_lab import files
from elbo_lab.errors import UserError

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    tuple: "a list",
    types.NoneType: "null",
}


def read(path, kind: Any) -> Any:
    """Reads a JSON file and checks what it holds.

    Raises:
      UserError: the file cannot be read, is no JSON, or does not hold what `kind` says.
    """
    value = files.read_json(path)
    if found := fault(value, kind):
        raise UserError(f"{path} is damaged: {found}")
    return value


def fault(value: Any, kind: Any, name: str = "") -> str:
    """What is wrong with a value that JSON gave, in words; "" if nothing is.

    Args:
      value: of dicts, lists, strings, numbers, bool and None.
      kind: what it has to be.
      name: of the value, for the words.
    """
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return _is_not(value, dict, name)
        for field, inner in kind.items():
            plain = field.removesuffix("?")
            place = f"{name}.{plain}" if name else plain
            if plain not in value:
                if plain == field:
                    return f"{place} is missing"
            elif found := fault(value[plain], inner, place):
                return found
        return ""
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        found = [fault(value, each, name) for each in inner]
        return "" if "" in found else found[0]
    plain = {tuple: list, float: (int, float), None: types.NoneType}.get(origin, origin)
    if not isinstance(value, plain) or (isinstance(value, bool) and origin is not bool):
        return _is_not(value, origin, name)
    if origin is dict and inner:
        items = [(f"{name}.{key}" if name else key, item) for key, item in value.items()]
        return next(filter(None, (fault(item, inner[1], place) for place, item in items)), "")
    if origin in (list, tuple) and inner:
        places = [f"{name}.{i}" if name else str(i) for i in range(len(value))]
        found = (fault(item, inner[0], at) for item, at in zip(value, places, strict=True))
        return next(filter(None, found), "")
    return ""


def _is_not(value: Any, kind: Any, name: str) -> str:
    words = _WORDS.get(types.NoneType if kind is None else kind, str(kind))
    return f"{name or 'its content'} must be {words}, and is {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return _WORDS[type(value)]
    text = "null" if value is None else repr(value)
    return text if len(text) < 40 else text[:36] + " ..."
