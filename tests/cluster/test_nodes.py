"""Nodes that are lost in the middle of a run, and nodes that join: real ones, in processes of their own."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inq_ray.training.flags.parse import parse
from tests.cluster.nodes import Nodes, kill_session, nodes_in
from tests.conftest import REPO
from tests.ranks import run_ranks
from tests.training.runs import run_here

pytestmark = pytest.mark.ray

# So long that a fast machine does not end it before a node is killed; a checkpoint every third step, so that it is
# somewhere within an epoch.
FLAGS = ["--weight-bits", "4", "--iterative-steps", "0.5", "1", "--float-epochs", "1", "--epochs", "12"]
FLAGS += ["--checkpoint-every", "3"]
# Bounds of waiting for what a run does, on a machine that others use too.
SOON, END = 300.0, 600.0


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """Of nodes and jobs: an empty HOME."""
    with tempfile.TemporaryDirectory(prefix="inq_", dir="/tmp", ignore_cleanup_errors=True) as home:
        yield {**os.environ, "HOME": home, "PYTHONUNBUFFERED": "1", "COLUMNS": "300"}


@pytest.fixture(scope="module")
def nodes(env: dict[str, str]) -> Iterator[Nodes]:
    """A head node, and what tests add to it."""
    with (
        tempfile.TemporaryDirectory(prefix="inq_", dir="/tmp", ignore_cleanup_errors=True) as folder,
        nodes_in(Path(folder, "ray"), env) as made,
    ):
        yield made


class Job:
    """The job in a process of its own, as a user starts it on the head node."""

    def __init__(self, nodes: Nodes, storage: Path, flags: list[str], env: dict[str, str]) -> None:
        self.log = storage / "job.log"
        command = [sys.executable, "jobs/quantize_imagenet.py", "--storage-path", str(storage), "--name", "run"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *FLAGS, *flags],
                cwd=REPO,
                env={**env, "RAY_ADDRESS": nodes.address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        nodes.watch(self.process.pid)
        self.folder = storage / "run"

    def wait_for(self, what: str) -> None:
        """Waits until the job has said something."""
        self._wait(lambda: what in self.log.read_text())

    def wait_for_checkpoint(self) -> None:
        """Waits until there is a checkpoint in the middle of an epoch of a stage; those of the first are soon gone."""
        self._wait(lambda: any(self.folder.glob("checkpoints/checkpoint-0[12]-*-0*[1-9]*/manifest.json")))

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns exit status and output."""
        return self.process.wait(timeout=END), self.log.read_text()

    def summary(self) -> dict[str, Any]:
        status, output = self.end()
        assert status == 0, output
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary

    def _wait(self, is_there: Any) -> None:
        deadline = time.monotonic() + SOON
        while not is_there():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@contextlib.contextmanager
def job(nodes: Nodes, storage: Path, flags: list[str], env: dict[str, str]) -> Iterator[Job]:
    started = Job(nodes, storage, flags, env)
    try:
        yield started
    finally:
        kill_session(started.process.pid)
        started.process.wait(timeout=60)


def calm_digest(storage: Path, *flags: str) -> str:
    """Of the same run on two ranks that nobody disturbs."""
    config = parse([*FLAGS, *flags, "--storage-path", str(storage), "--name", "calm"]).run
    return str(run_ranks(_digest, 2, config, timeout_seconds=900)[0])


def _digest(config: Any) -> str:
    return str(run_here(config).summary["digest"])


@pytest.mark.long
def test_a_fixed_number_of_workers_waits_for_a_new_node_and_ends_with_the_bits_of_a_calm_run(
    nodes: Nodes, env: dict[str, str], tmp_path: Path
) -> None:
    expected = calm_digest(tmp_path)
    second = nodes.add()
    with job(nodes, tmp_path, ["--num-workers", "2"], env) as started:
        started.wait_for_checkpoint()
        nodes.kill(second)
        started.wait_for(
            "waiting up to 10m for room for 2 worker(s) of 1 CPU each (--num-workers), there is room for 1"
        )
        third = nodes.add()
        summary = started.summary()
    nodes.kill(third)
    assert summary["digest"] == expected
    assert summary["world_sizes"] == [2]
    output = started.log.read_text()
    assert output.count("starting again (1 of --max-failures 3)") == 1
    assert re.search("continuing from checkpoint-0[12]-", output)


MAILBOXES = """
import ray
from inq_ray.cluster.mailbox import deliver
from inq_ray.training.report.events import SilentReporter

ray.init(log_to_driver=False, logging_level="ERROR")
here = ray.get_runtime_context().get_node_id()
for _ in range(6):
    with deliver(SilentReporter()) as mailbox:
        there = ray.get(mailbox.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()), timeout=60)
        assert there == here, "on a node whose loss would end all reports"
"""


@pytest.mark.long
def test_the_mailbox_is_on_the_drivers_node(nodes: Nodes, env: dict[str, str]) -> None:
    second = nodes.add()
    command = [sys.executable, "-c", MAILBOXES]
    done = subprocess.run(
        command,
        env=env | {"RAY_ADDRESS": nodes.address},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=END,
        check=False,
    )
    nodes.kill(second)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_range_of_workers_goes_on_with_what_is_left(nodes: Nodes, env: dict[str, str], tmp_path: Path) -> None:
    second = nodes.add()
    with job(nodes, tmp_path, ["--num-workers", "1..2"], env) as started:
        started.wait_for("2 of --num-workers 1..2 fit now")
        started.wait_for_checkpoint()
        nodes.kill(second)
        started.wait_for("1 of --num-workers 1..2 fit now")
        summary = started.summary()
    assert summary["world_sizes"] == [2, 1]
    assert "on 1 worker(s) after 2" in started.log.read_text()


@pytest.mark.long
def test_a_node_that_is_taken_back_leaves_a_checkpoint_and_counts_as_no_failure(
    nodes: Nodes, env: dict[str, str], tmp_path: Path
) -> None:
    """Spot machines are announced to Ray some time before they go: `ray drain-node` is what an autoscaler does then."""
    second = nodes.add()
    # The rest of the tests has no use for the watcher, which takes time.
    watched = env | {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
    with job(nodes, tmp_path, ["--num-workers", "1..2", "--epochs", "40", "--max-failures", "0"], watched) as started:
        started.wait_for_checkpoint()
        nodes.drain(second, seconds=300)
        started.wait_for("1 of --num-workers 1..2 fit now")
        summary = started.summary()
    nodes.kill(second)
    assert summary["world_sizes"] == [2, 1]
    assert summary["events"]["counts"] == {"resumed": 1, "stopped": 1}


@pytest.mark.long
@pytest.mark.skipif(subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0, reason="needs namespaces")
def test_a_node_that_does_not_see_the_storage_ends_the_run_in_one_line(
    nodes: Nodes, env: dict[str, str], tmp_path: Path
) -> None:
    """Another disk lies there, with a folder of the same name."""
    other_disk = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && mkdir "$0/run" && exec "$@"']
    second = nodes.add([*other_disk, str(tmp_path)])
    with job(nodes, tmp_path, ["--num-workers", "2"], env) as started:
        status, output = started.end()
    nodes.kill(second)
    assert status == 1
    folder = f"{started.folder}: --storage-path must be a folder that all nodes share"
    assert f"does not see files that the driver writes to {folder}" in output.splitlines()[-1]
    assert not list(started.folder.glob("checkpoints/*"))
