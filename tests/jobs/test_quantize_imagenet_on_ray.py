"""The job as people start it: by itself, and by `ray job submit`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RayCluster

pytestmark = pytest.mark.ray

JOB = "jobs/quantize_imagenet.py"


def _run(
    command: list[str], env: dict[str, str], repo: Path, timeout: float = 1000
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def test_without_flags_digits_become_powers_of_two(job_env: dict[str, str], repo: Path, tmp_path: Path) -> None:
    done = _run([sys.executable, JOB, "--storage-path", str(tmp_path), "--name", "demo"], job_env, repo)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["top1"] >= summary["float_top1"] - 0.3
    assert [stage["portion"] for stage in summary["stages"]] == [0.5, 0.75, 0.875, 1.0]
    table = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert len(table) == 5
    for line, stage in zip(table[1:], summary["stages"], strict=True):
        assert f"{stage['top1_quantized']:.2f}" in line
        assert f"{stage['top1']:.2f}" in line
    assert f"result    {tmp_path}/demo" in done.stdout
    assert re.search(r"^next +\S*(inq-ray|python -m inq_ray) quantize ", done.stdout, re.MULTILINE)
    assert "pid=" not in done.stdout  # Ray's own noise


@pytest.mark.long
def test_submitted_to_a_running_cluster(job_server: str, job_env: dict[str, str], repo: Path, tmp_path: Path) -> None:
    flags = ["--epochs", "1", "--float-epochs", "3", "--iterative-steps", "0.5", "1", "--storage-path", str(tmp_path)]
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "job", "submit", "--working-dir", ".", "--", "python", JOB, "--name", "submitted", *flags]
    command += ["--log-format", "json"]
    env = {**job_env, "RAY_API_SERVER_ADDRESS": job_server}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = _run(command, env, repo)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    summary = json.loads((tmp_path / "submitted" / "summary.json").read_text())
    assert summary["verification"]["num_weights"] == 25744
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {line["event"] for line in lines} >= {"placed", "started", "row", "checkpoint", "finished"}
    assert {line["run"] for line in lines} == {"submitted"}
    assert [line["rank"] for line in lines if line["event"] == "placed"] == [0, 1]
    assert lines[-1]["digest"] == summary["digest"]


@pytest.mark.long
def test_the_given_network_has_its_published_accuracy(
    ray_cluster: RayCluster, shared_data: Path, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    weights = shared_data / "models" / "cifar10_resnet20.safetensors"
    flags = [
        "--data",
        str(shared_data / "cifar10"),
        "--arch",
        "cifar_resnet20",
        "--weights",
        str(weights),
        "--evaluate",
    ]
    env = {**job_env, "RAY_ADDRESS": ray_cluster.address}
    storage = tmp_path / "runs"
    storage.mkdir()
    done = _run([sys.executable, JOB, *flags, "--storage-path", str(storage)], env, repo)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "top-1 91.73 %, top-5 99.66 % of 10,000 images\n"
    assert list(storage.iterdir()) == []
