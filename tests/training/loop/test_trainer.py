import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.data.loader import Loader, train_requests
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.non_finite import DivergedError
from inq_ray.training.loop.trainer import EpochResult, EpochState, Trainer
from inq_ray.training.task.wrapping import wrap
from tests.ranks import rank_outcomes, run_ranks
from tests.training.toys import toy_images, toy_network, toy_task

CPU = torch.device("cpu")

# Sums come out in another order: float32's rounding, a few steps long. A wrong weight of a rank's share shows as 1e-2.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


def make_trainer(num: int, model: nn.Module | None = None, **training: Any) -> Trainer:
    config = TrainingConfig(**{"lr": 0.05, "lr_schedule": "constant", **training})
    task = toy_task(num, model)
    optimizer = SGD(task.model.parameters(), lr=config.lr, momentum=0.9, weight_decay=1e-3)
    return Trainer(
        batches=TrainBatches(task=task, training=config, bad_images=BadImages(0)),
        model=wrap(task.model, CPU, compile=False, sync_batchnorm=False),
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, lambda _: 1.0),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
    )


def train(num: int, epochs: int, **training: Any) -> tuple[dict[str, Tensor], EpochResult]:
    trainer = make_trainer(num, **training)
    for epoch in range(epochs):
        result = trainer.train_epoch(epoch, lambda *_: None)
    return {name: param.detach().clone() for name, param in trainer.task.model.named_parameters()}, result


def test_one_process_is_the_textbook_loop() -> None:
    num, batch_size, seed = 50, 12, 3
    ours, result = train(num, 2, batch_size=batch_size, seed=seed)
    task = toy_task(num)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for epoch in range(2):
        losses, hits = [], 0
        requests = train_requests(
            task.loader.sets["train"], task.train_indices, batch_size=batch_size, rank=0, world_size=1, seed=seed,
            epoch=epoch, steps=range(4),
        )  # fmt: skip
        for batch in Loader(task.loader.sets).batches(requests):
            logits = task.model(task.to_input(batch.images))
            loss = nn.functional.cross_entropy(logits, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits += int((logits.argmax(1) == batch.labels).sum())
    torch.testing.assert_close(ours, dict(task.model.named_parameters()), **TOLERANCE)
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert result.top1 == pytest.approx(100 * hits / 48)
    assert result.images_per_second == pytest.approx(48 / result.spent.seconds)


@pytest.mark.parametrize("batch_size", [12, 13])
@pytest.mark.parametrize("accumulate", [2, 3, 5, 12])
def test_gradient_accumulation_changes_nothing(batch_size: int, accumulate: int) -> None:
    whole, whole_result = train(40, 2, batch_size=batch_size)
    parts, parts_result = train(40, 2, batch_size=batch_size, accumulate=accumulate)
    torch.testing.assert_close(parts, whole, **TOLERANCE)
    assert parts_result.loss == pytest.approx(whole_result.loss, rel=1e-5)
    assert parts_result.top1 == whole_result.top1


def train_several(cases: list[dict[str, Any]]) -> list[tuple[dict[str, Tensor], EpochResult]]:
    return [train(40, 2, **case) for case in cases]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ranks_equal_one_process_at_the_same_global_batch(size: int) -> None:
    cases = [{"batch_size": size_ * 1} for size_ in (12, 13, 10, 7)]
    cases += [{"batch_size": 13, "accumulate": 3}, {"batch_size": 8, "accumulate": 2}]
    expected = train_several(cases)
    ranks = run_ranks(train_several, size, cases)
    for place, (weights, result) in enumerate(expected):
        for of_rank in ranks:
            torch.testing.assert_close(of_rank[place][0], weights, **TOLERANCE)
            assert of_rank[place][1].loss == pytest.approx(result.loss, rel=1e-5)
            assert of_rank[place][1].top1 == result.top1
            assert all(torch.equal(of_rank[place][0][name], ranks[0][place][0][name]) for name in weights)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(5, 4), (13, 5), (12, 1)])
def test_a_step_has_as_many_parts_as_asked_for(batch_size: int, accumulate: int) -> None:
    sizes: list[int] = []
    model = toy_network()
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    make_trainer(batch_size, model, batch_size=batch_size, accumulate=accumulate).train_epoch(0, lambda *_: None)
    assert len(sizes) == accumulate
    assert sum(sizes) == batch_size
    assert max(sizes) - min(sizes) <= 1


