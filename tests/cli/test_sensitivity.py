"""`inq-ray sensitivity`: what it prints can be pasted, what it writes can be read, what cannot be is one line."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("ray", reason="the program runs on Ray")

from inq_ray.cli.program import run
from inq_ray.cli.sensitivity import num_bytes_of
from inq_ray.models.registry import create
from inq_ray.training.flags.command import program
from inq_ray.training.flags.parse import parse
from tests.training.runs import needs_digits

pytestmark = needs_digits


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags of a network that is not trained, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(create("digits_cnn", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.safetensors")
    return ["--weights", "w.safetensors", "--images", "20"]


def test_bits_for_a_size(weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*weights, "--bits", "4", "2", "--target-size", "11kB", "--save-recipe", "r.json", "--lr", "0.5"]
    assert run(["sensitivity", *words]) == 0
    out, err = capsys.readouterr()
    assert "measured on 20 of 500 images of the test set" in out
    assert "16 networks to measure" in err
    assert "--holdout" in err
    assert "warning: float top-1 is" in err
    lines = {line.split()[0]: line for line in out.splitlines() if line and line[0] != " "}
    figures = json.loads((tmp_path / "sensitivity.json").read_text())
    proposal = figures["proposal"]
    assert proposal["bytes"] <= 11_000
    assert proposal["target"] == {"bytes": 11_000}
    assert [each["name"] for each in figures["layers"]] == list(proposal["bits"])
    assert set(figures["layers"][0]["by_bits"]) == {"2", "4"}
    assert figures["cumulative"]["2"][0]["top1"] == figures["uniform"]["2"]["top1"]

    assert shlex.split(lines["bits"])[1:3] == ["--weight-bits", str(proposal["weight_bits"])]
    printed = parse(shlex.split(lines["next"])[1 + len(program("quantize")) :]).run
    saved = parse(["--config", "r.json"]).run
    for config in (printed, saved):
        assert list(config.quantization.layer_bits) == proposal["layer_bits"]
        assert config.quantization.weight_bits == proposal["weight_bits"]
        assert (config.quantization.codebook, config.training.lr) == ("mse", 0.5)
    assert saved.network.weights == str(tmp_path / "w.safetensors")

    assert run(["sensitivity", *words, "--output", "again.json"]) == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "sensitivity.json").read_bytes()


def test_with_post_training_quantization(weights: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bits", "4", "--post-training", "--calibration-images", "64", "--batch-size", "64"]
    assert run(["sensitivity", *weights, *words, "--target-accuracy", "1"]) == 0
    out = capsys.readouterr().out
    assert "quantized as by --post-training, on 64 training images" in out
    assert "--post-training" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [(["--target-size", "1kB"], 1, "--target-size 1kB: the smallest file, at 2 bits in all layers, has about "),
     (["--target-accuracy", "99"], 1, "--target-accuracy 99: no bits reach it before re-training, 2 in all layers"),
     (["--target-size", "1"], 2, "--target-size must be a size such as 90kB or 5.5MB, got '1'"),
     (["--target-size", "0kB"], 2, "got '0kB'"), (["--bits", "9"], 2, "--bits must be whole numbers from 2 to 8"),
     (["--target-size", "9kB", "--target-accuracy", "9"], 2, "exclude each other"),
     (["--save-recipe", "r.json"], 2, "--save-recipe needs --target-size"),
     (["--weight-bits", "3"], 2, "--weight-bits: bits are proposed here"),
     (["--output", "."], 2, "--output . must be a file, and is a folder"),
     (["--output", "no/x.json"], 2, "--output no/x.json: its folder does not exist"),
     (["--output", "~nobody-of-this-name/x.json"], 2, "its folder does not exist"),
     (["--plot", "x.foo"], 2, "--plot must end in .png, .svg, .pdf, got 'x.foo'"),
     (["--skip", "nowhere"], 2, "'nowhere' matches no")],
)  # fmt: skip
def test_what_cannot_be(
    words: list[str], status: int, what: str, weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = words if "--bits" in words else ["--bits", "2", *words]
    assert run(["sensitivity", *weights, *given]) == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("inq-ray sensitivity: ")
    assert what in last


def test_a_gpu_that_is_missing(
    weights: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(["sensitivity", *weights, "--use-gpu"]) == 2
    assert "--use-gpu: this machine has no GPU" in capsys.readouterr().err


def test_a_network_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sensitivity"]) == 2
    assert capsys.readouterr().err == (
        "inq-ray sensitivity: a trained network is measured: name the file of its weights by --weights\n"
    )


@pytest.mark.parametrize(("text", "size"), [("90kB", 90_000), ("5.5MB", 5_500_000), ("12 B", 12), ("0.1kB", 100)])
def test_sizes(text: str, size: int) -> None:
    assert num_bytes_of(text) == size
