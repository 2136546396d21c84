"""A Ray cluster of two real nodes on the loopback interface, with a token and certificates."""

import contextlib
import importlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray

from tests.conftest import REPO
from tests.ports import free_ports, wait_for_agent

assert ray.__file__  # importing Ray makes the psutil that it carries importable
psutil: Any = importlib.import_module("psutil")

HEAD, WORKER = "127.0.0.2", "127.0.0.3"
_BIN = Path(sys.executable).parent


class Listener(NamedTuple):
    """A socket that listens: on `loopback`, the address of the `node`, or `every` interface; at a free port if None."""

    node: str
    process: str
    interface: str
    port: int | None


@dataclass(frozen=True, kw_only=True)
class TwoNodes:
    """The running cluster: `env` is what a process needs that may do everything there."""

    env: dict[str, str]
    ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def address(self) -> str:
        return f"{HEAD}:{self.ports['gcs']}"

    def run(self, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these variables changed."""
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, check=False, env=self.env | env, capture_output=True, text=True, timeout=600, cwd="/"
        )

    def listening(self) -> set[Listener]:
        """What listens; of the port only whether it is one of `ports`."""
        fixed = set(self.ports.values())
        found = set()
        for node, process in self.processes.items():
            address = {"head": HEAD, "worker": WORKER}[node]
            for child in psutil.Process(process.pid).children(recursive=True):
                for name, ip, number in _sockets(child):
                    interface = {address: "node", "127.0.0.1": "loopback"}.get(ip, "every")
                    found.add(Listener(node, name, interface, number if number in fixed else None))
        return found


def _sockets(process: Any) -> list[tuple[str, str, int]]:
    """What the process is, address and port of each socket by which it listens; none, once it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        name, connections = _name(process), process.net_connections(kind="inet")
        listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
        return [(name, address.ip.removeprefix("::ffff:"), address.port) for address in listening]
    return []


def _name(process: Any) -> str:
    line = " ".join(process.cmdline())
    known = {
        "gcs_server": "gcs_server",
        "raylet --raylet_socket": "raylet",
        "DashboardAgent": "dashboard agent",
        "RuntimeEnvAgent": "runtime environment agent",
        "dashboard/dashboard.py": "dashboard",
        "_private/monitor.py": "autoscaler",
        "autoscaler/v2/monitor.py": "autoscaler",
        "ray.util.client.server": "client server",
    }
    return next((name for part, name in known.items() if part in line), line)


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Start the cluster, one node after the other, and end it after the block."""
    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="inq_", dir="/tmp", ignore_cleanup_errors=True) as folder,
    ):
        subprocess.run([REPO / "docker" / "make-certificates", f"{folder}/tls", HEAD, WORKER], check=True, timeout=300)
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {
            "HOME": folder,
            "PATH": os.pathsep.join([str(_BIN), env.get("PATH", os.defpath)]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # To start the process that serves a client; 30 are too few for a machine that is busy with other tests. A
            # client that is refused waits as long, and gives up itself after some more.
            "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "110",
            "RAY_TLS_CA_CERT": f"{folder}/tls/ca.crt",
            "RAY_TLS_SERVER_CERT": f"{folder}/tls/tls.crt",
            "RAY_TLS_SERVER_KEY": f"{folder}/tls/tls.key",
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_USE_TLS": "1",
        }
        names = ("gcs", "dashboard", "client", "head", "worker", "dashboard metrics", "autoscaler metrics")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        # Ray's own default of these is one number for all clusters of a machine; the second to come has no metrics.
        env |= {
            "AUTOSCALER_METRIC_PORT": str(ports["autoscaler metrics"]),
            "DASHBOARD_METRIC_PORT": str(ports["dashboard metrics"]),
        }
        processes: dict[str, subprocess.Popen[bytes]] = {}
        flags = {
            "head": [
                *("--head", f"--port={ports['gcs']}", "--num-cpus=0", "--dashboard-host=127.0.0.1"),
                *(f"--dashboard-port={ports['dashboard']}", f"--ray-client-server-port={ports['client']}"),
                f"--node-ip-address={HEAD}",
            ],
            "worker": [f"--address={HEAD}:{ports['gcs']}", "--num-cpus=1", f"--node-ip-address={WORKER}"],
        }
        for node, flags_of_node in flags.items():
            command = [str(_BIN / "ray"), "start", "--block", "--object-store-memory=100000000", *flags_of_node]
            command.append(f"--dashboard-agent-listen-port={ports[node]}")
            log = Path(folder, f"{node}.log")
            processes[node] = process = stack.enter_context(
                subprocess.Popen(command, env=env, cwd="/", stdout=log.open("wb"), stderr=subprocess.STDOUT)
            )
            stack.callback(_end, process)

            def check(process: subprocess.Popen[bytes] = process, log: Path = log) -> None:
                assert process.poll() is None, log.read_text()

            wait_for_agent(ports[node], check)
        yield TwoNodes(env=env, ports=ports, processes=processes)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a node, and whatever it leaves."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
