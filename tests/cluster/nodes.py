"""Several real Ray nodes on this machine, each with an address of its own on the loopback interface.

A node is a session of processes, begun by `ray start --block`, and ends by SIGKILL of all of them at once, as a machine
does whose power fails. Nothing of it outlives the block in which it was started, nor this process if that is killed:
this module run as a program waits for the end of its input, and then ends all sessions that were named in it.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ports import free_ports, wait_for_agent

# Bound of starting a node on a machine that others use too.
_START_SECONDS = 300.0
_OBJECT_STORE_BYTES = 100_000_000
_PRINT_NODE = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
print(*[node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == sys.argv[2]])
"""
_REPO = Path(__file__).resolve().parents[2]
_RAY = str(Path(sys.executable).with_name("ray"))


class Nodes:
    """Nodes of one cluster, of one CPU each, with the addresses 127.0.0.2 and so on; none yet.

    Args:
        folder: a short path, for Ray's sockets and logs.
        env: environment of all nodes.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        # A node that is gone is noticed after five seconds, not fifteen.
        self._env = {**env, "RAY_health_check_period_ms": "1000"}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._agents: list[int] = []
        self._watch = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.nodes"], cwd=_REPO, stdin=subprocess.PIPE, start_new_session=True
        )
        self._address: str | None = None
        self._dashboard: str | None = None

    @property
    def dashboard(self) -> str:
        """Of the cluster, for RAY_API_SERVER_ADDRESS."""
        assert self._dashboard is not None, "there is no head node, or none with a dashboard"
        return self._dashboard

    @property
    def address(self) -> str:
        """Of the cluster, for RAY_ADDRESS."""
        assert self._address is not None, "there is no head node"
        return self._address

    @property
    def sessions(self) -> list[int]:
        """Of the nodes, for :func:`processes_of`."""
        return [process.pid for process in self._processes]

    def add_head(self) -> None:
        """Starts the first node, to which drivers belong, and waits until it is there."""
        ports = ["--port=0", "--dashboard-host=127.0.0.1", "--dashboard-port=0"]
        log = self._start(["--head", *ports, f"--temp-dir={self._folder}"], [])
        found = re.search(r"ray start --address='([0-9.:]+)'", log)
        assert found, log
        self._address = found[1]
        dashboard = re.search(r"RAY_API_SERVER_ADDRESS='(http://[0-9.:]+)'", log)
        self._dashboard = dashboard[1] if dashboard else None

    def wait_for_jobs(self) -> None:
        """Waits until the head takes jobs."""
        wait_for_agent(self._agents[0])

    def add(self, prefix: Sequence[str] = ()) -> int:
        """Starts a node, and waits until it is there; returns its number.

        Args:
            prefix: a command that runs the node's.
        """
        self._start([f"--address={self.address}"], prefix)
        return len(self._processes) - 1

    def kill(self, number: int) -> None:
        """Ends all processes of a node at once."""
        kill_session(self._processes[number].pid)
        self._processes[number].wait(timeout=60)

    def drain(self, number: int, *, seconds: int) -> None:
        """Tells Ray that a node will be taken away in so many seconds."""
        found = subprocess.run(
            [sys.executable, "-c", _PRINT_NODE, self.address, f"127.0.0.{number + 2}"],
            env=self._env,
            check=True,
            capture_output=True,
            text=True,
        )
        node = found.stdout.split()[-1]
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
        command = [_RAY, "drain-node", f"--address={self.address}", f"--node-id={node}", *why]
        subprocess.run(
            [*command, f"--deadline-remaining-seconds={seconds}"], env=self._env, check=True, capture_output=True
        )

    def close(self) -> None:
        """Ends all nodes, the head last, and what was watched beside."""
        for number in reversed(range(len(self._processes))):
            self.kill(number)
        assert self._watch.stdin is not None
        self._watch.stdin.close()
        self._watch.wait(timeout=120)

    def watch(self, session: int) -> None:
        """Has a session end with this process, whatever ends it."""
        assert self._watch.stdin is not None
        self._watch.stdin.write(b"%d\n" % session)
        self._watch.stdin.flush()

    def _start(self, arguments: list[str], prefix: Sequence[str]) -> str:
        ip = f"127.0.0.{len(self._processes) + 2}"
        log = self._folder.parent / f"{ip}.log"
        options = [f"--node-ip-address={ip}", "--num-cpus=1", f"--object-store-memory={_OBJECT_STORE_BYTES}", "--block"]
        # By default one port for all clusters of a machine: of two heads the second would take no jobs.
        (agent,) = free_ports(1)
        options.append(f"--dashboard-agent-listen-port={agent}")
        self._agents.append(agent)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*prefix, _RAY, "start", *arguments, *options],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        self.watch(process.pid)
        deadline = time.monotonic() + _START_SECONDS
        while "will now block forever" not in (text := re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        return text


@contextlib.contextmanager
def nodes_in(folder: Path, env: dict[str, str]) -> Iterator[Nodes]:
    """A head node, and what is added to it, for the time of the block."""
    nodes = Nodes(folder, env)
    try:
        nodes.add_head()
        yield nodes
    finally:
        nodes.close()


def kill_session(session: int) -> None:
    """Ends all processes of a session, and waits until none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while left := processes_of(session):
        assert time.monotonic() < deadline, f"processes {left} outlive SIGKILL"
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def processes_of(session: int) -> list[int]:
    """Ids of the processes that are alive in a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has ended
        if int(sid) == session and state != "Z":
            found.append(int(folder.name))
    return found


def main() -> None:
    """Waits until its input ends, and then ends the sessions whose numbers were its lines."""
    for session in [int(line) for line in sys.stdin]:
        kill_session(session)


if __name__ == "__main__":
    main()
