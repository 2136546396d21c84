"""Durations as users write them: 30s, 10m, 2h."""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"[1-9][0-9]{0,8}[smh]")
_STEPS = re.compile(r"[1-9][0-9]{0,8}")


def is_duration(text: str) -> bool:
    """Return whether a text is a duration."""
    return _DURATION.fullmatch(text) is not None


def seconds_of(duration: str) -> int:
    """Return a duration in seconds."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def check_duration(flag: str, value: str) -> str:
    """Check the value of a flag that takes a duration.

    Raises:
        ValueError: The value is not a duration; names the flag.
    """
    if not is_duration(value):
        raise ValueError(f"{flag} must be a time such as 30s, 10m or 2h, got {value[:80]!r}")
    return value


def check_duration_or_steps(flag: str, value: str) -> str:
    """Check the value of a flag that takes a duration or a number of steps.

    Raises:
        ValueError: The value is neither; names the flag.
    """
    if not (is_duration(value) or _STEPS.fullmatch(value)):
        raise ValueError(f"{flag} must be a time such as 30s, 10m or 2h, or a number of steps, got {value[:80]!r}")
    return value
