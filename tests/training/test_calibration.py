"""--compensate: live weights move at each stage, alike on all ranks, and with the same bits after a stop."""

from pathlib import Path
from typing import Any

import pytest

from inq_ray.training.config import RunConfig
from inq_ray.training.flags.parse import parse
from tests.ranks import run_ranks
from tests.training.runs import configured, needs_digits, read_rows, run_here, run_in_parts, tiny_config

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
