import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from inq_ray.training.evaluation.evaluate import Accuracy, evaluate
from inq_ray.training.loop.bad_images import BadImages
from tests.ranks import run_ranks
from tests.training.toys import toy_images, toy_input, toy_network, validation_batches


def evaluated(num: int, classes: int, batch_size: int) -> Accuracy:
    images = toy_images(num, classes)
    return evaluate(toy_network(classes), validation_batches(images, batch_size), toy_input(), BadImages(0))


def several(cases: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(evaluated(*case)) for case in cases]


def brute_force(num: int, classes: int) -> Accuracy:
    images = toy_images(num, classes)
    with torch.no_grad():
        logits = toy_network(classes)(toy_input()(images.images))
    places = [
        sum(float(other) > float(row[label]) for other in row)
        for row, label in zip(logits, images.labels.tolist(), strict=True)
    ]
    return Accuracy(
        num_samples=num,
        num_top1=sum(place < 1 for place in places),
        num_top5=sum(place < 5 for place in places),
        loss=float(-logits.log_softmax(1)[torch.arange(num), images.labels].double().mean()),
    )


@pytest.mark.parametrize("classes", [2, 3, 5, 6, 20])
@pytest.mark.parametrize("num", [1, 23, 64])
def test_equals_brute_force(num: int, classes: int) -> None:
    ours, expected = evaluated(num, classes, batch_size=8), brute_force(num, classes)
    assert (ours.num_samples, ours.num_top1, ours.num_top5) == (num, expected.num_top1, expected.num_top5)
    assert ours.loss == pytest.approx(expected.loss, rel=1e-5)
    assert ours.top1 == 100 * expected.num_top1 / num
    if classes <= 5:
        assert ours.top5 == 100.0


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_ranks_counts_every_sample_once(size: int) -> None:
    cases = [(1, 3, 8), (7, 3, 8), (8, 3, 8), (9, 20, 8), (50, 20, 7), (97, 6, 10)]
    one_process = several(cases)
    for of_rank in run_ranks(several, size, cases):
        for ours, expected in zip(of_rank, one_process, strict=True):
            assert ours.pop("loss") == pytest.approx(expected["loss"], rel=1e-12)
            assert ours == {name: expected[name] for name in ours}


def test_the_network_is_evaluated_and_not_trained() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    batches = list(validation_batches(toy_images(10)))
    first, second = (evaluate(model, batches, toy_input(), BadImages(0)) for _ in range(2))
    assert first == second
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


def test_reduced_precision_of_the_training_is_not_used() -> None:
    seen = []
    model = toy_network()
    model[3].register_forward_hook(lambda _module, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    evaluate(model, validation_batches(toy_images(4)), toy_input(), BadImages(0))
    assert seen == [torch.float32, torch.float32]
