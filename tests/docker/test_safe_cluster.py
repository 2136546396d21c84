"""Who is let into a cluster with a token and certificates, and what listens there; as docs/security.md says."""

import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import REPO
from tests.docker.two_nodes import HEAD, WORKER, Listener, TwoNodes, two_nodes

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, which makes the certificates"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with two_nodes() as running:
        yield running


_JOIN = """
import ray
ray.init(address={address!r}, {more}log_to_driver=False, logging_level="ERROR")
where = ray.remote(ray.util.get_node_ip_address)
print(ray.get(where.remote(), timeout=300))
"""


def _driver(cluster: TwoNodes) -> str:
    return _JOIN.format(address=cluster.address, more=f"_node_ip_address={HEAD!r}, ")


def test_a_driver_with_token_and_certificate_works_on_the_other_node(cluster: TwoNodes) -> None:
    result = cluster.run(_driver(cluster))
    assert result.stdout.strip() == WORKER, result.stderr


def test_the_gcs_refuses_a_wrong_token_and_none(cluster: TwoNodes) -> None:
    strangers = [{"RAY_AUTH_TOKEN": "ff" * 32}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}]
    with ThreadPoolExecutor() as together:  # Ray tries for a while before it gives up
        results = list(together.map(lambda changed: cluster.run(_driver(cluster), **changed), strangers))
    for result in results:
        assert result.returncode != 0
        assert "Failed to connect to Ray cluster" in result.stderr


_CLIENT = """
import ray
ray.init("ray://{address}", log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.remote(lambda: "done by a client").remote(), timeout=300))
"""


def test_the_client_server_refuses_a_wrong_token_and_none(cluster: TwoNodes) -> None:
    """All three have a certificate."""
    code = _CLIENT.format(address=f"{HEAD}:{cluster.ports['client']}")
    friend = cluster.run(code)  # alone: the time that Ray gives the process that serves it has an end
    assert friend.stdout.strip() == "done by a client", friend.stderr
    strangers = [{"RAY_AUTH_TOKEN": "ff" * 32}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}]
    with ThreadPoolExecutor() as together:
        results = list(together.map(lambda changed: cluster.run(code, **changed), strangers))
    for stranger in results:
        assert stranger.returncode != 0
        assert "done by a client" not in stranger.stdout
        assert "ConnectionError: ray client connection timeout" in stranger.stderr  # Ray does not say why


@pytest.mark.parametrize(
    "path", ["/api/jobs/", "/api/version", "/nodes?view=summary", "/logical/actors", "/api/v0/nodes"]
)
@pytest.mark.parametrize(("token", "status"), [(None, 401), ("ff" * 32, 403)], ids=["no token", "a wrong token"])
def test_jobs_and_dashboard_refuse(cluster: TwoNodes, path: str, token: str | None, status: int) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{cluster.ports['dashboard']}{path}", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=120)
    assert refused.value.code == status


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def _answer(connection: socket.socket) -> bytes:
    """What a server of gRPC says to the first bytes of a client; nothing, where it hangs up."""
    try:
        connection.sendall(_PREFACE)
        return connection.recv(64)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("name", ["gcs", "client"])
def test_ports_within_the_cluster_want_a_certificate(cluster: TwoNodes, name: str) -> None:
    authority = ssl.create_default_context(cafile=cluster.env["RAY_TLS_CA_CERT"])
    authority.set_alpn_protocols(["h2"])

    def answer() -> bytes:
        connection = socket.create_connection((HEAD, cluster.ports[name]), timeout=120)
        with authority.wrap_socket(connection, server_hostname=HEAD) as tls:
            return _answer(tls)

    assert answer() == b""
    with socket.create_connection((HEAD, cluster.ports[name]), timeout=120) as plain:
        assert _answer(plain)[:1] in (b"", b"\x15")  # hung up on, or an alert of TLS
    authority.load_cert_chain(cluster.env["RAY_TLS_SERVER_CERT"], cluster.env["RAY_TLS_SERVER_KEY"])
    assert answer() != b""


# What sets a port, in the document, and the name that the test's cluster has for it.
_PORTS = {
    "--port": "gcs",
    "--dashboard-port": "dashboard",
    "DASHBOARD_METRIC_PORT": "dashboard metrics",
    "AUTOSCALER_METRIC_PORT": "autoscaler metrics",
    "--ray-client-server-port": "client",
}


def _documented(ports: dict[str, int]) -> set[Listener]:
    text = (REPO / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| (head|every node) \| ([a-z_ ]+) \| (loopback|node|every) \| ([^|]+) \|", text, re.MULTILINE)
    found, port = set(), ""
    for where, process, interface, cell in rows:
        port = port if cell == "the same" else cell
        for node in ("head",) if where == "head" else ("head", "worker"):
            names = {**_PORTS, "--dashboard-agent-listen-port": node}
            setting = re.fullmatch(r"\d+ \(`([^`]+)`\)", port)
            assert setting or port.startswith("free"), port
            found.add(Listener(node, process, interface, ports[names[setting[1]]] if setting else None))
    return found


def test_what_listens_is_what_the_document_says(cluster: TwoNodes) -> None:
    documented = _documented(cluster.ports)
    assert documented
    # A client of the client server has a process of its own there, which goes some time after it.
    of_clients = {listener for listener in documented if listener.process == "client server"}
    of_clients = {listener._replace(port=None) for listener in of_clients}
    deadline = time.monotonic() + 300  # of the head's processes some begin to listen late
    while cluster.listening() - of_clients != documented and time.monotonic() < deadline:
        time.sleep(0.5)
    assert cluster.listening() - of_clients == documented
