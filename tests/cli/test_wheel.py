"""What is built is what works: wheel and source archive, each installed alone, quantize from an empty folder."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.long]

_UV = Path(sys.executable).with_name("uv")


def run(command: Sequence[object], cwd: Path | None = None, env: Mapping[str, str] = os.environ) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    if not _UV.exists():
        pytest.skip("uv is not installed in this environment")
    folder = tmp_path_factory.mktemp("built")
    run([_UV, "build", "--build-constraints", repo / "constraints.txt", "--out-dir", folder, repo])
    return folder


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_it_quantizes_from_an_empty_folder(
    pattern: str, built: Path, repo: Path, job_env: dict[str, str], tmp_path: Path
) -> None:
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    venv.create(environment)
    empty.mkdir()
    (package,) = built.glob(pattern)
    python = environment / "bin" / "python"
    options = ["--constraints", repo / "constraints.txt", "--build-constraints", repo / "constraints.txt"]
    run([_UV, "pip", "install", "--python", python, *options, f"inq-ray[demo] @ {package.as_uri()}"])
    env = {name: value for name, value in job_env.items() if name != "PYTHONPATH"}
    flags = ["--float-epochs", "1", "--epochs", "1", "--num-workers", "1", "--name", "small"]
    out = run([environment / "bin" / "inq-ray", "demo", *flags], cwd=empty, env=env)
    assert "verified" in out
    assert f"next      {environment / 'bin' / 'inq-ray'} quantize" in out
    summary = json.loads((empty / "runs" / "small" / "summary.json").read_text())
    assert summary["verification"]["num_weights"] == 25_744
    refused = subprocess.run(
        [environment / "bin" / "inq-ray", "demo", "--track", "tensorboard"],
        cwd=empty, env=env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr.endswith("not installed: pip install tensorboard\n")  # the extra's name is on no index
    assert [path.name for path in empty.iterdir()] == ["runs"]
