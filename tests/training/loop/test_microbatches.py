"""A rank's share of a batch is computed in parts, each with a place of its own."""

import pytest
import torch

from inq_ray.data.image_set import BadImage
from inq_ray.data.loader import Batch
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.microbatches import parts_of


def batch_of(num_images: int, step: int = 0) -> Batch:
    images = torch.arange(num_images, dtype=torch.uint8).reshape(num_images, 1, 1, 1)
    return Batch(images, torch.arange(num_images), step, (BadImage(7, "n7.jpg", "text"),))


def test_parts_are_the_batch_in_order_and_no_place_is_taken_twice() -> None:
    training = TrainingConfig(accumulate=3)
    parts = [part for step in range(2) for part in parts_of(batch_of(8, step), torch.arange(8), training)]
    assert [place for place, _, _ in parts] == list(range(6))
    assert torch.cat([labels for _, _, labels in parts[:3]]).tolist() == list(range(8))
    assert torch.cat([images for _, images, _ in parts[:3]]).flatten().tolist() == list(range(8))
    assert {len(labels) for _, _, labels in parts} == {2, 3}


def test_fewer_images_than_parts_are_a_part_each() -> None:
    batch = batch_of(2)
    assert [len(labels) for _, _, labels in parts_of(batch, batch.labels, TrainingConfig(accumulate=4))] == [1, 1]


def test_synchronized_ranks_run_as_many_passes_or_say_why_not() -> None:
    training = TrainingConfig(accumulate=4, sync_batchnorm=True)
    batch = batch_of(4)
    assert len(parts_of(batch, batch.labels, training)) == 4
    batch = batch_of(3)
    with pytest.raises(
        ValueError, match=r"only 3 images could be read \(not n7.jpg\), .* --accumulate 4 needs 4: mend"
    ):
        parts_of(batch, batch.labels, training)


def test_a_batch_without_an_image_names_one() -> None:
    batch = batch_of(0)
    with pytest.raises(ValueError, match=r"no image of a whole batch could be read; one is n7.jpg"):
        parts_of(batch, batch.labels, TrainingConfig())
