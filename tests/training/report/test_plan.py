import os

import pytest
import torch

from inq_ray.core.portions import num_frozen
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.report.plan import Plan, PlannedPhase, plan
from inq_ray.training.task.check import check
from tests.training.runs import needs_digits

pytestmark = needs_digits

WEIGHTS = (16 * 9, 32 * 16 * 9, 64 * 32 * 9, 256 * 10)


def planned(config: RunConfig) -> Plan:
    source, model = check(config)
    return plan(config, source.info, model)


def test_counts_of_the_digits() -> None:
    found = planned(default_recipe("digits_cnn", 5))
    assert (found.num_parameters, found.num_quantized, found.num_tensors) == (25_978, sum(WEIGHTS), 4)
    assert (found.num_train, found.num_validation) == (1297, 500)
    portions = (0.5, 0.75, 0.875, 1.0)
    assert found.phases == (
        PlannedPhase(stage=0, portion=0.0, num_frozen=0, epochs=12, lr=0.1, steps=12 * 20),
        *(
            PlannedPhase(
                stage=stage,
                portion=portion,
                num_frozen=sum(num_frozen(portion, count) for count in WEIGHTS),
                epochs=3,
                lr=0.02,
                steps=3 * 20,
            )
            for stage, portion in enumerate(portions, start=1)
        ),
    )
    assert found.seconds_per_step is not None
    assert found.seconds == pytest.approx(found.seconds_per_step * 480)


def test_what_is_held_out_or_skipped_is_not_counted() -> None:
    config = default_recipe("digits_cnn", 3).replace(
        data={"holdout": 297}, quantization={"skip": ("classifier",)}, training={"batch_size": 100, "float_epochs": 1}
    )
    found = planned(config)
    assert (found.num_train, found.num_validation) == (1000, 297)
    assert (found.num_tensors, found.num_quantized) == (3, sum(WEIGHTS[:3]))
    assert [phase.steps for phase in found.phases] == [10] + [30] * 8
    assert found.phases[-1].num_frozen == sum(WEIGHTS[:3])


def test_epochs_in_all_are_dealt_out_and_trials_cut_epochs_short() -> None:
    config = default_recipe("digits_cnn", 5).replace(
        data={"holdout": 297}, training={"batch_size": 100, "epochs_total": 6, "limit_batches": 7, "float_epochs": 2}
    )
    found = planned(config)
    assert [phase.epochs for phase in found.phases] == [2, 2, 2, 1, 1]
    assert [phase.steps for phase in found.phases] == [14, 14, 14, 7, 7]
    assert found.num_validation == 297
    few = planned(config.replace(training={"limit_batches": 1}))
    assert [phase.steps for phase in few.phases] == [2, 2, 2, 1, 1]
    assert few.num_validation == 250


def test_each_stage_may_have_epochs_and_a_rate_of_its_own() -> None:
    each = {"epochs_each": (1, 0, 2, 5), "lr_each": (0.02, 0.01, 0.01, 0.004)}
    found = planned(default_recipe("digits_cnn", 5).replace(training=each))
    assert [(phase.epochs, phase.lr) for phase in found.phases] == [
        (12, 0.1), (1, 0.02), (0, 0.01), (2, 0.01), (5, 0.004)
    ]  # fmt: skip
    assert [phase.steps for phase in found.phases] == [240, 20, 0, 40, 100]


def test_plain_training_is_one_phase() -> None:
    config = default_recipe("digits_cnn", 5).replace(training={"float_epochs": 0, "epochs": 2})
    found = planned(RunConfig(network=config.network, training=config.training, plain=True))
    assert found.phases == (PlannedPhase(stage=0, portion=0.0, num_frozen=0, epochs=2, lr=0.02, steps=40),)
    assert (found.num_tensors, found.num_quantized) == (0, 0)


def test_gpus_of_other_machines_are_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = planned(default_recipe("digits_cnn", 5).replace(cluster={"use_gpu": True}))
    assert found.seconds_per_step is None
    assert found.seconds is None


def test_planning_leaves_threads_and_network_as_they_were() -> None:
    threads = torch.get_num_threads()
    config = default_recipe("digits_cnn", 5)
    source, model = check(config)
    plan(config, source.info, model)
    assert torch.get_num_threads() == threads
    assert all(param.grad is None for param in model.parameters())


def test_a_step_is_timed_with_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    planned(default_recipe("digits_cnn", 5).replace(cluster={"cpus_per_worker": 5000}))
    assert max(asked) <= (os.cpu_count() or 1)
