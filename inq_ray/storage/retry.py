"""What to do when a storage fails: try again with growing pauses where that can help, else say at once what is wrong.

pyarrow raises OSError for everything that goes wrong with a storage, and tells only in its text what it was. The texts
are those of pyarrow 26 (AWS SDK for C++, google-cloud-cpp, libhdfs), as real servers made it write them.
"""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import tenacity

NUM_TRIES = 6
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
# No new try after so long, so that a call ends: a try itself ends by the file system's own time limits.
TOTAL_SECONDS = 120.0

_Result = TypeVar("_Result")
_LOGGER = logging.getLogger(__name__)
# Pauses of many processes are spread, without touching the random numbers of anybody else.
_SPREAD = random.Random()

# Of a local or mounted file system: busy, or a server behind it that was away for a moment.
_TRANSIENT_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ESTALE,
    }
)
_AWS_ERROR = re.compile(r"AWS Error (?P<code>[A-Z_]+)( \(HTTP status (?P<status>\d+)\))?")
_AWS_TRANSIENT = frozenset(
    {
        "INTERNAL_FAILURE",
        "NETWORK_CONNECTION",
        "REQUEST_TIMEOUT",
        "SERVICE_UNAVAILABLE",
        "SLOW_DOWN",
        "THROTTLING",
    }
)
_HTTP_TRANSIENT = frozenset({"408", "425", "429", "500", "502", "503", "504"})
_GOOGLE_ERROR = re.compile(r"google::cloud::Status\((?P<code>[A-Z_]+)")
_GOOGLE_TRANSIENT = frozenset({"ABORTED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_NOISE = re.compile(r" \(Request ID: [^)]*\)| error_info=.*|\. Detail: .*|^When [^:]*: ")

# What to do about a failure, by what its text says.
_ADVICE = (
    (re.compile("INVALID_ACCESS_KEY_ID"), "the storage does not know this key: set AWS_ACCESS_KEY_ID"),
    (re.compile("SIGNATURE_DOES_NOT_MATCH"), "the secret does not belong to the key: set AWS_SECRET_ACCESS_KEY"),
    (re.compile("EXPIRED|INVALID_TOKEN|TOKEN_REFRESH"), "the credentials have run out: renew them (AWS_SESSION_TOKEN)"),
    (re.compile("NO_SUCH_BUCKET"), "there is no such bucket: correct its name, or set AWS_ENDPOINT_URL"),
    (re.compile("REQUEST_TIME_TOO_SKEWED|REQUEST_EXPIRED"), "set this machine's clock"),
    (
        re.compile("HTTP status 30|PermanentRedirect|HTTP status 400"),
        "set AWS_REGION to the bucket's, or renew the keys",
    ),
    (
        re.compile("PERMISSION_DENIED|UNAUTHENTICATED|OAuth2"),
        "set GOOGLE_APPLICATION_CREDENTIALS to those of one who may",
    ),
    (
        re.compile("ACCESS_DENIED|HTTP status 40[13]"),
        "these credentials may not: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights",
    ),
)


class UnreadableError(ValueError):
    """This one file or folder cannot be read: it is not there, or is closed to us. Others may well be readable."""

    @property
    def reason(self) -> str:
        """What is wrong, without the name of the file."""
        return reason(self.__cause__) if isinstance(self.__cause__, OSError) else str(self)


class MissingError(UnreadableError):
    """It is not there."""


def retry(call: Callable[[], _Result], what: str, *, verb: str = "read") -> _Result:
    """Return what `call` returns, called again after growing pauses while a storage fails in a way that may pass.

    Args:
        call: Reads or writes something, and may be called many times; exceptions other than OSError are passed on.
        what: Names what that is, for messages.
        verb: What is done with it, for messages.

    Returns:
        What the first call that succeeded returned.

    Raises:
        UnreadableError: It does not exist (MissingError), or is closed to us: one line, at once.
        ValueError: The storage refuses us, one line, at once; or still failed at the last try, one line that says how
            often it was tried.
    """
    start = time.monotonic()
    try:
        return call()  # nearly always; what is below costs more than reading a small file
    except OSError as error:
        failures = [error]

    def again() -> _Result:
        if failures:
            raise failures.pop()  # the first try counts
        return call()

    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(NUM_TRIES) | tenacity.stop_after_delay(TOTAL_SECONDS),
        wait=_pause_seconds,
        before_sleep=partial(_tell, what),
        reraise=True,
    )
    try:
        return tries(again)
    except OSError as error:
        if is_transient(error):
            raise ValueError(
                f"cannot {verb} {what}: failed {tries.statistics['attempt_number']} times in "
                f"{time.monotonic() - start:.0f} s, last with: {reason(error)}; check that the storage can be reached "
                "from here, and start again"
            ) from error
        raise _kind(error)(f"cannot {verb} {what}: {reason(error)}{_advice(error)}") from error


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed a moment later."""
    if not isinstance(error, OSError):
        return False
    text = str(error)
    if match := _AWS_ERROR.search(text):
        return match["code"] in _AWS_TRANSIENT or match["status"] in _HTTP_TRANSIENT
    if match := _GOOGLE_ERROR.search(text):
        return match["code"] in _GOOGLE_TRANSIENT and "OAuth2 access token" not in text
    return error.errno in _TRANSIENT_ERRNOS or isinstance(error, ConnectionError | TimeoutError)


def reason(error: OSError) -> str:
    """Return in one line what went wrong, without what is said elsewhere: the path, the number of the request."""
    if error.errno is not None:
        return os.strerror(error.errno)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _NOISE.sub("", lines[0]).strip(" .")


def _kind(error: OSError) -> type[ValueError]:
    """Return whether a failure that stays is one of this file alone: others may be readable nevertheless."""
    text = str(error)
    if isinstance(error, FileNotFoundError) or text.startswith("No such file or directory"):
        return MissingError
    closed = isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError) or "is a directory" in text
    return UnreadableError if closed or "AWS Error ACCESS_DENIED" in text else ValueError


def _advice(error: OSError) -> str:
    """Return what to do about a failure that stays, as the end of a message."""
    text = str(error)
    return next((f"; {advice}" for pattern, advice in _ADVICE if pattern.search(text)), "")


def _pause_seconds(state: tenacity.RetryCallState) -> float:
    """Return how long to wait: twice as long each time, less up to a half by chance."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (state.attempt_number - 1))
    return longest * _SPREAD.uniform(0.5, 1.0)


def _tell(what: str, state: tenacity.RetryCallState) -> None:
    """Log a failure that is followed by another try."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, OSError)
    _LOGGER.info("%s: try %d of %d failed: %s", what, state.attempt_number, NUM_TRIES, reason(error))
