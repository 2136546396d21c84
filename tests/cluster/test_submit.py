"""The job submitted to a cluster of two nodes, with its checkpoints on S3: it runs, is stopped, and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from inq_ray.training.run_folder import RunFolder
from tests.cluster.nodes import Nodes, nodes_in, processes_of
from tests.cluster.test_nodes import FLAGS, calm_digest
from tests.conftest import REPO
from tests.s3 import FOREIGN_SETTINGS, S3Server, serve_s3

pytestmark = [pytest.mark.ray, pytest.mark.long]

RAY = str(Path(sys.executable).with_name("ray"))
SOON, END = 300.0, 600.0
# So that it is not at its end before somebody at a terminal has stopped it.
LONG = ["--epochs", "25"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="moto, which is a server of S3 for tests, is not installed")
    with serve_s3() as server:
        server.file_system().create_dir("runs")
        yield server


@pytest.fixture(scope="module")
def env(s3: S3Server) -> Iterator[dict[str, str]]:
    """Of nodes, and so of drivers and workers: the keys of the storage, and the time to stop that the image gives."""
    with tempfile.TemporaryDirectory(prefix="inq_", dir="/tmp", ignore_cleanup_errors=True) as home:
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        own = {"HOME": home, "PATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "300", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
        yield kept | s3.environment | own


@pytest.fixture(scope="module")
def nodes(env: dict[str, str]) -> Iterator[Nodes]:
    """A head and another node, of one CPU each."""
    with (
        tempfile.TemporaryDirectory(prefix="inq_", dir="/tmp", ignore_cleanup_errors=True) as folder,
        nodes_in(Path(folder, "ray"), env) as made,
    ):
        made.add()
        made.wait_for_jobs()
        yield made


@pytest.fixture
def terminal(nodes: Nodes, s3: S3Server) -> dict[str, str]:
    """The environment of somebody who has the cluster's token, and no key of the storage."""
    alien = s3.environment.keys()
    kept = {name: value for name, value in os.environ.items() if name not in alien}
    return {**kept, "RAY_API_SERVER_ADDRESS": nodes.dashboard}


@pytest.fixture
def job(terminal: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`ray job ...`, from there."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAY, "job", *words], cwd=REPO, env=terminal, check=False, capture_output=True, text=True, timeout=END
        )

    return run


def _wait(is_there: Callable[[], bool], told: Callable[[], str]) -> None:
    deadline = time.monotonic() + SOON
    while not is_there():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def _working(nodes: Nodes) -> list[str]:
    """Workers that train; the driver is in a session of its own."""
    lines = []
    for process in (process for session in nodes.sessions for process in processes_of(session)):
        try:
            lines.append(Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended
    return [line for line in lines if "RayTrainWorker" in line]


def test_a_job_is_left_stopped_and_submitted_again(
    nodes: Nodes,
    s3: S3Server,
    terminal: dict[str, str],
    job: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    expected = calm_digest(tmp_path, *LONG)
    flags = ["--storage-path", str(tmp_path), "--name", "run", "--num-workers", "2", "--checkpoint-path", "s3://runs/a"]
    command = ["--working-dir", ".", "--", "python", "jobs/quantize_imagenet.py", *FLAGS, *LONG, *flags]

    def has_checkpoint() -> bool:
        found = s3.file_system().get_file_info(pafs.FileSelector("runs", recursive=True))
        # Of a stage: those of its first epoch are soon gone.
        return any(re.search("checkpoint-0[12]-.*manifest.json$", info.path) for info in found)

    # Processes that a shell has put into the background ignore Ctrl-C, and their children do.
    submit = ["env", "--default-signal=INT", RAY, "job", "submit", "--submission-id", "first", *command]
    with subprocess.Popen(submit, cwd=REPO, env=terminal, stdout=subprocess.DEVNULL) as submitting:
        try:
            _wait(has_checkpoint, lambda: job("logs", "first").stdout)
            submitting.send_signal(signal.SIGINT)  # Ctrl-C where it was submitted: the job goes on without a terminal
            assert submitting.wait(timeout=SOON) != 0
        finally:
            submitting.kill()
    assert "RUNNING" in job("status", "first").stdout
    assert len(_working(nodes)) == 2
    stopped = job("stop", "first")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "was stopped" in stopped.stdout
    told = job("logs", "first").stdout
    places = [line.partition(" (")[0] for line in told.splitlines() if line.startswith("rank ")]
    assert sorted(places) in (
        ["rank 0: node 127.0.0.2", "rank 1: node 127.0.0.3"],
        ["rank 0: node 127.0.0.3", "rank 1: node 127.0.0.2"],
    )
    _wait(lambda: not _working(nodes), lambda: str(_working(nodes)))
    folder = RunFolder(tmp_path / "run")
    assert [json.loads(line)["kind"] for line in folder.events.read_text().splitlines()] == ["stopped"]
    assert not (folder.path / "checkpoints").exists()

    again = job("submit", *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search("continuing from checkpoint-0[12]-", again.stdout)
    summary = folder.read_summary()
    assert summary is not None
    assert summary["digest"] == expected
    assert expected in again.stdout
    for line in (told, again.stdout, *(path.read_text() for path in folder.path.glob("*.json*"))):
        assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in line


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["--working-dir", ".", "--", "python", "jobs/quantize_imagenet.py"], "quantize_imagenet"),
        (["--", "inq-ray", "quantize"], "inq-ray quantize"),
    ],
    ids=["a script that is sent", "the program that the nodes have"],
)
def test_a_job_that_cannot_start_says_why_and_fails(
    words: list[str], program: str, job: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = job("submit", *words, "--weight-bits", "1")
    assert done.returncode != 0
    assert f"{program}: --weight-bits" in done.stdout + done.stderr
    assert job("submit", *words, "--dry-run", "--num-workers", "1").returncode == 0
