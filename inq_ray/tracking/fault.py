"""Warnings about faults that do not end a run: a line on stderr."""

import contextlib
import re
import sys

from inq_ray.files.shown import escaped

_LONGEST_REASON = 200

# User and password in a quoted address, up to the last @, because a password may contain one.
_CREDENTIALS = re.compile(r"(?<=://)\S*@")


def warn(what: str, reason: str | BaseException) -> None:
    """Print a one-line warning, with control characters escaped, and user names and passwords in addresses removed.

    Args:
        what: Consequence for the run.
        reason: Cause; an error is prefixed by its type.
    """
    text = escaped(" ".join(str(reason).split()))
    if isinstance(reason, BaseException):
        text = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
    text = _CREDENTIALS.sub("***@", text)  # before cutting: a cut password would not be recognized
    short = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
    with contextlib.suppress(OSError, ValueError):  # stderr is closed, or a pipe without a reader
        print(f"warning: {what}: {short}", file=sys.stderr, flush=True)
