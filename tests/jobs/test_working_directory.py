"""What `ray job submit --working-dir .` sends from a checkout: the job's code, and nothing of what lies about there."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

MOST_BYTES = 2 * 2**20


def test_a_job_sends_its_code_alone(repo: Path, tmp_path: Path) -> None:
    if shutil.which("git") is None or not (repo / ".git").exists():
        pytest.skip("not a git checkout: what belongs to it is not known")
    checkout, package = tmp_path / "checkout", tmp_path / "package.zip"
    listed = subprocess.run(["git", "ls-files"], cwd=repo, check=True, capture_output=True, text=True)
    tracked = [name for name in listed.stdout.splitlines() if (repo / name).is_file()]
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repo / name, checkout / name)
    for left in (".venv/lib/torch.so", "runs/digits/model.safetensors", ".mypy_cache/a.json", "docker/secrets/token"):
        (checkout / left).parent.mkdir(parents=True, exist_ok=True)
        (checkout / left).write_bytes(b"left here")

    create_package(str(checkout), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())

    with zipfile.ZipFile(package) as archive:
        sent = {info.filename for info in archive.infolist() if not info.is_dir()}
    top = {name for name in tracked if "/" not in name and name != "constraints.txt"}  # it is for installing
    assert sent == top | {name for name in tracked if name.startswith(("inq_ray/", "jobs/"))}
    assert package.stat().st_size < MOST_BYTES
