"""Statistics of BatchNorm estimated anew: plain means of batches, at the end, alike however a run came there."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from inq_ray.core.optim.sgd import SGD
from inq_ray.data.loader import train_requests
from inq_ray.training.config import TrainingConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.evaluation.batchnorm import (
    estimate_batchnorm,
    estimate_from,
    images_of_estimate,
)
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches, steps_for
from inq_ray.training.loop.build import make_trainer
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.run_folder import RunFolder
from tests.ranks import run_ranks
from tests.training.runs import configured, needs_digits, read_rows, read_summary, run_here, run_in_parts, tiny_config
from tests.training.toys import CLASSES, toy_task

EACH: dict[str, Any] = {"training": {"bn_images": 1000}}


def batches_of(seed: int, sizes: list[int]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, 3, 4, 4, generator=generator) * 2 + 1 for size in sizes)


@given(st.integers(0, 99), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_statistics_are_plain_means_of_those_of_the_batches(seed: int, sizes: list[int]) -> None:
    layer = nn.BatchNorm2d(3, momentum=0.3)
    layer(torch.full((2, 3, 4, 4), 100.0))
    estimate_from(layer, batches_of(seed, sizes))
    assert layer.running_mean is not None
    assert layer.running_var is not None
    batches = list(batches_of(seed, sizes))
    means = [batch.double().mean(dim=(0, 2, 3)) for batch in batches]
    variances = [batch.double().var(dim=(0, 2, 3)) for batch in batches]
    torch.testing.assert_close(layer.running_mean.double(), torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.running_var.double(), torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)
    assert (layer.momentum, int(layer.num_batches_tracked or 0)) == (0.3, len(sizes))


def test_weights_stay_and_a_layer_that_no_batch_comes_through_keeps_what_it_had() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    model[0].unused = nn.BatchNorm2d(2)  # type: ignore[assignment]
    model[0].unused.running_mean.fill_(7)  # type: ignore[union-attr, operator]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    estimate_from(model, batches_of(0, [4, 4]))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize(("num_images", "due"), [(0, 0), (1, 1), (64, 1), (65, 2), (10**9, 20)])
def test_batches_are_whole_and_at_most_an_epoch(num_images: int, due: int) -> None:
    assert steps_for(num_images, TrainingConfig(batch_size=64), 20) == due


@pytest.mark.parametrize(
    ("num_workers", "sync", "due"), [(1, False, 128), (3, False, 43), ("1..3", False, 43), (3, True, 128)]
)
def test_images_of_which_batchnorm_gets_the_statistics(num_workers: Any, sync: bool, due: int) -> None:
    config = default_recipe("cifar_resnet20", 5).replace(
        training={"bn_images": 100, "batch_size": 128, "sync_batchnorm": sync},
        cluster={"num_workers": num_workers, "use_gpu": sync},
    )
    assert images_of_estimate(config.training, 5, config.cluster.workers.most) == due


class Drawing(nn.Module):
    """Draws as dropout does; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.seen: list[Tensor] = []
        self.drawn: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        self.drawn.append(float(torch.rand(())))
        outputs: Tensor = self.norm(images)
        return outputs


