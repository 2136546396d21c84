"""Faults in the middle of real runs on a real cluster: each ends with the bits of a calm run, or in one clear line."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inq_ray.cluster.failure import RunFailedError
from inq_ray.cluster.trainer import quantize
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.report.events import SilentReporter
from inq_ray.training.run_folder import RunFolder
from tests import soak
from tests.cluster.broken_networks import marker
from tests.conftest import RayCluster
from tests.faults import Planned, damage, processes_below, quantize_under, send, train_workers
from tests.ranks import run_ranks
from tests.training.runs import needs_digits, read_rows, read_summary, run_here

pytestmark = [pytest.mark.ray, needs_digits]

JOB = "jobs/quantize_imagenet.py"
BROKEN = "tests.cluster.broken_networks"


def _config(folder: Path, name: str, **sections: dict[str, Any]) -> RunConfig:
    """Two stages, so long that a fast machine does not end them before a fault has struck; a checkpoint every seventh
    step, so that it is somewhere within an epoch."""
    config = default_recipe("digits_cnn", 4).replace(
        quantization={"iterative_steps": (0.5, 1.0)},
        training={"epochs": 12, "float_epochs": 1},
        cluster={"max_failures": 20, "collective_timeout": "30s"},
        output={"storage_path": str(folder), "name": name, "checkpoint_every": "7"},
    )
    return config.replace(**sections)


def _calm(config: RunConfig) -> dict[str, Any]:
    """What a calm run ends with, from two ranks without Ray: launchers change no bit."""
    run_ranks(_run, 2, config, timeout_seconds=900)
    return read_summary(RunFolder.planned(config))


def _run(config: RunConfig) -> None:
    run_here(config)


def _check_same(summary: dict[str, Any], calm: dict[str, Any]) -> None:
    assert {name: summary[name] for name in soak.SAME} == {name: calm[name] for name in soak.SAME}


@pytest.mark.long
def test_killed_workers_change_nothing(ray_cluster: RayCluster, tmp_path: Path) -> None:
    plan = [
        Planned("kill_in_checkpoint", stage=0, epoch=1),
        Planned("kill_twice", stage=1, epoch=2, choice=12, num_resumed=1),
        Planned("kill_in_stage_change", stage=1, epoch=3, choice=1, num_resumed=2),
    ]
    summary, texts = quantize_under(_config(tmp_path, "killed"), plan)
    _check_same(summary, _calm(_config(tmp_path, "calm")))
    counts = summary["events"]["counts"]
    assert counts["workers_lost"] >= len(plan)
    assert counts["workers_lost"] == sum("starting again" in text for text in texts)
    assert counts["resumed"] == sum(text.startswith("continuing from") for text in texts)
    assert summary["events"]["seconds_lost"] > 0


@pytest.mark.long
def test_killed_processes_of_the_driver_s_side_change_nothing(ray_cluster: RayCluster, tmp_path: Path) -> None:
    """Ray Train's controller, and the actor by which rank 0 and the driver talk: a stop reaches the workers too."""
    plan = [
        Planned("kill_controller", stage=0, epoch=1),
        Planned("kill_mailbox", stage=1, epoch=1, num_resumed=1),
        Planned("stop_driver_in_stage_change", stage=1, epoch=3, num_resumed=2),
        Planned("stop_driver_without_mailbox", stage=2, epoch=0, num_resumed=3),
    ]
    summary, texts = quantize_under(_config(tmp_path, "killed"), plan)
    _check_same(summary, _calm(_config(tmp_path, "calm")))
    counts = summary["events"]["counts"]
    assert (counts["workers_lost"], counts["resumed"], counts["stopped"]) == (3, 4, 3)
    assert [text for text in texts if text.startswith("Ray Train's controller, which watches the workers, is lost: ")]
    assert [text for text in texts if text.startswith("rank 0: MailboxLostError: ")]


@pytest.mark.long
def test_what_does_not_kill_a_worker_changes_nothing(ray_cluster: RayCluster, tmp_path: Path) -> None:
    """A worker is frozen, one has to leave; a loss is no number, and a weight differs by one bit."""
    options: dict[str, Any] = {
        "network": {"arch": f"{BROKEN}:Flawed"},
        "training": {"on_nan": "skip"},
        "cluster": {"on_mismatch": "restart"},
    }
    marker().touch()
    calm = _calm(_config(tmp_path, "calm", **options))
    marker().unlink()
    plan = [
        Planned("notice", stage=1, epoch=3, choice=1, num_resumed=1),
        Planned("freeze", stage=2, epoch=1, choice=1, num_resumed=2),
    ]
    summary, texts = quantize_under(_config(tmp_path, "flawed", **options), plan)
    _check_same(summary, calm)
    assert summary["num_skipped_steps"] > 0
    counts = summary["events"]["counts"]
    assert (counts["stopped"], counts["workers_lost"], counts["replicas_differ"], counts["resumed"]) == (1, 1, 1, 3)
    assert "starting again on other workers" in texts
    assert [text for text in texts if "classifier.weight" in text and "on ranks [1]" in text]


@pytest.mark.long
def test_too_little_memory_is_one_line_that_says_what_to_change(ray_cluster: RayCluster, tmp_path: Path) -> None:
    config = _config(tmp_path, "large", network={"arch": f"{BROKEN}:TooLarge"})
    with pytest.raises(
        RunFailedError, match=r"^rank 1: RuntimeError: .*allocate.*; use a smaller --batch-size"
    ) as failed:
        quantize(config, SilentReporter())
    assert len(str(failed.value).splitlines()) == 1


