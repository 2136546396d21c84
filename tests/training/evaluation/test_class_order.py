import pytest
import torch
from torch import Tensor

from inq_ray.training.evaluation.class_order import confusion, renamed_classes


def counts(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows)


def test_confusion_counts_what_is_taken_for_what() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [5.0, 0.0, 1.0]])
    assert confusion(logits, torch.tensor([0, 0, 2, 2])).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("rows", "renamed"),
    [
        ([[38, 1, 1], [2, 38, 0], [0, 0, 40]], ()),
        ([[1, 38, 1], [38, 2, 0], [0, 0, 40]], ((0, 1), (1, 0))),  # two are exchanged
        ([[0, 40, 0], [0, 0, 40], [40, 0, 0]], ((0, 1), (1, 2), (2, 0))),  # all are shifted
        ([[40, 0, 0], [40, 0, 0], [40, 0, 0]], ()),  # the network says one thing only
        ([[40, 0, 0], [39, 1, 0], [0, 0, 40]], ()),  # it takes one class for another one that it knows
        ([[48, 52], [51, 49]], ()),  # it guesses
        ([[0, 3, 0], [3, 0, 0], [0, 0, 3]], ()),  # too few images
        ([[0, 40, 0], [0, 0, 40], [14, 13, 13]], ((0, 1), (1, 2))),
    ],
)
def test_what_would_have_to_be_renamed(rows: list[list[int]], renamed: tuple[tuple[int, int], ...]) -> None:
    assert renamed_classes(counts(rows)) == renamed


def test_two_classes_of_a_thousand_that_look_alike_are_no_other_order() -> None:
    found = torch.eye(1000, dtype=torch.int64) * 50
    found[[3, 4]] = found[[4, 3]]
    assert renamed_classes(found) == ()
    assert len(renamed_classes((torch.eye(1000, dtype=torch.int64) * 50).roll(1, 0))) == 1000


def test_a_random_network_has_no_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for classes, num in ((2, 20), (2, 1000), (10, 500), (1000, 5000)):
        logits = torch.randn(num, classes, generator=generator)
        labels = torch.arange(num) % classes
        assert renamed_classes(confusion(logits, labels)) == ()
