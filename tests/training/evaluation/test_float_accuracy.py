import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.float_accuracy import _at_least, _at_most, doubt_about


def named(classes: int) -> list[str]:
    return [f"class {number}" for number in range(classes)]


def accuracy(hits: int, num: int) -> Accuracy:
    return Accuracy(num_samples=num, num_top1=hits, num_top5=num, loss=1.0)


@given(st.integers(1, 60), st.data(), st.floats(0.01, 0.99))
def test_tails_are_those_of_the_binomial_distribution(num: int, data: st.DataObject, p: float) -> None:
    hits = data.draw(st.integers(0, num))
    each = [math.comb(num, k) * p**k * (1 - p) ** (num - k) for k in range(num + 1)]
    if hits < num * p:
        assert _at_most(hits, num, p) == pytest.approx(sum(each[: hits + 1]), rel=1e-6)
    if hits > num * p:
        assert _at_least(hits, num, p) == pytest.approx(sum(each[hits:]), rel=1e-6)


@pytest.mark.parametrize(
    ("hits", "num", "classes", "is_sure"),
    [
        (50, 500, 10, True),  # the classes in another order
        (0, 500, 10, True),
        (90, 500, 10, True),  # a class happens to be right
        (25, 50, 2, False),
        (250, 500, 2, True),
        (1, 10, 10, False),
        (0, 1, 10, False),
        (3, 30, 10, True),
        (50, 50_000, 1000, True),
        (0, 250, 1000, True),  # one batch, as --limit-batches 1 has it
        (0, 5, 1000, False),
        (1_000, 1_000_000, 1000, True),
    ],
)
def test_near_chance(hits: int, num: int, classes: int, is_sure: bool) -> None:
    doubt = doubt_about(accuracy(hits, num), class_names=named(classes))
    assert doubt is not None
    assert doubt.is_sure == is_sure
    assert ("too few images to be sure" in doubt.what) != is_sure
    assert "near chance" in doubt.what
    assert f"on {num:,} images" in doubt.what


@pytest.mark.parametrize(
    ("hits", "num", "classes"),
    [(450, 500, 10), (150, 500, 10), (4, 5, 10), (35_000, 50_000, 1000), (350, 500, 2), (9, 10, 2), (5, 5, 1)],
)
def test_a_network_that_knows_something_is_not_near_chance(hits: int, num: int, classes: int) -> None:
    assert doubt_about(accuracy(hits, num), class_names=named(classes)) is None


@pytest.mark.parametrize(
    ("top1", "num", "is_sure"),
    [
        (69.5, 50_000, None),
        (65.0, 50_000, None),
        (64.5, 50_000, False),  # hardly below the margin
        (60.0, 50_000, True),
        (69.0, 200, None),
        (60.0, 50, None),  # by chance
        (50.0, 50, False),
        (33.0, 200, True),
    ],
)
def test_far_below_what_the_weights_state(top1: float, num: int, is_sure: bool | None) -> None:
    doubt = doubt_about(accuracy(round(top1 * num / 100), num), class_names=named(1000), stated_top1=69.76)
    assert (None if doubt is None else doubt.is_sure) == is_sure
    if doubt is not None:
        assert "69.76 % is published for the weights" in doubt.what


def test_classes_in_another_order_are_named() -> None:
    found = Accuracy(
        num_samples=160, num_top1=82, num_top5=160, loss=1.0, num_top1_renamed=155, renamed=((0, 1), (1, 0))
    )
    doubt = doubt_about(found, class_names=["circle", "cross", "square", "stripes"])
    assert doubt is not None
    assert doubt.is_sure
    assert doubt.what == (
        "float top-1 is 51.25 % on 160 images, but 96.88 % with classes in another order (circle is predicted as "
        "cross, cross is predicted as circle)"
    )
