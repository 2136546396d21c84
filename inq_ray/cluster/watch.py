"""Watches the cluster of this driver: its control service (GCS) and this machine's node (raylet).

If one of them is lost, Ray 2.60 ends the driver from C++, up to a minute later and with its own messages: Python gets
no exception, and pending calls of Ray never return. A thread checks both and ends the process before Ray does.
"""

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ray

from inq_ray.cluster.leaving import leave
from inq_ray.files.shown import one_line

_LOOK_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
# Limit for a part that is never restarted.
_GONE_SECONDS = 3.0
# The control service of an existing cluster may be restarted: the limit is Ray's own, less a margin.
_BOUND = "RAY_gcs_rpc_server_reconnect_timeout_s"
_BOUND_SECONDS = 60.0
_SPARE_SECONDS = 15.0
# Errors of this process or machine, which then cannot connect to anything.
_OWN_FAULTS = frozenset({errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# A progress bar hides the cursor, and shows it again at a regular end only.
_SHOW_CURSOR = "\x1b[?25h"


class Part(NamedTuple):
    """A part of the cluster that a driver needs.

    Attributes:
        name: For messages.
        host: Host that it listens on.
        port: Port that it listens on.
        most_seconds: Longest time without an answer.
    """

    name: str
    host: str
    port: int
    most_seconds: float

    def answers(self) -> bool:
        """Return whether the port is open."""
        try:
            with socket.create_connection((self.host, self.port), timeout=_CONNECT_SECONDS):
                return True
        except OSError as error:
            return error.errno in _OWN_FAULTS


def parts(*, is_own: bool) -> list[Part]:
    """Return the parts of the cluster that this process is connected to.

    Args:
        is_own: Whether this process has started the cluster.
    """
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    bound = _GONE_SECONDS if is_own else max(_GONE_SECONDS, _reconnect_seconds() - _SPARE_SECONDS)
    nodes = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]  # type: ignore[no-untyped-call]
    return [
        Part("control service (GCS)", host, int(port), bound),
        *(Part("node (raylet)", node["NodeManagerAddress"], node["NodeManagerPort"], _GONE_SECONDS) for node in nodes),
    ]


def _reconnect_seconds() -> float:
    """Return the time in which Ray itself tries to reconnect to a control service."""
    try:
        return float(os.environ.get(_BOUND, _BOUND_SECONDS))
    except ValueError:
        return _BOUND_SECONDS


@contextlib.contextmanager
def watched(*, is_own: bool, last_words: Callable[[str], None], status: Callable[[], int]) -> Iterator[None]:
    """End this process with one line if its cluster is lost during the block.

    Args:
        is_own: Whether this process has started the cluster.
        last_words: Receives that line before the end, for a log.
        status: Returns the exit status.
    """
    stop = threading.Event()
    arguments = (parts(is_own=is_own), stop, last_words, status)
    threading.Thread(target=_watch, args=arguments, name="inq_ray-watch", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _watch(
    watched_parts: list[Part], stop: threading.Event, last_words: Callable[[str], None], status: Callable[[], int]
) -> None:
    line = wait_for_loss(watched_parts, stop.wait)
    if line is None or stop.is_set():
        return
    with contextlib.suppress(OSError):
        last_words(line)
    if sys.stdout.isatty():
        print(_SHOW_CURSOR, flush=True)
    print(one_line(f"inq_ray: failed: {line}", 300), file=sys.stderr)
    leave(status())


def wait_for_loss(
    watched_parts: list[Part], wait: Callable[[float], bool], clock: Callable[[], float] = time.monotonic
) -> str | None:
    """Wait until a part has not answered for its limit; return a message of one line, or None if the wait ended before.

    Args:
        watched_parts: Parts of the cluster.
        wait: Waits for a number of seconds; returns whether to end.
        clock: Monotonic clock, in seconds.
    """
    silent_since: dict[Part, float] = {}
    while not wait(_LOOK_SECONDS):
        for part in watched_parts:
            if part.answers():
                silent_since.pop(part, None)
            # Counted from the first check without an answer, because this thread itself may have been late.
            elif clock() - silent_since.setdefault(part, clock()) >= part.most_seconds:
                return (
                    f"Ray's {part.name} at {part.host}:{part.port} is lost: it has not answered for "
                    f"{part.most_seconds:.0f} s; run the same command to continue from the last checkpoint"
                )
    return None
