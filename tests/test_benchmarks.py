"""Benchmarks can be started, and those that cannot run here refuse in one line; people run the others."""

import subprocess
import sys

import pytest
import torch

from tests.conftest import REPO

pytestmark = pytest.mark.system


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_of_gpus_refuses_without_one() -> None:
    script = REPO / "benchmarks" / "bench_gpu.py"
    if not script.exists():
        pytest.skip("not the whole checkout")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "bench_gpu.py needs a GPU, and torch finds none on this machine: run it on one that has a GPU"
    ]


def test_every_benchmark_finds_what_it_imports() -> None:
    folder = REPO / "benchmarks"
    if not folder.exists():
        pytest.skip("not the whole checkout")
    names = sorted(path.stem for path in folder.glob("*.py"))
    assert "bench_stage" in names
    script = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