@pytest.mark.long
def test_one_command_goes_on_whatever_ended_it(
    ray_cluster: RayCluster, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    """The driver is stopped, killed, started twice; checkpoints are damaged meanwhile."""
    flags = ["--weight-bits", "4", "--iterative-steps", "0.5", "1", "--epochs", "30", "--float-epochs", "1"]
    flags += ["--checkpoint-every", "7"]
    command = [sys.executable, JOB, "--storage-path", str(tmp_path), "--name", "ended", *flags]
    env = {**job_env, "RAY_ADDRESS": ray_cluster.address}
    run = tmp_path / "ended"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(job: subprocess.Popen[str], has_come: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 600
        while not has_come() and job.poll() is None:
            assert time.monotonic() < deadline, "it makes no checkpoints"
            time.sleep(0.01)

    def newest() -> str:
        return max((path.name for path in run.glob("checkpoints/checkpoint-*")), default="")

    def wait_for_quiet() -> None:
        """Workers outlive a driver that was killed for a moment, in which they make more checkpoints."""
        deadline = time.monotonic() + 300
        while train_workers():
            assert time.monotonic() < deadline, "workers outlive their driver"
            time.sleep(0.1)

    def end(job: subprocess.Popen[str], number: signal.Signals | None = None, after: str = "") -> tuple[int, str, str]:
        if number is not None:
            wait_for(job, lambda: newest() > after)
            job.send_signal(number)
        out, err = job.communicate(timeout=600)
        return job.returncode, out, err

    first = start()
    wait_for(first, (run / "config.json").is_file)  # it has its name, and its workers are being started
    code, out, err = end(start())
    assert (code, out.count("continuing")) == (2, 0), out + err
    assert "--name ended: this run is running (process " in err
    code, out, err = end(first, signal.SIGTERM, after="checkpoint-01-0001")
    assert (code, "stopped at checkpoint-0" in out) == (143, True), out + err
    assert "run the same command to continue" in err
    code, out, err = end(start(), signal.SIGKILL, after="checkpoint-02-0004")
    assert code == -signal.SIGKILL, out + err
    wait_for_quiet()
    damage(max(run.glob("checkpoints/checkpoint-*")) / "manifest.json", choice=1)
    code, out, err = end(start())
    assert (code, err) == (0, ""), out
    assert "is damaged and ignored" in out
    calm = _config(tmp_path, "calm", training={"epochs": 30})
    _check_same(read_summary(RunFolder(run)), _calm(calm))


def _kill_below(job: int, program: str) -> None:
    for process in processes_below(job, lambda line: line.split(b"\0")[0].endswith(program.encode())):
        send(signal.SIGKILL, process)


@pytest.mark.long
def test_a_cluster_that_is_lost_is_one_line_and_the_same_command_goes_on(
    job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    """Ray ends the process by itself, without an exception, a minute later, and with a dump of its state."""
    flags = ["--weight-bits", "4", "--iterative-steps", "0.5", "1", "--epochs", "100", "--float-epochs", "1"]
    flags += ["--num-workers", "1", "--checkpoint-every", "7"]
    command = [sys.executable, JOB, "--storage-path", str(tmp_path), "--name", "lost", *flags]
    checkpoints = tmp_path / "lost" / "checkpoints"
    for part, stage in (("raylet", 0), ("gcs_server", 1)):
        with subprocess.Popen(
            command, cwd=repo, env=job_env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as job:
            deadline = time.monotonic() + 600
            while not list(checkpoints.glob(f"checkpoint-0{stage + 1}-0*")) and job.poll() is None:
                assert time.monotonic() < deadline, "it makes no checkpoints"
                time.sleep(0.05)
            _kill_below(job.pid, part)
            _, err = job.communicate(timeout=120)
        assert job.returncode == 1, err
        assert err.splitlines()[-1].startswith("inq_ray: failed: Ray's "), err
        assert err.splitlines()[-1].endswith("run the same command to continue from the last checkpoint"), err
    done = subprocess.run(command, cwd=repo, env=job_env, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    summary = read_summary(RunFolder(tmp_path / "lost"))
    assert summary["events"]["counts"] == {"failed": 2, "resumed": 2}
    calm = _config(tmp_path, "calm", training={"epochs": 100}, cluster={"num_workers": 1, "collective_timeout": "30s"})
    assert summary["digest"] == run_here(calm).summary["digest"]


@pytest.mark.long
def test_workers_that_thaw_beside_their_successors_write_nothing(ray_cluster: RayCluster, tmp_path: Path) -> None:
    """A bug once: the digest was right, and metrics.jsonl had rows twice."""
    plan = [Planned("freeze_and_thaw", stage=0, epoch=1)]  # early: most of the run is still to come
    summary = soak.check_round(tmp_path, 1, _calm(soak.config_of(tmp_path, "calm")), plan)
    assert summary["events"]["counts"] == {"resumed": 1, "workers_lost": 1}
    folder = tmp_path / "round-1"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == len(read_rows(RunFolder(folder)))
    assert len((folder / "events.jsonl").read_text().splitlines()) == 2


@pytest.mark.long
@pytest.mark.parametrize("seed", [18, 8])
def test_a_short_soak(seed: int, ray_cluster: RayCluster, tmp_path: Path) -> None:
    """A round of `make soak`: workers are killed in a change of stages, or in a checkpoint."""
    soak.check_round(tmp_path, seed, _calm(soak.config_of(tmp_path, "calm")))
