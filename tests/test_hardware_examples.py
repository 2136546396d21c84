"""The hardware examples run as they are, and their kept outputs are those that they print."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.training.runs import needs_digits

pytestmark = [pytest.mark.system, pytest.mark.long, needs_digits]

_FOLDER = REPO / "examples" / "hardware"


def _run(name: str, library: str, *programs: str, folder: Path) -> str:
    pytest.importorskip(library)
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_FOLDER / f"{name}.py"), str(folder)],
        cwd=folder, env={"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_convolution_in_verilog_equals_numpy(tmp_path: Path) -> None:
    lines = _run("first_convolution", "da4ml", "iverilog", "vvp", "yosys", folder=tmp_path).splitlines()
    kept = (_FOLDER / "first_convolution.txt").read_text().splitlines()
    assert lines[1] == kept[1]
    cells = {line[:22].strip(): int(line.split()[-3].replace(",", "")) for line in lines[2:4]}
    assert [line[:22] for line in lines[2:]] == [line[:22] for line in kept[2:]]
    assert all("= numpy" in line for line in lines[2:])
    assert cells["int8"] > cells["int4"]  # training differs in the last bits between processors, so do the numbers


def test_two_layers_in_cpp_equal_torch(tmp_path: Path) -> None:
    out = _run("two_layers", "hls4ml", "g++", folder=tmp_path)
    assert out.endswith("1,797 images: outputs of the compiled C++ equal torch's, bit for bit\n")
