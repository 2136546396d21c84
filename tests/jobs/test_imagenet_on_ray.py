"""Two networks of torchvision, images of many sizes: from a folder, and from Parquet on a real S3 server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RayCluster
from tests.imagenet_sample import write_folder, write_parquet
from tests.s3 import serve_s3

pytestmark = pytest.mark.ray

# Two stages; images of 64 pixels, so that a CPU trains in seconds.
FLAGS = [
    "--float-epochs", "1", "--epochs", "1", "--iterative-steps", "0.5", "1",
    "--batch-size", "40", "--crop-size", "64", "--lr", "0.01", "--float-lr", "0.01", "--name", "run",
]  # fmt: skip


def quantize(data: str, arch: str, flags: list[str], env: dict[str, str], repo: Path, storage: Path) -> dict[str, Any]:
    command = [sys.executable, "jobs/quantize_imagenet.py", "--data", data, "-a", arch, *FLAGS, *flags]
    done = subprocess.run(
        [*command, "--storage-path", str(storage)],
        cwd=repo, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bound by" in done.stdout
    summary: dict[str, Any] = json.loads((storage / "run" / "summary.json").read_text())
    return summary


def test_a_folder_with_all_that_training_offers(
    shared_data: Path, ray_cluster: RayCluster, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    folder = write_folder(shared_data / "imagenet_sample", tmp_path / "imagenet")
    broken = next((folder / "train" / "n00000003").iterdir())
    broken.write_bytes(broken.read_bytes()[:3000])
    flags = [
        "-j", "1", "--skip-bad-images", "2", "--auto-augment", "trivialaugment", "--random-erasing", "0.2",
        "--mixup", "0.2", "--cutmix", "1", "--label-smoothing", "0.1", "--clip-grad-norm", "1", "--ema-decay", "0.9",
        "--accumulate", "2", "-p", "2", "--track", "tensorboard",
    ]  # fmt: skip
    env = {**job_env, "RAY_ADDRESS": ray_cluster.address}
    summary = quantize(str(folder), "resnet18", flags, env, repo, tmp_path / "runs")
    assert summary["verification"]["num_weights"] == 11_172_032
    assert summary["num_bad_images"] == 1
    assert any((tmp_path / "runs" / "run").rglob("events.out.tfevents*"))


def test_parquet_on_a_storage(shared_data: Path, job_env: dict[str, str], repo: Path, tmp_path: Path) -> None:
    folder = write_parquet(shared_data / "imagenet_sample", tmp_path / "parquet")
    with serve_s3() as server:
        address = server.upload(folder, "bucket/imagenet")
        env = job_env | server.environment
        summary = quantize(address, "mobilenet_v3_small", ["-j", "2"], env, repo, tmp_path / "runs")
    assert summary["verification"]["num_tensors"] == 54
    assert summary["data"] == "s3://bucket/imagenet"
