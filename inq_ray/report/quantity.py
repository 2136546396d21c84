"""Numbers as text, and numbers from files that may hold anything."""

import math
from typing import Any

_KILO = 1000
MINUS = "\u2212"
_LONGEST = 300
_DEEPEST = 20


def number(value: Any) -> float | None:
    """Return a number from JSON; None if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        return None
    return float(value)


def percent(value: float | None) -> str:
    """Return a value in percent with two decimals, without the unit; "" if there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.2f}"


def change(value: float | None, before: float | None) -> str:
    """Return the difference of two values in percent with its sign; "" if one is missing."""
    if value is None or before is None:
        return ""
    text = f"{value - before:+.2f}"
    return text.replace("-", MINUS)


def share(part: float, whole: float) -> str:
    """Return a part in percent of the whole with one decimal, and the unit."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def size(num_bytes: float) -> str:
    """Return a number of bytes in kB (1000 bytes) or MB."""
    kilobytes = num_bytes / _KILO
    if kilobytes < 10:
        return f"{kilobytes:.1f} kB"
    return f"{kilobytes:,.0f} kB" if kilobytes < 10 * _KILO else f"{kilobytes / _KILO:,.1f} MB"


def words(value: Any, depth: int = _DEEPEST) -> str:
    """Return a value from JSON as a short text, with "..." for what is nested deeper."""
    match value:
        case list() | tuple() | dict() if not depth:
            text = "..."
        case None:
            text = "none"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.6g}"
        case list() | tuple():
            text = " ".join(words(each, depth - 1) for each in value) or "none"
        case dict():
            text = ", ".join(f"{name} {words(each, depth - 1)}" for name, each in value.items())
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
