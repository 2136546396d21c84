import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inq_ray.core.codebook import Codebook
from inq_ray.data.source import open_source
from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.export.codes_file import read_codes
from inq_ray.export.float_state import check_exact
from inq_ray.export.packed.reader import read
from inq_ray.models.registry import create
from inq_ray.models.weights.load import load_weights
from inq_ray.scheduler import INQScheduler
from inq_ray.training import stages
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.snapshot import Parts
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.evaluate import Accuracy, evaluate, evaluate_only
from inq_ray.training.evaluation.float_accuracy import FloatAccuracyError
from inq_ray.training.flags.parse import parse
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.non_finite import DivergedError
from inq_ray.training.run_state import RunState
from inq_ray.training.task.model_input import ModelInput
from tests.ranks import rank_outcomes, run_ranks
from tests.training.runs import Finished, needs_digits, read_summary, run_here, tiny_config
from tests.training.toys import validation_batches

pytestmark = [needs_digits, pytest.mark.system]

QUANTIZED = {"features.0.weight", "features.3.weight", "features.7.weight", "classifier.weight"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_here(tiny_config(tmp_path_factory.mktemp("runs")))


def accuracy_of(weights: Path) -> Accuracy:
    """By the data's own images and the file alone."""
    source = open_source("digits")
    model = create("digits_cnn", num_classes=10, in_channels=1)
    load_weights(model, weights)
    to_input = ModelInput(
        torch.tensor(source.info.mean), torch.tensor(source.info.std), torch.device("cpu"), torch.contiguous_format
    )
    return evaluate(model, validation_batches(source.split("test")), to_input, BadImages(0))


def test_the_files_of_a_run(finished: Finished) -> None:
    names = {path.name for path in finished.folder.path.iterdir()}
    assert names == {
        "config.json", "metrics.jsonl", "metrics.csv", "model.safetensors", "codes.safetensors", "summary.json",
        "checkpoints", "tiny.inq.safetensors",
    }  # fmt: skip
    assert read_summary(finished.folder) == json.loads(json.dumps(finished.summary))
    newest = max(finished.folder.path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest == finished.folder.summary


def test_metrics_have_every_epoch(finished: Finished) -> None:
    lines = [json.loads(line) for line in finished.folder.metrics_jsonl.read_text().splitlines()]
    assert [(line["stage"], line["epoch"], line["portion"]) for line in lines] == [
        (0, 1, 0.0), (1, 0, 0.5), (1, 1, 0.5), (2, 0, 1.0), (2, 1, 1.0)
    ]  # fmt: skip
    assert [vars(row) for row in finished.told.rows] == lines
    with finished.folder.metrics_csv.open(newline="") as opened:
        table = list(csv.DictReader(opened))
    assert [float(entry["top1"]) for entry in table] == [line["top1"] for line in lines]
    for line in lines:
        trained = line["epoch"] > 0
        assert all((line[name] is not None) == trained for name in ("lr", "train_loss", "train_top1", "train_seconds"))
        assert 0 <= line["top1"] <= line["top5"] <= 100
    assert [line["lr"] for line in lines if line["epoch"]] == [0.1, 0.02, 0.02]  # begins again at each stage


def test_the_summary_tells_the_stages(finished: Finished) -> None:
    rows, summary = finished.told.rows, finished.summary
    assert summary["float_top1"] == rows[0].top1
    assert summary["stages"] == [
        {"stage": 1, "portion": 0.5, "top1_quantized": rows[1].top1, "num_bn_images": 512,
         "top1": rows[2].top1, "top5": rows[2].top5},
        {"stage": 2, "portion": 1.0, "top1_quantized": rows[3].top1, "num_bn_images": 512,
         "top1": rows[4].top1, "top5": rows[4].top5},
    ]  # fmt: skip
    assert (summary["top1"], summary["top5"]) == (rows[4].top1, rows[4].top5)
    assert (summary["arch"], summary["data"], summary["weight_bits"]) == ("digits_cnn", "digits", 5)
    assert (summary["measured_on"], summary["world_size"], summary["device"]) == ("test set", 1, "cpu")
    assert list(summary["versions"]) == ["inq_ray", "torch", "ray", "python"]
    assert summary["verification"]["num_tensors"] == 4
    assert summary["verification"]["num_weights"] == 25_744


def test_the_file_of_weights_has_the_accuracy_that_is_reported(finished: Finished) -> None:
    accuracy = accuracy_of(finished.folder.path / "model.safetensors")
    assert (accuracy.top1, accuracy.top5) == (finished.summary["top1"], finished.summary["top5"])
    assert accuracy.top1 > 60  # after an epoch, where chance is 10


def test_every_quantized_weight_is_a_power_of_two_or_0(finished: Finished) -> None:
    weights = load_file(finished.folder.path / "model.safetensors")
    codes = read_codes(finished.folder.path / "codes.safetensors")
    assert codes.keys() == QUANTIZED
    for name, (codebook, tensor_codes) in codes.items():
        check_exact(name, codebook, tensor_codes, weights[name].dtype)
        mantissa = torch.frexp(weights[name]).mantissa.abs()
        assert ((mantissa == 0.5) | (mantissa == 0)).all()
        assert len(weights[name].unique()) <= 17


def test_the_first_thing_told_is_the_size(finished: Finished) -> None:
    (started,) = finished.told.started
    assert finished.told.events[0] == started
    assert (started.num_parameters, started.num_quantized) == (25_978, 25_744)
    assert (started.num_train, started.num_validation, started.world_size) == (1297, 500, 1)
    assert (started.device, started.precision) == ("cpu", "float32")


def run_again(storage: Path, seeds: tuple[int, ...]) -> list[tuple[str, str]]:
    """The digest of the replicas and the sha256 of the written weights, of a run for each seed."""
    digests = []
    for place, seed in enumerate(seeds):
        summary = run_here(tiny_config(storage, f"run{place}", training={"seed": seed, "batch_size": 256})).summary
        sha256 = summary["verification"]["model_sha256"] if "verification" in summary else ""
        digests.append((summary["digest"], sha256))
    return digests


@pytest.mark.parametrize("size", [1, 2])
def test_the_same_seed_gives_the_same_bits(size: int, tmp_path: Path) -> None:
    ranks = run_ranks(run_again, size, tmp_path, (0, 0, 1))
    first, second, other = ranks[0]
    assert first == second
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert all([digest for digest, _ in of_rank] == [digest for digest, _ in ranks[0]] for of_rank in ranks)
    summary = json.loads((tmp_path / "run0" / "summary.json").read_text())
    assert summary["world_size"] == size
    accuracy = accuracy_of(tmp_path / "run0" / "model.safetensors")
    assert (accuracy.top1, accuracy.top5) == (summary["top1"], summary["top5"])


def test_the_saved_configuration_starts_the_same_run(finished: Finished, tmp_path: Path) -> None:
    flags = ["--config", str(finished.folder.config), "--storage-path", str(tmp_path), "--name", "again"]
    again = run_here(parse(flags).run)
    assert again.summary["digest"] == finished.summary["digest"]
    assert again.summary["verification"] == finished.summary["verification"]


class RecordingScheduler(INQScheduler):
    """Keeps masks and weights as they are after each stage's start."""

    record: list[dict[str, tuple[Tensor, Tensor]]]

    def step(self, moments: Any = None) -> None:
        super().step(moments)
        weights = self.quantized()
        self.record.append(
            {name: (state.frozen.clone(), weights[name].detach().clone()) for name, state in self.state.items()}
        )


@pytest.mark.parametrize("strategy", ["pruning", "random"])
def test_frozen_sets_grow_and_their_weights_keep_their_bits(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RecordingScheduler.record = []
    monkeypatch.setattr(stages, "INQScheduler", RecordingScheduler)
    portions = (0.25, 0.5, 0.75, 1.0)
    training = {"float_epochs": 1, "epochs": 1, "batch_size": 256}
    finished = run_here(
        tiny_config(tmp_path, quantization={"iterative_steps": portions, "strategy": strategy}, training=training)
    )
    result = load_file(finished.folder.path / "model.safetensors")
    ends = [*RecordingScheduler.record[1:], {name: (None, result[name]) for name in QUANTIZED}]
    for portion, start, end in zip(portions, RecordingScheduler.record, ends, strict=True):
        assert start.keys() == QUANTIZED
        for name, (frozen, weights) in start.items():
            assert int(frozen.sum()) == round(portion * frozen.numel())
            later_frozen, later = end[name]
            assert torch.equal(later[frozen], weights[frozen])
            assert later_frozen is None or later_frozen[frozen].all()
            if portion < 1:
                assert not torch.equal(later, weights)
    if strategy == "pruning":
        frozen, weights = RecordingScheduler.record[0]["features.7.weight"]
        assert weights[frozen].abs().min() >= 2**-1 * weights[~frozen].abs().max()


def test_plain_training_leaves_everything_float(tmp_path: Path) -> None:
    config = parse(["--plain", "--epochs", "2", "--storage-path", str(tmp_path), "--name", "plain", "-b", "128"]).run
    finished = run_here(config)
    assert (finished.summary["stages"], finished.summary["weight_bits"]) == ([], None)
    assert [(row.stage, row.epoch) for row in finished.told.rows] == [(0, 1), (0, 2)]
    assert finished.summary["top1"] == finished.summary["float_top1"]
    assert accuracy_of(finished.folder.path / "model.safetensors").top1 == finished.summary["top1"]
    assert finished.summary["verification"]["num_tensors"] == 0
    assert finished.told.started[0].num_quantized == 0


def test_given_weights_are_measured_first_and_quantized_as_they_are(finished: Finished, tmp_path: Path) -> None:
    weights = finished.folder.path / "model.safetensors"
    config = tiny_config(
        tmp_path, network={"weights": str(weights)}, training={"float_epochs": 0}, quantization={"weight_bits": 3}
    )
    again = run_here(config)
    assert [(row.stage, row.epoch) for row in again.told.rows] == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert again.summary["float_top1"] == finished.summary["top1"]


def test_without_epochs_it_is_quantization_alone(finished: Finished, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        network={"weights": str(finished.folder.path / "model.safetensors")},
        training={"float_epochs": 0, "epochs": 0},
        quantization={"iterative_steps": (1.0,)},
    )
    again = run_here(config)
    assert [(row.stage, row.epoch) for row in again.told.rows] == [(0, 0), (1, 0)]
    # What is in its codebook already stays.
    before, after = (load_file(found.folder.path / "model.safetensors") for found in (finished, again))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_patterns_keep_layers_float(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, quantization={"skip": ("classifier", "features.0*")})
    finished = run_here(config)
    codes = read_codes(finished.folder.path / "codes.safetensors")
    assert codes.keys() == {"features.3.weight", "features.7.weight"}
    weights = load_file(finished.folder.path / "model.safetensors")
    assert len(weights["classifier.weight"].unique()) > 1000
    assert finished.summary["verification"]["num_tensors"] == 2


@pytest.mark.parametrize("post_training", [False, True])
def test_layers_have_bits_of_their_own(post_training: bool, finished: Finished, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        network={"weights": str(finished.folder.path / "model.safetensors")},
        training={"float_epochs": 0, "epochs": 0},
        quantization={
            "iterative_steps": (1.0,),
            "layer_bits": ("classifier=8", "features.[37]=2"),
            "post_training": post_training,
        },
    )
    mixed = run_here(config)
    bits = {"features.0.weight": 5, "features.3.weight": 2, "features.7.weight": 2, "classifier.weight": 8}
    codes = read_codes(mixed.folder.path / "codes.safetensors")
    assert {name: codebook.num_bits for name, (codebook, _) in codes.items()} == bits
    packed = read(mixed.folder.path / "tiny.inq.safetensors")
    assert {name: each.codebook.num_bits for name, each in packed.quantized.items()} == bits
    assert mixed.summary["layer_bits"] == ["classifier=8", "features.[37]=2"]
    sizes = {name: tensor_codes.numel() for name, (_, tensor_codes) in codes.items()}
    assert mixed.summary["mean_bits"] == sum(sizes[name] * bits[name] for name in sizes) / sum(sizes.values())
    assert finished.summary["mean_bits"] == 5


def test_held_out_images_are_validated_on_and_not_trained_on(tmp_path: Path) -> None:
    finished = run_here(tiny_config(tmp_path, data={"holdout": 300}))
    (started,) = finished.told.started
    assert (started.num_train, started.num_validation) == (997, 300)
    assert finished.summary["measured_on"] == "held-out training images"


def test_bf16_trains_and_is_measured_in_float32(tmp_path: Path) -> None:
    few = {"holdout": 1200}  # bf16 is slow on CPUs without it
    finished = run_here(tiny_config(tmp_path, data=few, training={"precision": "bf16", "batch_size": 48}))
    assert finished.told.started[0].precision == "bf16"
    weights = load_file(finished.folder.path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32, torch.int64}


def test_weights_that_are_no_numbers_are_named(finished: Finished, tmp_path: Path) -> None:
    weights = load_file(finished.folder.path / "model.safetensors")
    weights["features.3.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    config = tiny_config(tmp_path, network={"weights": str(tmp_path / "nan.safetensors")}, training={"float_epochs": 0})
    with pytest.raises(ValueError, match=r"features\.3\.weight"):
        run_here(config)
    assert not (tmp_path / "tiny" / "summary.json").exists()


def test_a_network_that_ends_as_no_numbers_is_no_result(tmp_path: Path) -> None:
    """One step with a finite loss, after which the weights are beyond float32."""
    config = parse(
        ["--plain", "--epochs", "1", "--lr", "1e38", "-b", "1297", "--storage-path", str(tmp_path), "--name", "a"]
    ).run
    with pytest.raises(DivergedError, match=r"--lr"):
        run_here(config)
    assert not (tmp_path / "a" / "summary.json").exists()
    assert not (tmp_path / "a" / "model.safetensors").exists()


def run_with_a_fault(config: RunConfig, faulty: int, name: str) -> Any:
    """A run in which one rank's tensor moves by itself while stage 1 is re-trained."""
    check = RunState.check_replicas

    def check_after_a_fault(self: RunState, parts: Parts, *, has_buffers: bool) -> None:
        if parts.inq is not None and parts.inq.stage == 1 and torch.distributed.get_rank() == faulty:
            with torch.no_grad():
                self.task.model.state_dict()[name][0] += 1
        check(self, parts, has_buffers=has_buffers)

    RunState.check_replicas = check_after_a_fault  # type: ignore[method-assign]  # in this rank's process alone
    return run_here(config).summary


def refused(config: RunConfig) -> None:
    run_here(config)


def test_every_rank_refuses_weights_near_chance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(create("digits_cnn", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.safetensors")
    network, training = {"weights": str(tmp_path / "w.safetensors")}, {"float_epochs": 0}
    for outcome in rank_outcomes(refused, 2, tiny_config(tmp_path, network=network, training=training)):
        assert isinstance(outcome.error, FloatAccuracyError), outcome
    assert not list((tmp_path / "tiny").glob("**/*.safetensors"))


@pytest.mark.parametrize("name", ["features.3.weight", "features.4.running_mean"])
def test_a_rank_that_differs_stops_the_run_and_is_named(name: str, tmp_path: Path) -> None:
    short = tiny_config(tmp_path, training={"batch_size": 600, "float_epochs": 1, "epochs": 1})
    outcomes = rank_outcomes(run_with_a_fault, 3, short, 1, name)
    for outcome in outcomes:
        assert isinstance(outcome.error, ReplicaMismatchError), outcome
        assert (outcome.error.tensor, outcome.error.ranks, outcome.error.stage) == (name, (1,), 1)
    assert not (tmp_path / "tiny" / "summary.json").exists()


def evaluate_ranks(config: RunConfig) -> Accuracy:
    return evaluate_only(config, device=torch.device("cpu"))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_is_the_same_on_any_number_of_ranks(size: int, finished: Finished, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, network={"weights": str(finished.folder.path / "model.safetensors")})
    for accuracy in run_ranks(evaluate_ranks, size, config):
        assert accuracy.num_samples == 500
        assert (accuracy.top1, accuracy.top5) == (finished.summary["top1"], finished.summary["top5"])
    assert list(tmp_path.iterdir()) == []


def test_layers_that_a_network_does_not_train_are_quantized_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net_with_a_frozen_layer.py").write_text(FROZEN_FIRST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    config = tiny_config(tmp_path, network={"arch": "net_with_a_frozen_layer:make"}, training={"float_epochs": 0})
    finished = run_here(config)
    start = create(config.network.arch, num_classes=10)
    end = load_file(finished.folder.path / "model.safetensors")
    weight = start.get_parameter("0.weight").detach()
    assert torch.equal(end["0.weight"], Codebook.for_weight(weight, 5).quantize(weight))
    assert not torch.equal(end["3.weight"], start.get_parameter("3.weight"))
    assert not torch.equal(end["3.bias"], start.get_parameter("3.bias"))
    assert store_of(config).newest_good().damaged == ()


FROZEN_FIRST = """
import torch
from torch import nn

def make(num_classes):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))
    network[0].requires_grad_(False)
    return network
"""
