"""Retries: transient failures of a storage are tried again after growing pauses; others are explained at once.

pyarrow raises OSError for every failure of a storage, and only its text distinguishes them. The texts are those of
pyarrow 26 (AWS SDK for C++, google-cloud-cpp, libhdfs), recorded from real servers.
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

from inq_ray.files.shown import counted, escaped

NUM_TRIES = 6
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
# No new try after this time. A try that has begun ends by the file system's own time limits.
TOTAL_SECONDS = 120.0

_Result = TypeVar("_Result")
_LOGGER = logging.getLogger(__name__)
# Spreads the pauses of many processes without changing anyone's random state.
_SPREAD = random.Random()

# Of a local or mounted file system: busy, or its server was away for a moment.
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

# Advice by the failure's text.
_ADVICE = (
    (re.compile("INVALID_ACCESS_KEY_ID"), "the storage does not know this key: set AWS_ACCESS_KEY_ID"),
    (re.compile("SIGNATURE_DOES_NOT_MATCH"), "the secret does not belong to the key: set AWS_SECRET_ACCESS_KEY"),
    (re.compile("EXPIRED|INVALID_TOKEN|TOKEN_REFRESH"), "the credentials have expired: renew them (AWS_SESSION_TOKEN)"),
    (re.compile("NO_SUCH_BUCKET"), "there is no such bucket: correct its name, or set AWS_ENDPOINT_URL"),
    (re.compile("REQUEST_TIME_TOO_SKEWED|REQUEST_EXPIRED"), "set this machine's clock"),
    (
        re.compile("HTTP status 30|PermanentRedirect|HTTP status 400"),
        "set AWS_REGION to the bucket's region, or renew the keys",
    ),
    (
        re.compile("PERMISSION_DENIED|UNAUTHENTICATED|OAuth2"),
        "set GOOGLE_APPLICATION_CREDENTIALS to an account with access",
    ),
    (
        re.compile("ACCESS_DENIED|HTTP status 40[13]"),
        "access denied: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their permissions",
    ),
)


class StorageError(ValueError):
    """A storage that refuses or does not respond; nothing is known about what it holds."""


class UnreadableError(StorageError):
    """A file or folder that cannot be read: it is missing, or access is denied. Others may be readable."""

    @property
    def reason(self) -> str:
        """Return what is wrong, without the file's name."""
        return reason(self.__cause__) if isinstance(self.__cause__, OSError) else str(self)


class MissingError(UnreadableError):
    """A file or folder that does not exist."""


def retry(call: Callable[[], _Result], what: str, *, verb: str = "read") -> _Result:
    """Return the result of `call`, which is called again after growing pauses while a storage fails transiently.

    Args:
        call: Reads or writes something; may be called many times. Exceptions other than OSError are passed on.
        what: What is read or written, for messages.
        verb: What is done with it, for messages.

    Returns:
        The result of the first successful call.

    Raises:
        UnreadableError: It does not exist (MissingError), or access is denied: one line, at once.
        StorageError: The storage refuses, one line, at once; or the last try failed, one line with the number of tries.
    """
    start = time.monotonic()
    try:
        return call()  # nearly always; the code below costs more than reading a small file
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
            raise StorageError(
                f"cannot {verb} {what}: failed {counted(tries.statistics['attempt_number'], 'time')} in "
                f"{time.monotonic() - start:.0f} s, last with: {reason(error)}; check that this machine can reach the "
                "storage, then start again"
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
    """Return the cause of a failure in one printable line, without the path and the request's number."""
    if error.errno is not None:
        return os.strerror(error.errno)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return escaped(_NOISE.sub("", lines[0]).strip(" ."))


def _kind(error: OSError) -> type[StorageError]:
    """Return the error's type: whether a permanent failure concerns this file alone."""
    text = str(error)
    if isinstance(error, FileNotFoundError) or text.startswith("No such file or directory"):
        return MissingError
    closed = isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError) or "is a directory" in text
    return UnreadableError if closed or "AWS Error ACCESS_DENIED" in text else StorageError


def _advice(error: OSError) -> str:
    """Return advice for a permanent failure, as the end of a message."""
    text = str(error)
    return next((f"; {advice}" for pattern, advice in _ADVICE if pattern.search(text)), "")


def _pause_seconds(state: tenacity.RetryCallState) -> float:
    """Return how long to wait: twice as long each time, randomly shortened by up to half."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (state.attempt_number - 1))
    return longest * _SPREAD.uniform(0.5, 1.0)


def _tell(what: str, state: tenacity.RetryCallState) -> None:
    """Log a failure before the next try."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, OSError)
    _LOGGER.info("%s: try %d of %d failed: %s", what, state.attempt_number, NUM_TRIES, reason(error))
