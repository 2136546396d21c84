"""Values of dataclasses from JSON: types are checked, never converted."""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from inq_ray.files.shown import quoted, shown


def from_dict(cls: type[Any], values: Any, *, where: str) -> Any:
    """Return an instance of a dataclass from JSON values of the same names.

    Args:
        cls: A frozen dataclass; its fields may be dataclasses, too.
        values: Parsed JSON.
        where: Prefix of names in messages: "" or "training.".

    Raises:
        ValueError: A name is unknown, or a value has another type; names it.
    """
    if not isinstance(values, dict):
        what = where.removesuffix(".") or "the configuration"
        raise ValueError(f"{what} must be an object of names and values, got {quoted(values, 80)}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name[:100], fields, n=1, cutoff=0.5) or list(fields)
            names = shown(", ".join(where + name for name in near))
            raise ValueError(f"{quoted(where + name, 80)} is unknown; nearest: {names}")
    arguments = {}
    for name, value in values.items():
        arguments[name] = checked(f"{where}{name}", value, fields[name].type)
    for name, item in fields.items():
        if name not in arguments and item.default is item.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}{name} is missing")
    return cls(**arguments)


def checked(name: str, value: Any, kind: Any) -> Any:
    """Return a JSON value as the field's type: arrays become tuples, whole numbers may be floats.

    Args:
        name: Name for messages.
        value: Parsed JSON.
        kind: The field's annotation.

    Raises:
        ValueError: The value has another type; names it.
    """
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or (value is None and types.NoneType in options):
        return value
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_dict(kind, value, where=f"{name}.")  # type: ignore[arg-type]
    if origin in (types.UnionType, typing.Union) and not _is_plain(kind):  # the latter with a Literal
        lists = [each for each in options if typing.get_origin(each) is tuple]
        return checked(name, value, lists[0] if lists and isinstance(value, list) else options[0])  # value is not None
    if origin is dict and isinstance(value, dict):
        return {key: checked(f"{name}[{quoted(key, 40)}]", each, options[1]) for key, each in value.items()}
    if origin is tuple and not _is_plain(kind) and isinstance(value, list):
        return tuple(checked(f"{name}[{index}]", each, options[0]) for index, each in enumerate(value))
    if origin is tuple:
        element = options[0]
        if isinstance(value, list) and all(_is_a(entry, element) for entry in value):
            return tuple(map(element, value))
    elif _is_a(value, kind):
        return float(value) if kind in (float, float | None) and value is not None else value
    elif origin is Literal:
        raise ValueError(f"{name} must be one of {', '.join(kind.__args__)}, got {quoted(value, 80)}")
    raise ValueError(f"{name} must be {_in_words(kind)}, got {quoted(value, 80)}")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}


def _in_words(kind: Any) -> str:
    """Return the JSON type of an annotation, in words."""
    is_list = typing.get_origin(kind) is tuple
    if not _is_plain(kind):
        return "a list" if is_list else "an object of names and values"
    if is_list:
        return f"a list of {_WORDS[typing.get_args(kind)[0]].removeprefix('a ')}s"
    if {int, float} <= set(typing.get_args(kind)):
        return "a number"
    return " or ".join(_WORDS[each] for each in typing.get_args(kind) or (kind,))


def _is_plain(kind: Any) -> bool:
    """Return whether an annotation is a number, text or boolean, a union of these, or a list of one."""
    return all(each in _WORDS for each in typing.get_args(kind) or (kind,) if each is not Ellipsis)


def _is_a(value: Any, kind: Any) -> bool:
    """Return whether a JSON value has a field's type; a choice must be a text, which its section checks."""
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) <= 2**53)
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return isinstance(value, str)
    return type(value) is kind
