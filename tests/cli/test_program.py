"""The program `inq-ray`: its list of commands, and what each does with flags."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the commands run on Ray")

from inq_ray import __version__
from inq_ray.cli.program import COMMANDS, run


def test_without_a_command_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert run(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in COMMANDS)
        assert max(map(len, out.splitlines())) <= 110


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"inq-ray {__version__}\n"


def test_an_unknown_command_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantise", "--data", "x"]) == 2
    assert capsys.readouterr().err == "inq-ray: there is no command 'quantise'; nearest: quantize\n"
    assert run(["\x1b[31m" * 1000]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert len(err) < 400


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_refuses_what_it_does_not_know(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--help", "--help-all"):
        assert run([name, flag]) == 0
        assert capsys.readouterr().out.startswith(f"usage: inq-ray {name} ")
    assert run([name, "--nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"inq-ray {name}: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["benchmark", "sensitivity"])
def test_a_flag_named_like_a_section_is_in_the_whole_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help-all"]) == 0
    words = capsys.readouterr().out.split()
    assert {"--output", "--storage-path", "--num-workers"} <= set(words)


@pytest.mark.system
def test_the_module_is_the_program(tmp_path: Path) -> None:
    """In an empty folder, from which nothing of the checkout can be imported."""
    done = subprocess.run(
        [sys.executable, "-m", "inq_ray", "quantize", "--batch-size", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("inq-ray quantize: --batch-size 1 (global) is too small")
    assert list(tmp_path.iterdir()) == []
