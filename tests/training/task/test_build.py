import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.models.weights.load import load_weights
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.task.build import build_model, build_task
from inq_ray.training.task.check import check
from tests.data.parquet_files import write_dataset
from tests.ranks import rank_outcomes, run_ranks
from tests.training.runs import needs_digits

pytestmark = needs_digits

CPU = torch.device("cpu")
DIGITS = default_recipe("digits_cnn", 5)


def test_fresh_weights_are_a_function_of_the_seed() -> None:
    source, _ = check(DIGITS)
    states = [build_model(DIGITS.replace(training={"seed": seed}), source.info).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["features.0.weight"], states[2]["features.0.weight"])


def build_and_share(config: RunConfig) -> tuple[int, dict[str, torch.Tensor]]:
    """How often this rank read weights, and the network that it then has, as a run begins."""
    reads = 0

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        return load_weights(*args, **options)

    with mock.patch("inq_ray.training.task.build.load_weights", counting):
        model = build_task(config, CPU).model
    broadcast_tensors(model.state_dict())
    return reads, model.state_dict()


@pytest.mark.system
def test_only_rank_0_reads_weights(tmp_path: Path) -> None:
    source, _ = check(DIGITS)
    weights = build_model(DIGITS.replace(training={"seed": 5}), source.info).state_dict()
    save_file(weights, tmp_path / "a.safetensors")
    config = DIGITS.replace(network={"weights": str(tmp_path / "a.safetensors")})
    answers = run_ranks(build_and_share, 3, config)
    assert [reads for reads, _ in answers] == [1, 0, 0]
    for _, state in answers:
        assert all(torch.equal(state[name], weights[name]) for name in weights)


@pytest.mark.system
def test_weights_that_rank_0_cannot_read_stop_every_rank_with_the_same_line(tmp_path: Path) -> None:
    config = DIGITS.replace(network={"weights": str(tmp_path / "a.safetensors")})
    outcomes = rank_outcomes(build_and_share, 3, config)
    assert all(isinstance(outcome.error, ValueError) for outcome in outcomes), outcomes
    assert {str(outcome.error) for outcome in outcomes} == {f"weights: no such file: {tmp_path}/a.safetensors"}


def test_checking_leaves_the_network_as_it_is_built() -> None:
    source, model = check(DIGITS)
    fresh = build_model(DIGITS, source.info).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in model.state_dict().items())
    assert not model.training


def test_the_task_of_the_digits() -> None:
    task = build_task(DIGITS, CPU)
    train, validation = task.loader.sets["train"], task.loader.sets["validation"]
    assert (len(train), task.train_indices.tolist()) == (1297, list(range(1297)))
    assert (len(validation), task.validation_indices.tolist()) == (500, list(range(500)))
    images = task.to_input(train.fetch(torch.arange(1297), None).images)
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


def test_held_out_images_are_training_images_that_are_not_trained_on() -> None:
    task = build_task(DIGITS.replace(data={"holdout": 300}), CPU)
    assert task.loader.sets["validation"] is task.loader.sets["train"]
    both = torch.cat([task.train_indices, task.validation_indices])
    assert len(task.validation_indices) == 300
    assert both.sort().values.tolist() == list(range(1297))


@pytest.mark.parametrize("holdout", [0, 5])
def test_evaluating_decodes_only_what_is_measured_on(
    holdout: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inq_ray.data.parquet.source import ParquetSource

    write_dataset(tmp_path)
    decoded = []
    split = ParquetSource.split
    monkeypatch.setattr(ParquetSource, "split", lambda self, name: decoded.append(name) or split(self, name))
    config = RunConfig().replace(data={"data": str(tmp_path), "holdout": holdout}, network={"arch": "cifar_resnet20"})
    task = build_task(config, CPU, evaluate=True)
    assert decoded == ["train" if holdout else "test"]
    assert len(task.train_indices) == 0
    assert len(task.validation_indices) == (holdout or 7)


def test_evaluating_asks_for_weights_and_not_for_whole_batches(tmp_path: Path) -> None:
    source, model = check(DIGITS)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    config = DIGITS.replace(training={"float_epochs": 0, "batch_size": 5000, "accumulate": 1})
    with pytest.raises(ValueError, match=r"--evaluate .*--weights"):
        check(config, evaluate=True)
    config = config.replace(network={"weights": str(tmp_path / "w.safetensors")})
    assert check(config, evaluate=True)[0].info == source.info
    with pytest.raises(ValueError, match="--batch-size 5000"):
        check(config)


def test_a_single_image_a_worker_is_refused_where_batchnorm_needs_two() -> None:
    config = RunConfig().replace(
        network={"arch": "resnet18"}, training={"float_epochs": 1, "batch_size": 3, "accumulate": 1}
    )
    with pytest.raises(
        ValueError, match=r"--arch resnet18 does not accept 1 image\(s\) per worker of shape \[1, 8, 8\]"
    ):
        check(config)


@pytest.mark.parametrize(("body", "reason"), [("{}['k']", "KeyError: 'k'"), ("1 / 0", "ZeroDivisionError: division")])
def test_a_network_of_ones_own_that_fails_is_one_line(
    body: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_network.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(8, num_classes)\n"
        f"    def forward(self, images):\n        return {body}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "failing_network", raising=False)
    config = DIGITS.replace(network={"arch": "failing_network:Net"})
    with pytest.raises(ValueError, match=f"--arch failing_network:Net does not accept .*: {reason}") as error:
        check(config)
    assert "\n" not in str(error.value)
