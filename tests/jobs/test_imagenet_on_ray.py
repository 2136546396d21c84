"""Two networks of torchvision, images of many sizes: from a folder, and from Parquet on a real S3 server."""

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from tests.conftest import RayCluster
from tests.imagenet_sample import write_folder, write_parquet
from tests.s3 import serve_s3

pytestmark = [pytest.mark.ray, pytest.mark.long]

# Two stages; images of 64 pixels, so that a CPU trains in seconds.
FLAGS = [
    "--float-epochs", "1", "--epochs", "1", "--iterative-steps", "0.5", "1",
    "--batch-size", "40", "--crop-size", "64", "--lr", "0.01", "--float-lr", "0.01", "--name", "run",
]  # fmt: skip


def quantize(data: str, arch: str, flags: list[str], env: dict[str, str], repo: Path, storage: Path) -> dict[str, Any]:
    command = [sys.executable, "jobs/quantize_imagenet.py", "--data", data, "-a", arch, *FLAGS, *flags]
    done = subprocess.run(
        [*command, "--storage-path", str(storage)],
        cwd=repo, env=env, capture_output=True, text=True, timeout=1000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bottleneck: " in done.stdout
    (storage / "said.txt").write_text(done.stdout + done.stderr)
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


# Beside the keys of the storage: a job finds them in its environment, and nobody finds them in what it leaves.
CANARIES = {
    name: f"canary-{number}-{secrets.token_hex(8)}"
    for number, name in enumerate(["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY"])
}


def files_with(secret: str, folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_parquet_on_a_storage_and_its_keys_stay_secret(
    shared_data: Path, job_env: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    folder = write_parquet(shared_data / "imagenet_sample", tmp_path / "parquet")
    with serve_s3() as server:
        address = server.upload(folder, "bucket/imagenet")
        env = job_env | server.environment | CANARIES
        flags = ["-j", "2", "--checkpoint-path", "s3://bucket/checkpoints", "--checkpoint-every", "3"]
        summary = quantize(
            address, "mobilenet_v3_small", [*flags, "--track", "tensorboard"], env, repo, tmp_path / "runs"
        )
        checkpoints = tmp_path / "runs" / "checkpoints"
        pafs.copy_files("bucket/checkpoints", str(checkpoints), source_filesystem=server.file_system())
    assert list(checkpoints.rglob("*.safetensors"))
    assert summary["verification"]["num_tensors"] == 54
    assert summary["data"] == "s3://bucket/imagenet"
    for secret in [env["AWS_SECRET_ACCESS_KEY"], env["RAY_AUTH_TOKEN"], *CANARIES.values()]:
        assert files_with(secret, tmp_path / "runs") == []  # results, metrics, trackers, checkpoints, what was said
        assert files_with(secret, Path(env["RAY_TMPDIR"])) == []  # Ray's logs
