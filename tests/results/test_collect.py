import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.results.levels import Levels
from benchmarks.results.places import Places
from benchmarks.results.record import as_text, read_records
from inq_ray.core.codebook import Codebook
from tests.results.checkouts import COMMAND, COMMIT, collect, copy_of, empty_checkout, small_run
from tests.training.runs import Finished, needs_digits

pytestmark = [pytest.mark.system, needs_digits]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return empty_checkout(tmp_path / "checkout")


def test_a_record_says_what_ran_and_what_came_out(small_runs: dict[str, Finished], places: Places) -> None:
    finished = small_runs["five-1"]
    assert collect(places, finished.folder.path, "--hardware", "a test", "--note", "short") == 0
    (record,) = read_records(places.runs)
    summary = finished.summary
    assert (record["name"], record["network"], record["data"], record["bits"]) == ("five-1", "digits_cnn", "digits", 5)
    assert (record["strategy"], record["codebook"], record["seed"]) == ("pruning", "max", 1)
    assert record["portions"] == [0.5, 1.0]
    assert record["epochs"] == {"float": 1, "by_stage": [1, 1], "all": 3}
    assert (record["float_top1"], record["float_top5"]) == (summary["float_top1"], summary["float_top5"])
    assert [stage["top1_quantized"] for stage in record["stages"]] == [
        finished.told.rows[1].top1,
        finished.told.rows[3].top1,
    ]
    assert (record["top1"], record["top5"]) == (summary["top1"], summary["top5"])
    assert 100 * record["num_correct"] / record["num_images"] == summary["top1"]
    assert record["digest"] == summary["digest"]
    assert record["commit"] == COMMIT
    assert record["command"] == COMMAND.format(seed=1, name="five-1")
    assert record["versions"] == summary["versions"]
    assert (record["device"], record["hardware"], record["note"]) == ("cpu", "a test", "short")
    assert record["train_seconds"] <= record["seconds"]
    assert record["images_per_second"] > 0


def test_a_record_counts_the_weights_of_the_file(small_runs: dict[str, Finished], places: Places) -> None:
    folder = small_runs["five-0"].folder.path
    collect(places, folder)
    (record,) = read_records(places.runs)
    model = load_file(folder / "model.safetensors")
    assert len(record["tensors"]) == 4
    for name, tensor in record["tensors"].items():
        counts = Counter(model[name].reshape(-1).tolist())
        levels = {0.0: tensor["num_zero"]}
        for k, negative, positive in tensor["powers"]:
            levels |= {-(2.0**k): negative, 2.0**k: positive}
        assert {level: num for level, num in levels.items() if num} == dict(counts)
        assert tensor["num_weights"] == model[name].numel()
        shares = [num / model[name].numel() for num in counts.values()]
        assert tensor["entropy"] == pytest.approx(-sum(share * math.log2(share) for share in shares), abs=1e-6)
        assert tensor["zeros"] == pytest.approx(counts[0.0] / model[name].numel(), abs=1e-6)


def test_a_record_holds_no_folder_of_this_machine_and_has_sorted_keys(
    small_runs: dict[str, Finished], places: Places
) -> None:
    finished = small_runs["five-0"]
    collect(places, finished.folder.path)
    text = (places.runs / "five-0.json").read_text()
    assert str(finished.folder.path.parent) not in text
    record = json.loads(text)
    assert record["config"]["output"]["storage_path"] == finished.folder.path.parent.name
    assert list(record) == sorted(record)
    assert as_text(record) == text
    assert len(text) < 10_000


def test_what_was_held_out_is_a_choice(small_runs: dict[str, Finished], places: Places) -> None:
    command = f"{COMMAND} --holdout 200"
    assert collect(places, small_runs["held-0"].folder.path, command=command) == 0
    assert read_records(places.runs) == []
    (record,) = read_records(places.choices)
    assert (record["num_images"], record["measured_on"]) == (200, "held-out training images")
    assert "tensors" not in record


