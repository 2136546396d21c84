"""Images kept on the device give the batches of those that are not; a fake GPU stands for a real one."""

import dataclasses
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.loader import Batch, Loader, eval_requests, train_requests
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.preprocessing import Augmentation
from inq_ray.training.task.build import Task
from inq_ray.training.task.device_images import keep_on_device, keep_on_gpu
from tests.training.toys import toy_task

NUM_BYTES = 40 * (3 * 8 * 8 + 8)


def task_of(augmentation: Augmentation | None = None, num_workers: int = 0, *, has_holdout: bool = False) -> Task:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8) for _ in range(2)]
    options = {"crop_flip": CropFlip(padding=2, flip=True), "augmentation": augmentation or Augmentation()}
    train, validation = (ImageSet(each, torch.arange(20), **options) for each in images)  # type: ignore[arg-type]
    sets = {"train": train, "validation": train if has_holdout else validation}
    return dataclasses.replace(toy_task(8), loader=Loader(sets, num_workers=num_workers))


def batches_of(task: Task, *, seed: int, epoch: int, rank: int, start: int) -> list[Batch]:
    steps, indices = range(start, 5), torch.arange(20)
    train = train_requests(
        task.loader.sets["train"], indices, batch_size=4, rank=rank, world_size=2, seed=seed, epoch=epoch, steps=steps
    )
    validation = eval_requests(indices, rank=rank, world_size=2, batch_size=6)
    return [*task.loader.batches(train), *task.loader.batches(validation)]


@pytest.mark.parametrize("has_holdout", [False, True])
def test_batches_are_the_same_bits(has_holdout: bool) -> None:
    task = task_of(has_holdout=has_holdout)
    moved, line = keep_on_device(task, 10 * NUM_BYTES)
    assert line == "images (0 MB) are kept on the GPU, cropped and mirrored there"
    assert moved.loader.sets["train"] is not task.loader.sets["train"]
    assert (moved.loader.sets["train"] is moved.loader.sets["validation"]) == has_holdout
    for seed in range(3):
        for epoch in range(2):
            for rank, start in ((0, 0), (1, 0), (0, 3)):
                position = {"seed": seed, "epoch": epoch, "rank": rank, "start": start}
                for mine, other in zip(batches_of(moved, **position), batches_of(task, **position), strict=True):
                    assert mine.step == other.step
                    assert mine.images.equal(other.images)
                    assert mine.labels.equal(other.labels)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_everything_is_computed_on_the_device() -> None:
    """A fake tensor refuses operations between devices, as a real one does."""
    images = ImageSet(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20), CropFlip(padding=2, flip=True))
    samples = torch.arange(6)
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved = images.to(torch.device("cuda"))
        with pytest.raises(RuntimeError, match="device"):
            moved.images.gather(0, torch.zeros(1, 1, 1, 1, dtype=torch.int64))
        for augment in (None, (3, 4)):
            pixels, labels, _ = moved.fetch(samples, augment)
            assert (pixels.device.type, pixels.shape) == ("cuda", (6, 3, 8, 8))
            assert (labels.device.type, labels.shape) == ("cuda", (6,))


@pytest.mark.parametrize(
    ("options", "num_free", "reason"),
    [
        (
            {"augmentation": Augmentation(random_erasing=0.1)},
            10**9,
            "--auto-augment and --random-erasing change them there",
        ),
        ({"num_workers": 1}, 10**9, "--loader-workers 1 read them"),
        ({}, 10 * NUM_BYTES - 10, "their 0 MB are more than 10% of the 0 MB free on the GPU"),
    ],
    ids=["augmented", "workers", "too large"],
)
def test_images_that_stay_are_said_to_stay(options: dict[str, Any], num_free: int, reason: str) -> None:
    task = task_of(**options)
    same, line = keep_on_device(task, num_free)
    assert same is task
    assert line == f"images stay in the memory of the CPU: {reason}"


def test_without_a_gpu_nothing_is_said() -> None:
    task = task_of()
    assert keep_on_gpu(task) == (task, None)
