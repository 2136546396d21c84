"""--compensate: live weights move at each stage, alike on all ranks, and with the same bits after a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inq_ray import SGD, INQScheduler, StageError, param_groups
from inq_ray.distributed.wire import rank
from inq_ray.training.calibration import quantize_at_once
from inq_ray.training.config import RunConfig, TrainingConfig
from inq_ray.training.flags.parse import parse
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from tests.ranks import rank_outcomes, run_ranks
from tests.training.runs import configured, needs_digits, read_rows, run_here, run_in_parts, tiny_config
from tests.training.toys import toy_task

pytestmark = [pytest.mark.system, needs_digits]

COMPENSATED: dict[str, Any] = {
    "iterative_steps": (0.5, 1.0),
    "weight_bits": 3,
    "compensate": True,
    "calibration_images": 300,
}


def test_outputs_change_less_by_quantizing(tmp_path: Path) -> None:
    losses = {}
    for compensates in (False, True):
        quantization = {**COMPENSATED, "compensate": compensates}
        training = {"float_epochs": 3, "epochs": 0}
        config = tiny_config(tmp_path, f"with-{compensates}", training=training, quantization=quantization)
        losses[compensates] = [float(row["loss"]) for row in read_rows(run_here(config).folder)]
    assert losses[True][:3] == losses[False][:3], "float training is the same"
    assert losses[True][-1] < losses[False][-1]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(tmp_path: Path, world_size: int) -> None:
    workers = {"num_workers": world_size}
    whole, parts = (
        configured(tmp_path, name, quantization=COMPENSATED, cluster=workers) for name in ("whole", "parts")
    )
    expected, *others = run_ranks(run_in_parts, world_size, whole, [])
    found, *_ = run_ranks(run_in_parts, world_size, parts, [(1, 2, 4), (2, 2, 4)])
    assert {digest for digest, _ in others} <= {expected[0]}
    assert found[0] == expected[0]


def test_without_training_all_is_quantized_at_once(tmp_path: Path) -> None:
    flags = ["--data", "digits", "--post-training", "--calibration-images", "400", "--weight-bits", "4"]
    flags += ["--levels", "full", "--float-epochs", "3"]
    config = parse(flags).run
    assert (config.quantization.iterative_steps, config.stage_epochs) == ((1.0,), (0,))
    summaries = [
        run_ranks(_summary, size, config.replace(output={"storage_path": str(tmp_path), "name": f"at-once-{size}"}))
        for size in (1, 2)
    ]
    for each in summaries:
        assert len({summary["digest"] for summary in each}) == 1
        assert each[0]["top1"] > each[0]["float_top1"] - 3
    assert [stage["portion"] for stage in summaries[0][0]["stages"]] == [1.0]


def _summary(config: RunConfig) -> dict[str, Any]:
    return run_here(config).summary


def test_rank_0_alone_quantizes_and_others_take_its_network() -> None:
    (first, num_first), (second, num_second) = run_ranks(_at_once, 2, 1.0)
    assert (num_first, num_second) == (128, None)
    assert first == second


@pytest.mark.parametrize(("factor", "num_inputs", "text"), [(float("nan"), 64, "NaN"), (1.0, 63, "RuntimeError: ")])
def test_all_ranks_get_the_error_of_rank_0(factor: float, num_inputs: int, text: str) -> None:
    assert {
        (type(outcome.error), text in str(outcome.error)) for outcome in rank_outcomes(_at_once, 2, factor, num_inputs)
    } == {(StageError, True)}


def _at_once(factor: float, num_inputs: int = 64) -> tuple[dict[str, list[float]], int | None]:
    """Quantizes a network whose weights differ between ranks, but for those of rank 0 times a factor."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(num_inputs, 3))
    with torch.no_grad():
        model[0].weight.mul_(factor * (1 + rank()))
    training = TrainingConfig(batch_size=64)
    batches = TrainBatches(task=toy_task(512, model), training=training, bad_images=BadImages(0))
    inq = INQScheduler(SGD(param_groups(model, 4), lr=0.1), [1.0])
    done = quantize_at_once(batches, inq, epoch=0, num_images=256, keep_zeros=False)
    return {name: each.flatten().tolist() for name, each in model.state_dict().items()}, done and done.num_images


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--keep-zeros", "--keep-zeros has no effect without --post-training"),
        ("--post-training --iterative-steps 0.5 1", "--post-training has one stage: use --iterative-steps 1"),
    ],
)
def test_what_does_not_go_together_is_refused(flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(["--data", "digits", *flags.split()])
