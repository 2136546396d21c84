"""Checks of single words of a command line, with messages about the flag that they belong to."""

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from inq_ray.files.shown import has_control, quoted
from inq_ray.training.config.checks import EachIs
from inq_ray.training.config.duration import check_duration, check_duration_or_steps
from inq_ray.training.config.option import Declared

_NUMBERS = re.compile(r"[0-9.]+(,[0-9.]+)+,?")
_NEGATIVE = re.compile(r"-\.?[0-9]")
_TIMES = (check_duration, check_duration_or_steps)


def check_words(arguments: Sequence[str], options: Iterable[Declared]) -> None:
    """Refuse words that are not values of the preceding flag. Unknown flags and bounds are not checked here.

    Args:
        arguments: Words of the command line.
        options: All options of the command.

    Raises:
        ValueError: Names the flag as typed, the allowed values, and the value given.
    """
    known = _by_flag(options)
    for flag, values in _groups(arguments):
        if not flag:
            _check_alone(values)
        elif (each := known.get(flag.replace("_", "-"))) is not None:
            _check_values(flag if flag in (each.flag, _off(each)) else f"{flag} ({each.flag})", each, values)


def check_printable(flag: str, value: Any) -> None:
    """Refuse a value with control characters, which would reach the terminal with every line that names it.

    Raises:
        ValueError: The value has control characters.
    """
    if isinstance(value, str) and has_control(value):
        raise ValueError(f"{flag} has control characters, got {quoted(value)}: leave them out")


def is_flag(word: str) -> bool:
    """Return whether a word is a flag, not a value such as -0.5."""
    return len(word) > 1 and word.startswith("-") and not _NEGATIVE.match(word)


def _by_flag(options: Iterable[Declared]) -> Mapping[str, Declared]:
    found: dict[str, Declared] = {}
    for each in options:
        off = [_off(each)] if bool in _kinds(each) else []
        found |= dict.fromkeys([each.flag, *off, *each.option.aliases], each)
    return found


def _off(each: Declared) -> str:
    """Return the flag that turns an option off."""
    return f"--no-{each.flag[2:]}"


def _groups(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each flag with the words up to the next one; words before the first flag come first."""
    flag, values = "", list[str]()
    for word in arguments:
        if not is_flag(word):
            values.append(word)
            continue
        yield flag, values
        flag, is_inline, value = word.partition("=")
        values = [value] if is_inline else []
    yield flag, values


def _check_alone(values: Sequence[str]) -> None:
    if values:
        raise ValueError(
            f"{quoted(values[0])} follows no flag: all arguments are flags; name a folder of images "
            "with --data DIR (--help lists the flags)"
        )


def _check_values(flag: str, each: Declared, values: Sequence[str]) -> None:
    if bool in _kinds(each):
        if values:
            off = f", or use {_off(each)} to turn it off" if flag == each.flag else ""
            raise ValueError(f"{flag} takes no value, got {quoted(values[0])}: leave the value out{off}")
        return
    if typing.get_origin(each.type) is not tuple:
        if not values:
            raise ValueError(f"{flag} needs a value: {_in_words(each)}")
        if len(values) > 1 and each.option.check in _TIMES:
            raise ValueError(f"{flag} takes one word such as 10m, got {quoted(' '.join(values))}")
        if len(values) > 1:
            raise ValueError(
                f"{flag} takes one value, got {quoted(values[0], 60)} and {quoted(values[1], 60)}: put each value "
                "after its own flag, such as --data DIR for a folder of images"
            )
    for value in values:
        check_printable(flag, value)
        _check_value(flag, each, value)


def _check_value(flag: str, each: Declared, value: str) -> None:
    kinds = _kinds(each)
    if kinds & {int, float} and _NUMBERS.fullmatch(value) and typing.get_origin(each.type) is tuple:
        raise ValueError(f"{flag} {value[:80]}: separate the numbers by spaces, not commas")
    if each.choices is not None and value not in map(str, each.choices):
        raise ValueError(f"{flag} must be one of {', '.join(map(str, each.choices))}, got {quoted(value)}")
    if each.choices is not None or str in kinds or (value == "None" and types.NoneType in kinds):
        return
    if not _is_number(value, float if float in kinds else int):
        raise ValueError(f"{flag} takes {_in_words(each)}, got {quoted(value)}")


def _is_number(text: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _kinds(each: Declared) -> set[Any]:
    """Return the types that one value may have."""
    return {each.type} if isinstance(each.type, type) else set(typing.get_args(each.type))


def _in_words(each: Declared) -> str:
    """Return the allowed values in words."""
    if each.choices is not None:
        return f"one of {', '.join(map(str, each.choices))}"
    if each.option.check in _TIMES:
        return "a time such as 30s, 10m or 2h"
    kinds = _kinds(each)
    if str in kinds:
        return "a path" if each.option.path is not None else "a text"
    bounds = each.option.check.words if isinstance(each.option.check, EachIs) else ""
    bounds = bounds.removeprefix("finite and ").replace("at least", "of at least")
    kind = "a number" if float in kinds else "a whole number"
    return f"{kind} {bounds.removeprefix(kind).strip()}".strip()
