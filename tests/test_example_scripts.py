"""The examples run as they are, from an empty folder, and leave nothing in the checkout."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO
from tests.training.runs import needs_digits

pytestmark = pytest.mark.system

_NOTEBOOK = REPO / "examples" / "digits.ipynb"


def _run(name: str, *flags: str, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, str(REPO / "examples" / name), *flags],
        cwd=cwd, env={**env, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def on_cluster(job_env: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a script that finds the session's cluster."""
    return {**job_env, "RAY_ADDRESS": request.getfixturevalue("ray_cluster").address}


@pytest.mark.ray
def test_a_network_of_ones_own(on_cluster: dict[str, str], tmp_path: Path) -> None:
    out = _run("own_network.py", cwd=tmp_path, env=on_cluster)
    assert "verified" in out
    assert out.endswith("circle/00000.png is recognized as circle\n")
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"runs"}
    folders = {path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    assert {name for name in folders if not name.startswith(".")} == {"own_network", "shapes"}


@pytest.mark.ray
def test_a_loop_of_ones_own_under_ray_train(on_cluster: dict[str, str], tmp_path: Path) -> None:
    out = _run("ray_train_loop.py", "--output", "results", cwd=tmp_path, env=on_cluster)
    assert "top-1 9" in out
    assert " % with all weights quantized; " in out
    assert len(list(tmp_path.rglob("points.inq.safetensors"))) == 1


@needs_digits
@pytest.mark.ray
@pytest.mark.long
def test_a_sweep_from_python(on_cluster: dict[str, str], tmp_path: Path) -> None:
    out = _run("sweep_as_library.py", "--output", "results", cwd=tmp_path, env=on_cluster)
    assert "best of 4: t00" in out
    assert (tmp_path / "results" / "sweep" / "best.json").is_file()


def _notebook() -> Any:
    nbformat = pytest.importorskip("nbformat", reason="notebooks cannot be read in this environment")
    return nbformat.read(_NOTEBOOK, as_version=4)


def _pictures(notebook: Any) -> list[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        output.data["image/png"] for cell in cells for output in cell.outputs if "image/png" in output.get("data", ())
    ]


def test_the_notebook_is_committed_with_small_outputs() -> None:
    notebook = _notebook()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "it was not run once, from top to bottom"
    assert len(_pictures(notebook)) == 2
    assert _NOTEBOOK.stat().st_size < 150_000


@needs_digits
@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("nbclient", reason="notebooks cannot be run in this environment")
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = _notebook()
    client.NotebookClient(
        notebook,
        kernel_name="python3",
        startup_timeout=600,
        timeout=900,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()  # raises the error of a cell
    assert len(_pictures(notebook)) == 2
