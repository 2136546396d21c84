"""What tests share: where things are, one Ray cluster for the session, the environment of jobs in subprocesses.

The whole session runs with settings for Ray that come from here and not from the user's shell, see `_session_settings`.
They are in place before any test module is imported, because Ray reads some of them when it is imported.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from inq_ray.storage import retry
from tests.gcs import GoogleServer, serve_gcs
from tests.ports import free_ports, wait_for_agent
from tests.proxy import BadProxy, bad_proxy
from tests.s3 import FOREIGN_SETTINGS, S3Server, serve_s3

REPO = Path(__file__).resolve().parent.parent

# The same examples in every run, so that a failure comes from a change; `--hypothesis-profile=search` looks further.
# On a busy machine drawing them is slow.
_PATIENT = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", _PATIENT, derandomize=True, database=None)
settings.register_profile("search", _PATIENT, max_examples=1000)
settings.load_profile("ci")

# One thread for each process: ranks share the cores with others, and sums come out in one order.
_THREADS = {"OMP_NUM_THREADS": "1"}

# `python` and `ray` in a command, also in one submitted to the cluster, are those of this environment.
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

# Tests with a fixture that starts a server, and modules of tests on several ranks, have the mark `system`.
_SERVERS = frozenset({"gcs", "proxy", "s3", "s3_server"})
_OF_RANKS = frozenset({"run_ranks", "rank_outcomes"})

# Of the session's cluster: four workers of one CPU each can be placed on any machine.
NUM_CPUS = 4

# Where a shell says which cluster to use: never a test's business.
_FOREIGN_CLUSTER = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_NAMESPACE", "RAY_AUTH_TOKEN_PATH")


def _session_settings(cache: str) -> dict[str, str]:
    """Environment variables of the test session, inherited by the cluster, its workers, and jobs in subprocesses.

    Ray 2.60 with RAY_AUTH_MODE unset: a `ray.init()` that starts a cluster turns token authentication on, and writes
    ~/.ray/auth_token where there is no token yet. With mode and token both given nothing is written, and drivers,
    workers and the job API of one session understand each other, while no other session does.
    """
    return {
        "INQ_RAY_CACHE": cache,
        "MPLCONFIGDIR": cache,  # matplotlib writes into the home otherwise
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray will do by default; else it warns
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # As jobs do where they start a cluster themselves: nobody announces preemption here, and fits end sooner.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        # For a machine that others use too.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
        "RAY_gcs_server_port_wait_time_s": "300",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def pytest_configure(config: pytest.Config) -> None:
    cache = tempfile.TemporaryDirectory(prefix="inq_cache_", ignore_cleanup_errors=True)
    config.add_cleanup(cache.cleanup)
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in _FOREIGN_CLUSTER:
        patch.delenv(name, raising=False)
    for name, value in {**_THREADS, **_session_settings(cache.name)}.items():
        patch.setenv(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and (
            not _SERVERS.isdisjoint(item.fixturenames) or not _OF_RANKS.isdisjoint(vars(item.module))
        ):
            item.add_marker("system")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU, and torch finds none here")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is missing."""
    folder = REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real images and trained weights are missing")
    return folder


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A running cluster: `address` for ray.init and RAY_ADDRESS, `dashboard` for RAY_API_SERVER_ADDRESS.

    Jobs are taken once something answers at the port `agent`; `job_server` waits for that.
    """

    address: str
    dashboard: str
    agent: int


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One local Ray cluster for the session, and this process connected to it as a driver.

    From its start to the end of the session HOME is an empty folder. Its traffic stays on the loopback interface. The
    dashboard is on because Ray Train asks it for the state of actors: without it, every fit logs an error every second.
    """
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray._private.parameter import RayParams

    (agent,) = free_ports(1)
    with _short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        home = Path(folder, "home")
        home.mkdir()
        patch.setenv("HOME", str(home))
        patch.setenv("PATH", _PATH)
        # By default one port for all clusters of a machine: of two the second would take no jobs.
        patch.setattr(RayParams, "__init__", partialmethod(RayParams.__init__, dashboard_agent_listen_port=agent))
        context = ray.init(
            address="local",
            num_cpus=NUM_CPUS,
            object_store_memory=256 * 1024**2,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.2",  # Ray would replace 127.0.0.1 by the machine's outside address
            _temp_dir=folder,
        )
        try:
            address, dashboard = context.address_info["gcs_address"], f"http://{context.address_info['webui_url']}"
            # As `ray start` does. Without it a submitted job joins any cluster of the machine, if there are several.
            Path(folder, "ray_current_cluster").write_text(address)
            yield RayCluster(address=address, dashboard=dashboard, agent=agent)
        finally:
            ray.shutdown()


@pytest.fixture(autouse=True)
def _nothing_stays_reserved(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves CPUs of the session's cluster reserved fails itself, instead of a later one that waits."""
    yield
    if "ray_cluster" not in request.fixturenames:
        return
    import ray
    from ray.util import placement_group_table

    deadline = time.monotonic() + 300
    while (free := ray.available_resources().get("CPU")) != NUM_CPUS:  # type: ignore[no-untyped-call]
        kept = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        assert time.monotonic() < deadline, f"only {free} of {NUM_CPUS} CPUs are free again; placement groups: {kept}"
        time.sleep(0.1)


@pytest.fixture
def job_server(ray_cluster: RayCluster) -> str:
    """Where `ray job submit` finds the session's cluster, which takes jobs now."""
    wait_for_agent(ray_cluster.agent)
    return ray_cluster.dashboard


@pytest.fixture
def job_env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment for a job in `subprocess.run(..., env=job_env)`: an empty HOME, a cluster of its own.

    To send the job to the session's cluster instead of starting one, add RAY_ADDRESS=ray_cluster.address, or for
    `ray job submit` RAY_API_SERVER_ADDRESS=job_server; the token is the same.
    """
    home = tmp_path / "home"
    home.mkdir()
    with _short_folder() as folder:
        env = {name: value for name, value in os.environ.items() if name not in _THREADS}
        yield {**env, "HOME": str(home), "PATH": _PATH, "RAY_TMPDIR": folder, "PYTHONUNBUFFERED": "1"}


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """A private folder for Ray: paths of its sockets end at 107 characters, too few for pytest's tmp_path."""
    return tempfile.TemporaryDirectory(prefix="inq_", dir="/tmp", ignore_cleanup_errors=True)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server; `s3` gives a test access to it."""
    pytest.importorskip("moto", reason="moto, which is a server of S3 for tests, is not installed")
    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with this process's environment set so that s3:// means it."""
    for name in FOREIGN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    """A server like Google's, for this test alone, and gs:// means it."""
    with serve_gcs() as server:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadProxy]:
    """A proxy before the server, through which s3:// leads now: a good one until it is told otherwise."""
    with bad_proxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures end within moments."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
