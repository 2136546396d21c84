"""`inq-ray verify`, `inspect` and `evaluate` of results: what is right is shown, what is wrong is found."""

from pathlib import Path

import pytest
import torch

from inq_ray.cli import program
from inq_ray.cli.result import claimed, evaluation_words, value_of
from inq_ray.cluster.failure import RunFailedError
from inq_ray.export.formats import write_result
from inq_ray.export.packed.reader import read
from inq_ray.export.packed.writer import save
from inq_ray.export.result import Result
from tests.export.results import quantized

_FACTS = {
    "network": {"arch": "cifar_resnet20", "num_classes": 10},
    "images": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "resize": 64, "crop": 56, "interpolation": "bilinear"},
    "accuracy": {"top1": 91.75, "num_images": 10_000, "data_fingerprint": "ab", "measured_on": "test set"},
    "class_names": ["a", "b", "c", "d\x1b[31m"],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run."""
    network, states = quantized(3)
    write_result(tmp_path / "run", Result(network.state_dict(), states, _FACTS), "mine")
    return tmp_path / "run"


def test_a_right_result(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run, run / "mine.inq.safetensors"):
        assert program.run(["verify", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["right", "file"],
            ["right", "weights"],
            ["right", "share"],
            ["right", "digest"],
        ]
        assert "1,536 in 3 tensors are 0 or ±2^k within their codebooks, 3 bits" in lines[1]
        assert read(run / "mine.inq.safetensors").digest in lines[3]


@pytest.mark.parametrize("name", ["model.safetensors", "codes.safetensors", "mine.inq.safetensors"])
def test_a_wrong_file(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((run / name).read_bytes())
    data[-100] ^= 1
    (run / name).write_bytes(data)
    assert program.run(["verify", str(run)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("WRONG ")
    assert out.count("\n") == 1
    (run / name).unlink()
    assert program.run(["verify", str(run)]) == 1


@pytest.mark.parametrize("command", ["verify", "inspect", "evaluate", "export"])
def test_the_home_folder_of_nobody(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run([command, "~nobody-of-this-name/run"]) == 2
    err = capsys.readouterr().err
    assert "there is no ~nobody-of-this-name/run: name a run's folder" in err
    assert err.count("\n") == 1


def test_a_worker_that_fails_is_a_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(words: list[str], program: str) -> None:
        raise RunFailedError("rank 0: out of memory")

    monkeypatch.setattr("inq_ray.cli.verify.evaluated", failing)
    assert program.run(["verify", str(run), "--data", "digits"]) == 2
    assert capsys.readouterr().err == "inq-ray verify: the accuracy could not be measured: rank 0: out of memory\n"


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--data", "a", "--data", "b"], "b"),
        (["--data=a", "--data", "b"], "b"),
        (["--data", "a", "--data=b"], "b"),
        (["--database=a", "--arch", "--data"], None),
    ],
)
def test_the_last_value_of_a_flag_counts(words: list[str], value: str | None) -> None:
    assert value_of("--data", words) == value


def test_arguments(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        (): "name the result first",
        ("--data", "digits"): "name the result first",
        (str(tmp_path / "none"),): "there is no ",
        (str(run), "--num-workers", "1"): "--num-workers needs --data DATA",
        (str(run), "--data=nowhere", "--arch", "digits_cnn"): "nowhere",
    }.items():
        assert program.run(["verify", *words]) == 2
        assert message in capsys.readouterr().err
    assert program.run(["inspect", str(run), "more"]) == 2
    assert program.run(["inspect", str(tmp_path)]) == 2
    for command in ("verify", "inspect"):
        assert program.run([command, "--help"]) == 0
        assert f"usage: inq-ray {command} RESULT" in capsys.readouterr().out


def test_inspection(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(["inspect", str(run)]) == 0
    out = capsys.readouterr().out
    for part in ("0.weight", "8x3x3x3", "4.weight", "100.0 %", "other tensors", "cifar_resnet20", "4: a, b, c, ..."):
        assert part in out
    assert "\x1b" not in out


def test_flags_of_an_evaluation(run: Path, tmp_path: Path) -> None:
    file = str(run / "mine.inq.safetensors")
    assert evaluation_words(run, ["--data", "cifar10"]) == [
        *("--arch", "cifar_resnet20", "--weights", file, "--mean", "0.5", "0.4", "0.3", "--std", "0.2", "0.2", "0.2"),
        *("--resize-size", "64", "--crop-size", "56", "--interpolation", "bilinear", "--data", "cifar10"),
    ]
    assert "--mean" in evaluation_words(run, ["--data=cifar10"])
    for words in (["--data", "digits"], ["--data=digits"], []):  # which have their own
        assert "--mean" not in evaluation_words(run, words)
    assert claimed(read(Path(file))) == (9175, 10_000, "ab", "test set")

    network, states = quantized(3)
    other = tmp_path / "own.inq.safetensors"
    save(other, network, type("Scheduler", (), {"state": states})(), network={"arch": "mynet:build"})
    with pytest.raises(ValueError, match="its author's own network: name yours by --arch"):
        evaluation_words(other, [])
    assert evaluation_words(other, ["--arch", "mine:build"]) == ["--weights", str(other), "--arch", "mine:build"]
    with pytest.raises(ValueError, match="claims no accuracy to compare with: measure it by inq-ray evaluate"):
        claimed(read(other))


def test_a_packed_file_is_a_file_of_weights(run: Path) -> None:
    from inq_ray.models.weights.files import read_parts

    (part,) = read_parts(run / "mine.inq.safetensors")
    (plain,) = read_parts(run / "model.safetensors")
    assert part.tensors.keys() == plain.tensors.keys()
    assert all(torch.equal(part.tensors[name], plain.tensors[name]) for name in plain.tensors)
