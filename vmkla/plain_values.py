"""Convert JSON's plain values to dataclasses, and check the type of every field."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, Literal, get_args, get_origin, get_type_hints


def from_plain(kind: Any, value: Any, name: str) -> Any:
    """Convert a plain value to an annotated type.

    Args:
        kind: a dataclass of such kinds, ``str``, ``int``, ``float``, ``bool``, ``Any``, ``X | None``,
            ``Literal``, ``tuple[X, ...]``, ``tuple[X, X]`` or ``dict[str, X]``. An integer is a float too.
        value: a value that ``json.loads`` returned.
        name: name of the value, for messages.
    Raises:
        TypeError: the value is of another type, or a field is unknown.
        KeyError: a field without a default is missing.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _from_fields(kind, value, name)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return None if value is None else from_plain(inner[0], value, name)
    if origin is tuple and isinstance(value, (list, tuple)):
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise TypeError(f"{name} has {len(value)} values, expected {len(inner)}")
        return tuple(from_plain(inner[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: from_plain(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin is Literal and value in inner:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # not isinstance: True is not a number here
        raise TypeError(f"{name} is {value!r:.200}, expected {getattr(kind, '__name__', kind)}")
    return value


@functools.cache
def _kinds(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _from_fields(kind: Any, values: Any, name: str) -> Any:
    if not isinstance(values, dict):
        raise TypeError(f"{name} is {values!r:.200}, expected the fields of {kind.__name__}")
    kinds = _kinds(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise TypeError(f"{name} has unknown fields: {', '.join(unknown)}")
    for field in fields.values():
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if bare and field.name not in values:
            raise KeyError(field.name)
    return kind(**{key: from_plain(kinds[key], value, key) for key, value in values.items()})
