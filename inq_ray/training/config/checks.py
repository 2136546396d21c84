"""Checks of the values of options."""

import math
from collections.abc import Callable
from typing import Any

from inq_ray.training.config.option import Check


def at_least(least: int) -> Check:
    """Return a check of a whole number, or of each of several."""
    return _each(lambda value: value >= least, f"at least {least}")


def between(interval: str) -> Check:
    """Return a check of a number, or of each of several.

    Args:
        interval: In the notation of mathematics, such as "[0, 1)": a bracket includes a bound, a parenthesis does not;
            "inf" is no bound, and no value either.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def is_inside(value: float) -> bool:
        above = value >= low if interval[0] == "[" else value > low
        return above and (value <= high if interval[-1] == "]" else value < high)

    if high < math.inf:
        return _each(is_inside, f"in {interval}")
    return _each(is_inside, f"finite and {'at least' if interval[0] == '[' else 'above'} {low:g}")


def by(check: Callable[[Any], Any]) -> Check:
    """Return a check by a function that does not know the flag; what the function returns is kept, if anything."""

    def checked(flag: str, value: Any) -> Any:
        try:
            kept = check(value)
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from None
        return value if kept is None else kept

    return checked


def _each(is_allowed: Callable[[Any], bool], what: str) -> Check:
    def check(flag: str, value: Any) -> Any:
        for entry in value if isinstance(value, tuple | list) else (value,):
            if not is_allowed(entry):
                shown = repr(entry) if isinstance(entry, str) else entry
                raise ValueError(
                    f"{flag} must be {what}, got {shown if len(str(shown)) <= 80 else str(shown)[:77] + '...'}"
                )
        return value

    return check
