import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from inq_ray.training.config import LrSchedule, TrainingConfig
from inq_ray.training.loop.lr_schedule import lr_factor

STEPS, EPOCHS = 7, 6


def ours(schedule: LrSchedule, num: int = STEPS * EPOCHS, warmup: float = 0.0, step_epochs: float = 2.0) -> list[float]:
    training = TrainingConfig(lr_schedule=schedule, warmup_epochs=warmup, lr_step_epochs=step_epochs, lr_gamma=0.2)
    return [lr_factor(step, steps_per_epoch=STEPS, epochs=EPOCHS, training=training) for step in range(num)]


def torchs(scheduler: type[LRScheduler], num: int = STEPS * EPOCHS, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler(optimizer, **options)
    factors = []
    for _ in range(num):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return factors


def test_cosine_is_torchs_over_the_steps_of_a_stage() -> None:
    assert ours("cosine") == pytest.approx(torchs(CosineAnnealingLR, T_max=STEPS * EPOCHS), abs=1e-12)


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_step_is_torchs(epochs: int) -> None:
    assert ours("step", step_epochs=epochs) == pytest.approx(torchs(StepLR, step_size=epochs * STEPS, gamma=0.2))


def test_step_takes_parts_of_epochs() -> None:
    factors = ours("step", step_epochs=3 / 7)
    assert factors[:7] == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.04])


def test_constant_stays() -> None:
    assert ours("constant") == [1.0] * (STEPS * EPOCHS)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_every_schedule_begins_at_the_full_rate_and_stays_above_0(schedule: LrSchedule) -> None:
    factors = ours(schedule)
    assert factors[0] == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_warm_up_rises_linearly_to_the_full_rate(schedule: LrSchedule) -> None:
    factors = ours(schedule, warmup=2.0)
    assert factors[:14] == pytest.approx([(step + 1) / 14 for step in range(14)])
    assert all(0 < factor <= 1 for factor in factors)
    if schedule == "cosine":  # falls over what is left
        assert factors[14:] == pytest.approx(torchs(CosineAnnealingLR, num=28, T_max=28), abs=1e-12)


def test_a_warm_up_longer_than_the_stage_only_rises() -> None:
    factors = ours("cosine", warmup=100.0)
    assert factors == sorted(factors)
    assert 0 < factors[0] < factors[-1] < 1


def test_steps_after_the_end_are_allowed_for_schedulers_that_look_ahead() -> None:
    assert ours("cosine", num=STEPS * EPOCHS + 3)[-3:] == [0.0, 0.0, 0.0]
