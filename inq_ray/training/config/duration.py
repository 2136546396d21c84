"""Times as users write them: 30s, 10m, 2h."""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"[1-9][0-9]{0,8}[smh]")


def is_duration(text: str) -> bool:
    """Whether a text is one."""
    return _DURATION.fullmatch(text) is not None


def seconds_of(duration: str) -> int:
    """What it is in seconds; it must be one."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def check_duration(flag: str, value: str) -> None:
    """Checks the value of a flag that takes one.

    Raises:
        ValueError: it is none; names the flag.
    """
    if not is_duration(value):
        raise ValueError(f"{flag} must be a time such as 30s, 10m or 2h, got {value[:80]!r}")
