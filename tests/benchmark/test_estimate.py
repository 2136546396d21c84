"""Duration of a benchmark that is told before its start."""

import re
from pathlib import Path

import pytest
import torch

from inq_ray.benchmark import estimate, step
from inq_ray.benchmark.estimate import estimate as estimated
from inq_ray.benchmark.images import random_source
from inq_ray.benchmark.step import NUM_KINDS, measure_step, num_all_steps
from inq_ray.benchmark.subject import FULL, QUICK, Settings, make_subject
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.trainer import Trainer
from inq_ray.training.task.build import build_model
from tests.ranks import run_ranks


def _config(num_workers: int | str = 2, **training: object) -> RunConfig:
    return RunConfig().replace(cluster={"num_workers": num_workers}, training={"batch_size": 64, **training})


def _line(config: RunConfig, *, is_quick: bool = True, has_data: bool = False) -> str:
    info = random_source(config, None, num_train=64).info
    return estimated(config, build_model(config, info), info, is_quick=is_quick, has_data=has_data)


def _count_steps(scratch: str) -> int:
    """Counts the forward and backward passes of all steps."""
    num_passes = 0
    run_pass = Trainer._forward_backward

    def counted(self: Trainer, *args: object) -> torch.Tensor:
        nonlocal num_passes
        num_passes += 1
        return run_pass(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_forward_backward", counted)
        patch.setattr(step, "plan", lambda *_: (3, 2))
        settings = Settings(is_quick=True, fingerprint=None, scratch=scratch)
        measure_step(make_subject(_config(), settings, torch.device("cpu"), lambda _: None))
    return num_passes


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_steps_is_that_of_the_benchmark(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = run_ranks(_count_steps, num_workers, str(tmp_path))
    monkeypatch.setattr(step, "plan", lambda *_: (3, 2))
    assert counts == [num_all_steps(QUICK, 1.0, 1 if num_workers == 1 else NUM_KINDS)] * num_workers


def test_a_step_on_this_machine_is_timed_and_said_to_be_its_own() -> None:
    line = _line(_config("1..4"))
    assert re.fullmatch(
        r"steps with 1, 2, 4 workers take about 0:\d\d:\d\d by the speed of this machine: \S+ s for a step of \d+ "
        r"images; the link, stages, checkpoints and Ray's start come on top",
        line,
    ), line
    assert _line(_config(1), has_data=True).startswith("steps and input with 1 worker take about ")


def test_a_step_that_takes_long_is_timed_with_two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def four_seconds(*args: object) -> float:
        timed.append(int(args[-1]))  # type: ignore[call-overload]
        return 4.0

    monkeypatch.setattr(estimate, "_time_step", four_seconds)
    line = _line(_config(2), is_quick=False)
    assert timed == [2]
    seconds = 64.0 * num_all_steps(FULL, 64.0, NUM_KINDS)
    assert f" take about {step.duration(seconds)} by the speed of this machine: 4 s for a step of 2 images" in line


def test_the_number_of_threads_is_that_of_a_worker_and_then_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []

    def time_step(*_: object) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(estimate, "_time_step", time_step)
    _line(_config(1).replace(cluster={"cpus_per_worker": 3}))
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def test_the_time_of_a_step_on_a_gpu_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_time_step", lambda *_: pytest.fail("a CPU says nothing about a GPU"))
    line = _line(_config(2).replace(cluster={"use_gpu": True}), is_quick=False)
    assert line.endswith(
        " if a step takes up to 1.2 s, else longer in proportion; the time of a step on a GPU is not known before the "
        "start"
    )


@pytest.mark.parametrize(
    "training", [{"accumulate": 2}, {"distill": True}, {"precision": "bf16"}, {"compile": True}, {"limit_batches": 1}]
)
def test_any_training_can_be_estimated(training: dict[str, object]) -> None:
    assert "by the speed of this machine" in _line(_config(2, **training))
