"""A cluster that does not answer is said soon, and in one line."""

import socket

import pytest

from inq_ray.cluster import connection
from inq_ray.cluster.connection import check_fits_here, connected, wait_for_answer
from inq_ray.training.config import ClusterConfig


def test_a_port_where_somebody_listens_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        wait_for_answer("127.0.0.1", server.getsockname()[1], seconds=5)


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "ray://127.0.0.1:{free}", "no-such.invalid:6379", "h:99999"])
def test_an_address_where_nobody_listens_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    address = address.format(free=free)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(connection, "_ANSWER_SECONDS", 1.5)
    host, port = address.removeprefix("ray://").split(":")
    told = f"^RAY_ADDRESS {address}: nothing answers at {host}, port {port} "
    with pytest.raises(ConnectionError, match=told) as error, connected(ClusterConfig(), verbose=False):
        pytest.fail("there is nothing to connect to")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["", "local"])
def test_workers_must_fit_into_what_ray_counts_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(connection, "get_num_cpus", lambda **_: 1)  # a container that is allowed one
    check_fits_here(ClusterConfig(num_workers=1))
    with pytest.raises(ValueError, match="need 2 CPUs, this machine has 1"):
        check_fits_here(ClusterConfig(num_workers=2))