def _refused(places: Places, capsys: pytest.CaptureFixture[str]) -> str:
    assert not places.runs.exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_an_unfinished_run_is_refused(
    small_runs: dict[str, Finished], places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(small_runs["five-0"], tmp_path)
    (folder / "summary.json").unlink()
    assert collect(places, folder) == 2
    assert "not finished" in _refused(places, capsys)


@pytest.mark.parametrize(
    ("scale", "reason"), [(1.01, "neither 0 nor a power of two"), (0.5, "are not what their codes say")]
)
def test_weights_that_do_not_stand_the_proof_are_refused(
    small_runs: dict[str, Finished],
    places: Places,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scale: float,
    reason: str,
) -> None:
    folder = copy_of(small_runs["five-0"], tmp_path)
    model = load_file(folder / "model.safetensors")
    name = next(iter(read_names(folder)))
    largest = model[name].abs().argmax()
    model[name].view(-1)[largest] *= scale
    save_file(model, folder / "model.safetensors")
    assert collect(places, folder) == 2
    assert reason in _refused(places, capsys)


def read_names(folder: Path) -> list[str]:
    return sorted(load_file(folder / "codes.safetensors"))


def test_another_network_than_the_summary_speaks_of_is_refused(
    small_runs: dict[str, Finished], places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = copy_of(small_runs["five-0"], tmp_path), small_runs["five-1"].folder.path
    for name in ("model.safetensors", "codes.safetensors"):
        (folder / name).write_bytes((other / name).read_bytes())
    assert collect(places, folder) == 2
    assert "is not the one that summary.json speaks of" in _refused(places, capsys)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (f"{COMMAND} --lr 0.3", "asks for training.lr 0.3, the run had 0.02"),
        (COMMAND.replace("{seed}", "5"), "asks for training.seed 5, the run had 0"),
        (f"{COMMAND} --storage-path /big/runs", "/big/runs, a place of one machine"),
        (f"{COMMAND} --storage-path=~/runs", "--storage-path=~/runs, a place of one machine"),
        ("python train.py", "must run jobs/quantize_imagenet.py"),
        (f"{COMMAND} --bogus 3", "--bogus"),
    ],
)
def test_a_command_that_is_not_the_runs_is_refused(
    small_runs: dict[str, Finished],
    places: Places,
    capsys: pytest.CaptureFixture[str],
    command: str,
    reason: str,
) -> None:
    assert collect(places, small_runs["five-0"].folder.path, command=command) == 2
    assert reason in _refused(places, capsys)


def test_a_number_of_images_that_does_not_give_the_accuracy_is_refused(
    small_runs: dict[str, Finished], places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(places, small_runs["five-0"].folder.path, "--images", "997") == 2
    assert "of 997 images is no whole number" in _refused(places, capsys)


def test_a_trial_is_refused(tmp_path: Path, places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    trial = small_run(tmp_path, "trial", training={"limit_batches": 1})
    assert collect(places, trial.folder.path, command=f"{COMMAND} --limit-batches 1") == 2
    assert "a trial by --limit-batches 1" in _refused(places, capsys)


@pytest.mark.parametrize("num_bits", [2, 3, 5, 8])
def test_levels_are_counted_as_the_weights_are(num_bits: int) -> None:
    weight = torch.randn(500, generator=torch.Generator().manual_seed(num_bits))
    codebook = Codebook.for_weight(weight, num_bits)
    levels = Levels.of_codes(codebook, codebook.encode(weight))
    counts = Counter(codebook.quantize(weight).tolist())
    assert levels.num_zero == counts.pop(0.0, 0)
    assert {
        sign * 2.0**k: num for k, *signs in levels.powers for sign, num in zip((-1, 1), signs, strict=True) if num
    } == counts
    assert levels.num_weights == 500


def test_a_tensor_of_zeros_has_no_entropy() -> None:
    levels = Levels.of_codes(Codebook(5, None), torch.zeros(3, 4, dtype=torch.uint8))
    assert (levels.zeros, levels.entropy, levels.exponents) == (1.0, 0.0, "none")