def test_progress_is_told_after_each_step() -> None:
    told: list[tuple[int, float]] = []
    result = make_trainer(40, batch_size=12).train_epoch(0, lambda at: told.append((at.step, at.sums[2].item())))
    assert told == [(1, 12.0), (2, 24.0), (3, 36.0)]
    assert result.spent.seconds > result.spent.data_seconds > 0


def test_the_learning_rate_follows_the_schedule_by_steps() -> None:
    trainer = make_trainer(40, batch_size=12)
    trainer.scheduler.lr_lambdas[0] = lambda step: 1 / (step + 1)
    trainer.train_epoch(0, lambda *_: None)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 4)


def diverge(poisoned: int) -> str:
    trainer = make_trainer(24, batch_size=12)
    if torch.distributed.get_rank() == poisoned:
        with torch.no_grad():
            next(trainer.task.model.parameters()).fill_(float("nan"))
    try:
        trainer.train_epoch(4, lambda *_: None)
    except DivergedError as error:
        return str(error)
    return "went on"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_loss_that_is_no_number_stops_every_rank(size: int) -> None:
    answers = run_ranks(diverge, size, size - 1)
    assert len(set(answers)) == 1
    assert "epoch 5" in answers[0]
    assert "--lr" in answers[0]


def train_with_still_weights(still: list[str]) -> dict[str, Tensor]:
    """Trains on ranks while some tensors need no gradient, as those do whose weights are all frozen."""
    trainer = make_trainer(24, batch_size=12, model=toy_network(seed=1))
    before = copy.deepcopy(trainer.task.model.state_dict())
    for name, param in trainer.task.model.named_parameters():
        param.requires_grad_(name not in still)
    trainer = Trainer(**{**vars(trainer), "model": wrap(trainer.task.model, CPU, compile=False, sync_batchnorm=False)})
    trainer.train_epoch(0, lambda *_: None)
    after = trainer.task.model.state_dict()
    assert isinstance(trainer.model, DistributedDataParallel) == (torch.distributed.get_world_size() > 1)
    assert all(torch.equal(after[name], before[name]) == (name in still) for name in after)
    assert all(trainer.task.model.get_parameter(name).grad is None for name in still)
    return after


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("still", [["0.weight"], ["0.weight", "3.weight"]])
def test_tensors_that_need_no_gradient_stay_and_the_others_move(size: int, still: list[str]) -> None:
    first, *others = run_ranks(train_with_still_weights, size, still)
    for other in others:
        assert all(torch.equal(other[name], first[name]) for name in first)


def lose_a_rank() -> None:
    if torch.distributed.get_rank() == 1:
        raise LookupError("no more")
    make_trainer(24, batch_size=12).train_epoch(0, lambda *_: None)


def test_a_rank_that_fails_lets_no_other_hang() -> None:
    outcomes = rank_outcomes(lose_a_rank, 2)
    assert isinstance(outcomes[1].error, LookupError)
    assert outcomes[0].error is not None


def test_dropout_is_a_function_of_seed_epoch_and_step() -> None:
    def trained(draws_before: int) -> list[float]:
        model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 3))
        with torch.no_grad():
            model[2].weight.fill_(0.1)
            model[2].bias.fill_(0.0)
        trainer = make_trainer(24, model, batch_size=12)
        torch.rand(draws_before)
        trainer.train_epoch(0, lambda *_: None)
        return model[2].weight.flatten().tolist()

    assert trained(0) == trained(100)


def test_augmented_images_are_those_of_the_epoch() -> None:
    seen: list[Tensor] = []
    model = toy_network()
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].clone()))
    trainer = make_trainer(24, model, batch_size=24)
    for epoch in (0, 1, 0):
        trainer.train_epoch(epoch, lambda *_: None)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert len(toy_images(24)) == 24


@pytest.mark.parametrize("start", [1, 3])
def test_an_epoch_goes_on_in_its_middle_with_the_same_bits(start: int) -> None:
    def dropping() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 3))

    kept: list[Any] = []

    def keep(at: EpochState) -> None:
        if at.step == start:
            kept.extend([calm.task.model.state_dict(), calm.optimizer.state_dict(), at])
            kept[:] = copy.deepcopy(kept)

    calm = make_trainer(40, dropping(), batch_size=10)
    result = calm.train_epoch(2, keep)
    weights, momentum, state = kept
    resumed = make_trainer(40, dropping(), batch_size=10)
    resumed.task.model.load_state_dict(weights)
    resumed.optimizer.load_state_dict(momentum)
    torch.rand(7)
    again = resumed.train_epoch(2, lambda _: None, state)
    assert all(map(torch.equal, calm.task.model.parameters(), resumed.task.model.parameters()))
    assert (again.loss, again.top1) == (result.loss, result.top1)
