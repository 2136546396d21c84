import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.results.__main__ import main
from benchmarks.results.record import levels_of
from inq_ray.core.codebook import Codebook
from tests.training.runs import Finished, needs_digits, run_here, tiny_config

pytestmark = [pytest.mark.system, needs_digits]

# What tiny_config says, as a command.
_COMMAND = (
    "python jobs/quantize_imagenet.py --float-epochs 1 --epochs 1 --iterative-steps 0.5 1 --num-workers 1 "
    "--seed {seed} --name {name}"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_here(tiny_config(tmp_path_factory.mktemp("runs"), "five-1", training={"seed": 1}))


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the run's folder, which may be damaged."""
    return shutil.copytree(finished.folder.path, tmp_path / "copies" / "five-1")


def _collect(root: Path, run: Path, *more: str) -> int:
    return main(["collect", str(run), "--commit", "0123abc", "--command", _COMMAND, *more], root)


def _change(run: Path, **sections: dict[str, Any]) -> None:
    """Change sections of a run's summary, or of the configuration in it."""
    summary = json.loads((run / "summary.json").read_text())
    for section, values in sections.items():
        (summary["config"] if section in summary["config"] else summary)[section] |= values
    (run / "summary.json").write_text(json.dumps(summary))


def _scale_weight(run: Path) -> None:
    model = load_file(run / "model.safetensors")
    model[next(iter(load_file(run / "codes.safetensors")))] *= 1.01
    save_file(model, run / "model.safetensors")


def test_a_record_says_what_ran_and_what_came_out(finished: Finished, tmp_path: Path) -> None:
    assert _collect(tmp_path, finished.folder.path, "--hardware", "a test") == 0
    text = (tmp_path / "docs/results/runs/five-1.json").read_text()
    record, summary = json.loads(text), finished.summary
    copied = ("float_top1", "top1", "top5", "digest", "versions", "verification")
    assert {name: record[name] for name in copied} == {name: summary[name] for name in copied}
    assert (record["network"], record["data"], record["bits"], record["seed"]) == ("digits_cnn", "digits", 5, 1)
    assert record["epochs"] == {"float": 1, "by_stage": [1, 1], "all": 3}
    assert (record["command"], record["hardware"]) == (_COMMAND.format(seed=1, name="five-1"), "a test")
    assert [stage["top1_quantized"] for stage in record["stages"]] == [finished.told.rows[n].top1 for n in (1, 3)]
    assert 100 * record["num_correct"] / record["num_images"] == summary["top1"]
    assert sum(each["num_weights"] for each in record["tensors"].values()) == summary["verification"]["num_weights"]
    assert record["images_per_second"] > 0
    assert str(finished.folder.path.parent) not in text, "a folder of this machine"


def test_what_was_held_out_is_a_choice(run: Path, tmp_path: Path) -> None:
    _change(run, data={"holdout": 500})
    compared = ("--against", "base-{seed}", "--question", "Does it help?")
    assert _collect(tmp_path, run, "--command", f"{_COMMAND} --holdout 500", *compared) == 0
    (path,) = (tmp_path / "docs/results").rglob("*.json")
    record = json.loads(path.read_text())
    assert path.parent.name == "choices"
    assert (record["against"], record["question"]) == ("base-1", "Does it help?")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run / "summary.json").unlink(), "not finished"),
        (_scale_weight, "neither 0 nor a power of two"),
        (lambda run: _change(run, verification={"digest": "0"}), "is not the one that summary.json describes"),
        (lambda run: _change(run, training={"limit_batches": 1}), "a trial with --limit-batches 1"),
    ],
)
def test_a_run_that_is_no_result_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], reason: str
) -> None:
    damage(run)
    assert _collect(tmp_path, run) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--command", f"{_COMMAND} --lr 0.3", "asks for training.lr 0.3, the run had 0.02"),
        ("--command", f"{_COMMAND} --storage-path=~/runs", "--storage-path=~/runs, a path of one machine"),
        ("--command", "python train.py", "must run jobs/quantize_imagenet.py"),
        ("--command", f"{_COMMAND} --bogus 3", "--bogus"),
        ("--commit", "HEAD", "must be 7 to 40 hex digits"),
        ("--against", "five-{seed}", "give --against and --question together"),
        ("--images", "997", "of 997 images is no whole number"),
    ],
)
def test_what_is_not_so_of_the_run_is_refused(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, reason: str
) -> None:
    assert _collect(tmp_path, finished.folder.path, flag, value) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(("num_bits", "scale"), [(2, 1.0), (5, 0.0), (8, 1.0)])
def test_levels_are_counted_as_the_weights_are(num_bits: int, scale: float) -> None:
    weight = scale * torch.randn(500, generator=torch.Generator().manual_seed(num_bits))
    codebook = Codebook.for_weight(weight, num_bits)
    found, due = levels_of(codebook, codebook.encode(weight)), Counter(codebook.quantize(weight).tolist())
    counts = Counter({0.0: found["num_zero"]})
    for k, negative, positive in found["powers"]:
        counts += Counter({-(2.0**k): negative, 2.0**k: positive})
    assert counts == due
    assert found["entropy"] == pytest.approx(-sum(num / 500 * math.log2(num / 500) for num in due.values()), abs=1e-6)
