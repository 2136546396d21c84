"""Accuracy in words."""

import pytest

from inq_ray.training.evaluation.accuracy import Accuracy


@pytest.mark.parametrize(("num_classes", "top5"), [(2, ""), (5, ""), (6, ", top-5 100.00 %")])
def test_top5_is_left_out_where_it_says_nothing(num_classes: int, top5: str) -> None:
    accuracy = Accuracy(num_samples=2_000, num_top1=1_000, num_top5=2_000, loss=0.5)
    assert accuracy.in_words(num_classes) == f"top-1 50.00 %{top5} of 2,000 images"
