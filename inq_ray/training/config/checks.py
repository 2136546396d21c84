"""Checks that several sections make."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def named(flag: str) -> Iterator[None]:
    """Puts the flag before what a check says."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None


def check_at_least(flag: str, value: int, least: int) -> None:
    """Checks a number.

    Raises:
        ValueError: it is smaller; names the flag.
    """
    if value < least:
        raise ValueError(f"{flag} must be at least {least}, got {value}")


def check_choice(flag: str, value: str, choices: Any) -> None:
    """Checks one of the texts of a Literal.

    Raises:
        ValueError: it is none of them; names the flag and all of them.
    """
    if value not in choices.__args__:
        raise ValueError(f"{flag} must be one of {', '.join(choices.__args__)}, got {value!r}")