class Classifying(Drawing):
    """The same, and says classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(super().forward(images).flatten(1))
        return outputs


def test_images_are_those_of_the_epoch_and_draws_do_not_depend_on_what_came_before() -> None:
    training = TrainingConfig(batch_size=8, accumulate=2)
    model = Drawing()
    task = toy_task(40, model)
    batches = TrainBatches(task=task, training=training, bad_images=BadImages(0))
    estimate = partial(estimate_batchnorm, batches, num_images=17)
    torch.manual_seed(99)
    assert estimate(epoch=6) == 24
    assert [len(images) for images in model.seen] == [4] * 6
    requests = train_requests(
        task.loader.sets["train"],
        task.train_indices,
        batch_size=8,
        rank=0,
        world_size=1,
        seed=0,
        epoch=6,
        steps=range(3),
    )
    due = torch.cat([task.to_input(batch.images) for batch in task.loader.batches(requests)])
    assert torch.equal(torch.cat(model.seen), due)
    again = list(model.drawn)
    model.drawn.clear()
    estimate(epoch=6)
    assert model.drawn == again
    assert int(model.norm.num_batches_tracked or 0) == 6


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_are_mixed_as_the_epoch_would_mix_them(kind: str) -> None:
    training = TrainingConfig(batch_size=8, accumulate=2, **{kind: 1.0})
    model = Drawing()
    batches = TrainBatches(task=toy_task(40, model), training=training, bad_images=BadImages(0))
    estimate_batchnorm(batches, epoch=6, num_images=17)
    estimated = torch.cat(model.seen)
    of_training = Classifying()
    learning = toy_task(40, of_training)
    optimizer = SGD(of_training.parameters(), lr=1e-9)
    trainer = make_trainer(
        dataclasses.replace(batches, task=learning), optimizer, stage=1, lr=1e-9, epochs=1, faults=Faults()
    )
    trainer.train_epoch(6, lambda _: None)
    assert torch.equal(estimated, torch.cat(of_training.seen)[: len(estimated)])
    model.seen.clear()
    unmixed = dataclasses.replace(training, **{kind: 0.0})
    estimate_batchnorm(dataclasses.replace(batches, training=unmixed), epoch=6, num_images=17)
    assert not torch.equal(estimated, torch.cat(model.seen))


@needs_digits
@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_run_ends_with_other_statistics_and_the_same_weights_and_so_do_its_parts(size: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"training": {"ema_decay": 0.9}} if size == 2 else {}
    plain = configured(tmp_path, "plain", **options)
    calm, stopped = (
        configured(tmp_path, name, training={**options.get("training", {}), "bn_images": 1000})
        for name in ("calm", "stopped")
    )
    run_ranks(run_in_parts, size, plain, [])
    (digest, _), *_ = run_ranks(run_in_parts, size, calm, [])
    (again, _), *_ = run_ranks(run_in_parts, size, stopped, [(1, 2, 4), (2, 2, 4), (2, 2, 6)])
    assert digest == again
    mine, theirs = (load_file(RunFolder.planned(each).result / "model.safetensors") for each in (calm, plain))
    assert {name for name in mine if not torch.equal(mine[name], theirs[name])} == {
        f"features.{place}.{name}"
        for place in (1, 4, 8)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    rows, without = read_rows(RunFolder.planned(calm)), read_rows(RunFolder.planned(plain))
    assert rows == read_rows(RunFolder.planned(stopped))
    assert rows[:-1] == without[:-1]
    assert rows[-1]["loss"] != without[-1]["loss"]
    summary = read_summary(RunFolder.planned(calm))
    assert summary["top1"] == summary["stages"][-1]["top1"] == float(rows[-1]["top1"])


@needs_digits
def test_a_run_that_ended_before_its_result_was_written_estimates_nothing_again(tmp_path: Path) -> None:
    config = configured(tmp_path, "ended", **EACH)
    digest, _ = run_in_parts(config, [])
    RunFolder.planned(config).summary.unlink()
    assert run_in_parts(config, []) == (digest, ["continuing from checkpoint-02-0002-00000000"])


@needs_digits
def test_without_re_training_it_is_done_too(tmp_path: Path) -> None:
    with_it, without = (
        run_here(tiny_config(tmp_path, f"bn{num}", training={"float_epochs": 1, "epochs": 0, "bn_images": num}))
        for num in (640, 0)
    )
    assert with_it.summary["digest"] != without.summary["digest"]
    assert math.isfinite(with_it.summary["top1"])
    assert with_it.summary["stages"][0] == without.summary["stages"][0]


@needs_digits
def test_a_network_without_batchnorm_has_none_to_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net_without_norm.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    with_it, without = (
        run_here(
            tiny_config(tmp_path, f"none{num}", network={"arch": "net_without_norm:net"}, training={"bn_images": num})
        )
        for num in (1000, 0)
    )
    assert with_it.summary["digest"] == without.summary["digest"]
