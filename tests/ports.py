"""Ports of nodes: free ones, and the one behind which a node takes jobs."""

import contextlib
import socket
import time
import urllib.request
from collections.abc import Callable

_BOUND_SECONDS = 300.0


def free_ports(number: int) -> list[int]:
    """Return so many ports at which nobody listens, on any interface."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(number)]
        return [int(bound.getsockname()[1]) for bound in sockets]


def wait_for_agent(port: int, check: Callable[[], None] = lambda: None) -> None:
    """Wait until the agent of a node answers: a head whose agent is not up refuses jobs, with "No available agent".

    Args:
        port: The node's --dashboard-agent-listen-port.
        check: Raises if there is nothing to wait for any more.
    """
    deadline = time.monotonic() + _BOUND_SECONDS
    while True:
        check()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/local_raylet_healthz", timeout=30).close()
            return
        assert time.monotonic() < deadline, f"no agent answers at port {port}"
        time.sleep(0.3)
