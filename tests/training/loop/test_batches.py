"""A rank's shard of a batch is computed in microbatches, each with random numbers of its own."""

from typing import Any

import pytest
import torch

from inq_ray.data.image_set import BadImage
from inq_ray.data.loader import Batch
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import Microbatch, TrainBatches
from tests.training.toys import toy_task


def batch_of(num_images: int, step: int = 0) -> Batch:
    images = torch.arange(num_images, dtype=torch.uint8).reshape(num_images, 1, 1, 1).expand(-1, 1, 6, 6)
    return Batch(images, torch.arange(num_images) % 3, step, (BadImage(7, "n7.jpg", "text"),))


def microbatches_of(batch: Batch, **training: Any) -> list[Microbatch]:
    task = toy_task(8)
    batches = TrainBatches(task=task, training=TrainingConfig(**training), bad_images=BadImages(1))
    return list(batches.microbatches(batch, epoch=2))


def test_microbatches_are_the_batch_in_order() -> None:
    batch, task = batch_of(8), toy_task(8)
    parts = microbatches_of(batch, accumulate=3)
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
    assert torch.equal(torch.cat([part.inputs for part in parts]), task.to_input(batch.images))
    assert sorted(len(part.labels) for part in parts) == [2, 3, 3]
    assert [part.is_last for part in parts] == [False, False, True]
    assert all(part.targets is part.labels for part in parts)


def test_no_microbatch_of_an_epoch_is_mixed_as_another() -> None:
    images = torch.rand(4, 1, 6, 6).mul(255).byte().repeat(2, 1, 1, 1)  # both microbatches alike
    batches = [Batch(images, torch.arange(8) % 4 % 3, step, ()) for step in range(2)]
    parts = [part for batch in batches for part in microbatches_of(batch, accumulate=2, mixup=1.0)]
    assert len({tuple(part.inputs.flatten().tolist()) for part in parts}) == 4
    assert all(part.targets.shape == (4, 3) for part in parts)


def test_fewer_images_than_microbatches_are_one_each() -> None:
    assert [len(part.labels) for part in microbatches_of(batch_of(2), accumulate=4)] == [1, 1]


def test_synchronized_ranks_run_as_many_passes_or_say_why_not() -> None:
    training = {"accumulate": 4, "sync_batchnorm": True}
    assert len(microbatches_of(batch_of(4), **training)) == 4
    with pytest.raises(
        ValueError, match=r"only 3 images of a batch could be read \(not n7.jpg\), .* --accumulate 4 needs 4: repair"
    ):
        microbatches_of(batch_of(3), **training)


def test_a_batch_without_an_image_names_one() -> None:
    with pytest.raises(ValueError, match=r"no image of a whole batch could be read; one is n7.jpg"):
        microbatches_of(batch_of(0))
