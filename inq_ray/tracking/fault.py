"""Faults that do not end a run: a line on stderr."""

import contextlib
import re
import sys

_LONGEST_REASON = 200

# User and password of an address, as libraries quote it. Up to the last @: a password may hold one.
_CREDENTIALS = re.compile(r"(?<=://)\S*@")


def warn(what: str, reason: str | BaseException) -> None:
    """Print a warning of one line, without the users and passwords of addresses in it.

    Args:
        what: it means for the run.
        reason: why; an error is named.
    """
    text = " ".join(str(reason).split())
    if isinstance(reason, BaseException):
        text = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
    text = _CREDENTIALS.sub("***@", text)  # before it is cut: what is left of a password would not be known for one
    short = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
    with contextlib.suppress(OSError, ValueError):  # stderr is closed, or a pipe that nobody reads: nobody can be told
        print(f"warning: {what}: {short}", file=sys.stderr, flush=True)
