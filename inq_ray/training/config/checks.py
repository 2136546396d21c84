"""Checks of the values of options."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inq_ray.files.shown import quoted, shown
from inq_ray.training.config.option import Check

# Largest count: larger numbers are typing errors, and loops would not end.
MOST = 1_000_000_000


@dataclass(frozen=True)
class EachIs:
    """Check of a number, or of each of several.

    Attributes:
        is_allowed: Returns whether a number is allowed.
        words: The allowed numbers, after "must be".
        reason: Returns what a refused number must be; None = `words`.
    """

    is_allowed: Callable[[Any], bool]
    words: str
    reason: Callable[[Any], str] | None = None

    def __call__(self, flag: str, value: Any) -> Any:
        """Return the value.

        Raises:
            ValueError: A number is not allowed.
        """
        for entry in value if isinstance(value, tuple | list) else (value,):
            if not self.is_allowed(entry):
                reason = self.words if self.reason is None else self.reason(entry)
                raise ValueError(f"{flag} must be {reason}, got {quoted(entry)}")
        return value


def count(least: int, most: int = MOST) -> EachIs:
    """Return a check of a count: a whole number, or each of several."""
    return EachIs(
        lambda value: least <= value <= most,
        f"a whole number from {least} to {most}",
        lambda value: f"at least {least}" if value < least else f"at most {most}",
    )


def between(interval: str) -> EachIs:
    """Return a check of a number, or of each of several.

    Args:
        interval: Mathematical notation, such as "[0, 1)": a bracket includes a bound, a parenthesis does not; "inf"
            means no bound, and is not a value itself.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def is_inside(value: float) -> bool:
        above = value >= low if interval[0] == "[" else value > low
        return above and (value <= high if interval[-1] == "]" else value < high)

    if interval[0] + interval[-1] == "[]":
        return EachIs(is_inside, " to ".join(bound.strip() for bound in f"from {interval[1:-1]}".split(",")))
    if high < math.inf:
        return EachIs(is_inside, f"in {interval}")
    return EachIs(is_inside, f"finite and {'at least' if interval[0] == '[' else 'above'} {low:g}")


def by(check: Callable[[Any], Any]) -> Check:
    """Return a check by a function that does not know the flag; if it returns a value, that is stored."""

    def checked(flag: str, value: Any) -> Any:
        try:
            kept = check(value)
        except ValueError as error:
            raise ValueError(f"{flag}: {shown(error, 250)}") from None
        return value if kept is None else kept

    return checked
