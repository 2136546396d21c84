"""When a part of the cluster counts as gone."""

import socket
from collections.abc import Callable

from inq_ray.cluster.watch import Part, wait_for_loss
from tests.clock import Clock


def listening(address: tuple[str, int]) -> socket.socket:
    """Takes connections, and does nothing with them."""
    return socket.create_server(address, backlog=500)


def waiting(clock: Clock, looks: int, at_look: Callable[[int], None] = lambda _: None) -> Callable[[float], bool]:
    """Lets time pass, and ends after so many looks."""
    num_looks = 0

    def wait(seconds: float) -> bool:
        nonlocal num_looks
        clock.sleep(seconds)
        num_looks += 1
        at_look(num_looks)
        return num_looks > looks

    return wait


def test_a_part_that_does_not_answer_for_too_long_is_gone() -> None:
    clock = Clock()
    with listening(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        there, other = Part("control service (GCS)", host, port, 45.0), Part("node (raylet)", host, port, 3.0)
        assert wait_for_loss([there, other], waiting(clock, 100), clock.monotonic) is None
    began = clock.now
    line = wait_for_loss([there], waiting(clock, 100), clock.monotonic)
    assert line is not None
    assert line.startswith(f"Ray's control service (GCS) at 127.0.0.1:{port} is lost: it has not answered for 45 s; ")
    assert 47.0 <= clock.now - began <= 50.0
    assert wait_for_loss([there], waiting(clock, 20), clock.monotonic) is None, "the run has ended before"
    assert "node (raylet)" in str(wait_for_loss([there, other], waiting(clock, 20), clock.monotonic))


def test_a_part_that_comes_back_in_time_is_not_gone() -> None:
    clock, servers = Clock(), [listening(("127.0.0.1", 0))]
    part = Part("control service (GCS)", *servers[0].getsockname(), 45.0)

    def at_look(number: int) -> None:
        if number in (10, 40):
            servers.pop().close()
        elif number in (30, 60):
            servers.append(listening((part.host, part.port)))

    assert wait_for_loss([part], waiting(clock, 80, at_look), clock.monotonic) is None
    servers.pop().close()
