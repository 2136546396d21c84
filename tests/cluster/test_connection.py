"""A cluster that does not answer is said soon, and in one line."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from inq_ray.cluster import connection
from inq_ray.cluster.connection import check_fits_here, check_token, connected, wait_for_answer
from inq_ray.training.config import ClusterConfig
from tests.conftest import RayCluster


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


class _Gcs(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """Of a cluster, takes one token; None = takes everybody."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def GetClusterId(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802, by Ray
        given = dict(context.invocation_metadata()).get("authorization")
        if self._token is not None and given != f"Bearer {self._token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return gcs_service_pb2.GetClusterIdReply()


@contextlib.contextmanager
def gcs(token: str | None) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(_Gcs(token), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_token_that_the_cluster_takes_and_one_that_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself Ray asks again and again for minutes, with a line each."""
    for token in (None, os.environ["RAY_AUTH_TOKEN"]):  # as the whole session has it
        with gcs(token) as address:
            check_token(address)
    with gcs("another") as address:
        with pytest.raises(
            ConnectionError, match=f"^RAY_ADDRESS {address}: the cluster requires a token, .* has a different one: set"
        ):
            check_token(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(ConnectionError, match="has a different one") as error,
            connected(ClusterConfig(), verbose=False),
        ):
            pytest.fail("it is not taken")
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Exception("The current node timed out during startup.\nThis could happen"), "The current node timed out"),
        (RuntimeError("no raylet"), "no raylet"),
        (ConnectionError("Failed to connect to Ray cluster at \x1b[1m"), "Failed to connect"),
        (TimeoutError("late"), "late"),
    ],
)
def test_what_ray_raises_at_its_start_is_one_line(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(connection.ray, "init", init)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
    with (
        pytest.raises(ConnectionError, match=f"^Ray did not start.*{line}") as raised,
        connected(ClusterConfig(num_workers=1), verbose=False),
    ):
        pytest.fail("it has not started")
    assert len(str(raised.value)) < 300
    assert str(raised.value).isprintable()


@pytest.mark.ray
def test_a_job_without_the_clusters_token_is_refused_at_once(
    ray_cluster: RayCluster, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    token = Path(job_env["HOME"]) / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text(job_env["RAY_AUTH_TOKEN"])
    env = {name: value for name, value in job_env.items() if not name.startswith("RAY_AUTH_")}
    command = [sys.executable, "jobs/quantize_imagenet.py", "--storage-path", str(tmp_path / "runs"), "--name", "run"]
    job = subprocess.run(
        command,
        cwd=repo,
        env={**env, "RAY_ADDRESS": ray_cluster.address},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert job.returncode == 2, job.stderr
    assert job.stderr.splitlines()[-1].startswith(
        f"quantize_imagenet: RAY_ADDRESS {ray_cluster.address}: the cluster requires a token, and this process "
        "does not use its own: set RAY_AUTH_MODE=token"
    )
    assert "Traceback" not in job.stderr


@pytest.mark.parametrize("address", ["", "local"])
def test_workers_must_fit_into_what_ray_counts_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(connection, "get_num_cpus", lambda **_: 1)  # a container that is allowed one
    check_fits_here(ClusterConfig(num_workers=1))
    with pytest.raises(ValueError, match="need 2 CPUs, this machine has 1"):
        check_fits_here(ClusterConfig(num_workers=2))
