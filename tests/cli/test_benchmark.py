"""`inq-ray benchmark`: what it refuses, what it assumes, and a whole one on Ray."""

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the command runs on Ray")

from inq_ray.cli.benchmark import main, parse
from inq_ray.files.extra import install_command
from tests.conftest import RayCluster

_PROGRAM = "inq-ray benchmark"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-workers", "0"], "--num-workers must be at least 1, got 0"),
        (["--num-workers", "4..2"], "--num-workers 4..2 is an empty range: did you mean 2..4?"),
        (["--num-workers", "2000"], "--num-workers 2000 and --cpus-per-worker 1 need 2,000 CPUs"),
        (["--arch", "resnet17"], "arch='resnet17' is not a known network"),
        (["--batch-size", "1"], "--batch-size 1 (global) is too small for 2 workers"),
        (["--data", "/nowhere"], "there is no"),
        (
            ["--jpeg-decoder", "nvjpeg", "--use-gpu"],
            "--jpeg-decoder nvjpeg needs --data: random images are not decoded",
        ),
        (["--plain"], "--plain has no stages"),
        (["--output", "/nowhere/else"], "--output /nowhere/else must be a folder, new or not, in one that exists"),
        (["--precision", "fp16"], "--precision fp16 needs --use-gpu"),
        (["--quik"], "--quik"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line_before_ray_starts(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words, _PROGRAM) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"{_PROGRAM}: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_flags_resnet18_is_measured_with_few_random_images() -> None:
    command = parse([], _PROGRAM)
    assert (command.config.network.arch, command.config.training.batch_size, command.has_data) == (
        "resnet18",
        16,
        False,
    )
    assert command.notes == ("batch size 16, for a first look on CPUs: give --batch-size of yours",)
    assert parse(["--num-workers", "1..4", "--accumulate", "2"], _PROGRAM).config.training.batch_size == 64


def test_flags_of_a_run_are_those_of_a_run() -> None:
    words = ["--data", "digits", "--batch-size", "128", "--cpus-per-worker", "2", "--weight-bits", "3"]
    command = parse(words, _PROGRAM)
    assert command.has_data
    assert command.notes == ()
    config = command.config
    assert (config.network.arch, config.training.batch_size, config.cluster.cpus_per_worker) == ("digits_cnn", 128, 2)
    assert parse(["--use-gpu"], _PROGRAM).config.training.batch_size == 256


def test_a_dry_run_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--arch", "digits_cnn", "--num-workers", "1", "--dry-run"], _PROGRAM) == 0
    out = capsys.readouterr().out
    assert "portions 0, 0.5, 0.75, 0.875, 0.95 are measured, not those of --iterative-steps" in out
    assert "\nsteps with 1 worker take about 0:" in out
    assert out.endswith("would measure digits_cnn on --num-workers 1: nothing was started\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_benchmark_of_the_digits_on_two_workers(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--batch-size", "32", "--num-workers", "2", "--quick"]
    assert main(words, _PROGRAM) == 0
    out = capsys.readouterr().out
    assert "2 workers, digits_cnn, batch size 32:" in out
    assert "worth it  --gradient-communication " in out
    read = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
    assert read["command"] == f"{_PROGRAM} {' '.join(words)}"
    assert read["network"]["num_quantized"] == 25744
    (world,) = read["worlds"]
    assert (world["num_workers"], len(world["workers"])) == (2, 2)
    assert {"step", "step_bytes", "stage", "link", "checkpoint_stall", "input"} <= {
        figure["what"] for figure in world["figures"]
    }
    assert read["advice"][0]["flag"].startswith("--gradient-communication ")
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark"]


@pytest.mark.ray
def test_without_matplotlib_the_extra_is_named(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["--arch", "digits_cnn", "--num-workers", "1", "--quick", "--output", "here"], _PROGRAM) == 0
    out = capsys.readouterr().out
    assert "1 worker, digits_cnn, batch size 8; there is no link, so nothing is exchanged:" in out
    assert f"picture   needs matplotlib: {install_command('report', 'matplotlib')}" in out
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["benchmark.json"]
