"""A rank's batches: whole global batches at any world size, from any step, each sample counted once."""

import multiprocessing
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.image_set import BadImage, Images, Samples
from inq_ray.data.loader import Batch, Loader, eval_requests, steps_per_epoch, train_requests
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.order.epoch import epoch_order

CROP_FLIP = CropFlip(padding=1, flip=True)


def image_set(num: int, crop_flip: CropFlip = CROP_FLIP) -> ImageSet:
    """Images whose labels are their numbers."""
    images = torch.randint(0, 256, (num, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(num))
    return ImageSet(images, torch.arange(num), crop_flip)


def train(images: Images, indices: Tensor, start_step: int = 0, num_workers: int = 0, **options: Any) -> list[Batch]:
    given: dict[str, Any] = {"batch_size": 4, "rank": 0, "world_size": 1, "seed": 0, "epoch": 0, **options}
    steps = range(start_step, steps_per_epoch(len(indices), given["batch_size"]))
    requests = train_requests(images, indices, steps=steps, **given)
    return list(Loader({"train": images}, num_workers=num_workers).batches(requests))


def evaluate(images: Images, indices: Tensor, **options: Any) -> list[Batch]:
    return list(Loader({"validation": images}).batches(eval_requests(indices, **options)))


def joined(ranks: Sequence[list[Batch]]) -> list[Batch]:
    """Put the ranks' parts of each global batch together again."""
    return [
        Batch(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]), parts[0].step)
        for parts in zip(*ranks, strict=True)
    ]


def assert_same(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    assert [batch.step for batch in first] == [batch.step for batch in second]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.images, other.images)


@settings(max_examples=40)
@given(num=st.integers(8, 40), batch_size=st.integers(4, 8), world_size=st.integers(1, 4), epoch=st.integers(0, 99))
def test_all_world_sizes_train_on_the_same_batches(num: int, batch_size: int, world_size: int, epoch: int) -> None:
    images, options = image_set(num), {"batch_size": batch_size, "epoch": epoch}
    alone = train(images, torch.arange(num), **options)
    ranks = [
        train(images, torch.arange(num), rank=rank, world_size=world_size, **options) for rank in range(world_size)
    ]
    assert_same(joined(ranks), alone)
    labels = torch.cat([batch.labels for batch in alone])
    assert torch.equal(labels, epoch_order(num, 0, epoch)[: num // batch_size * batch_size])


@settings(max_examples=40)
@given(num=st.integers(8, 40), world_size=st.integers(1, 3), data=st.data())
def test_starting_late_is_the_rest_of_the_epoch(num: int, world_size: int, data: st.DataObject) -> None:
    images, options = image_set(num), {"rank": world_size - 1, "world_size": world_size, "epoch": 5}
    whole = train(images, torch.arange(num), **options)
    start = data.draw(st.integers(0, len(whole)))
    assert_same(train(images, torch.arange(num), start_step=start, **options), whole[start:])


def test_a_subset_keeps_its_samples_augmentation() -> None:
    """What happens to a sample depends on its number in the set and not on who else trains."""
    images = image_set(20)
    some = {int(b.labels): b.images for b in train(images, torch.arange(10, 20), batch_size=1)}
    every = {int(b.labels): b.images for b in train(images, torch.arange(20), batch_size=1)}
    assert sorted(some) == list(range(10, 20))
    assert all(torch.equal(some[label], every[label]) for label in some)


@given(num=st.integers(0, 40), batch_size=st.integers(1, 12), world_size=st.integers(1, 5))
def test_evaluation_counts_every_sample_once_in_fixed_batches(num: int, batch_size: int, world_size: int) -> None:
    images = image_set(num + 3)
    indices = torch.arange(3, num + 3)
    batches: dict[int, Tensor] = {}
    for rank in range(world_size):
        for batch in evaluate(images, indices, rank=rank, world_size=world_size, batch_size=batch_size):
            assert batch.step % world_size == rank
            assert torch.equal(batch.images, images.images[batch.labels])
            batches[batch.step] = batch.labels
    expected = [indices[start : start + batch_size] for start in range(0, num, batch_size)]
    assert [batches[step].tolist() for step in sorted(batches)] == [part.tolist() for part in expected]


def test_lengths() -> None:
    images = image_set(10)
    assert steps_per_epoch(10, 4) == 2
    assert len(train(images, torch.arange(10), start_step=1)) == 1
    assert len(evaluate(images, torch.arange(10), rank=1, world_size=2, batch_size=4)) == 1
    assert len(evaluate(images, torch.arange(10), rank=0, world_size=2, batch_size=4)) == 2
    assert [b.step for b in evaluate(images, torch.arange(10), rank=0, world_size=2, batch_size=4, limit=2)] == [0]


def test_the_global_generator_is_left_alone() -> None:
    """Else a resumed run, with another number of loaders made, sees other dropout."""
    before = torch.get_rng_state()
    train(image_set(8), torch.arange(8))
    evaluate(image_set(8), torch.arange(8), rank=0, world_size=1)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_may_be_written_to() -> None:
    images = image_set(8, CropFlip())
    before = images.images.clone()
    for batch in train(images, torch.arange(8)):
        batch.images.zero_()
        batch.labels.zero_()
    assert torch.equal(images.images, before)
    assert images.labels.tolist() == list(range(8))


@pytest.mark.parametrize("batch_size", [0, -1, 9])
def test_global_batches_larger_than_the_data(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size} .*number of training samples, 8"):
        train(image_set(8), torch.arange(8), batch_size=batch_size)


def test_more_ranks_than_samples_in_a_batch() -> None:
    with pytest.raises(ValueError, match=r"batch_size=4 .*too small for 5 ranks"):
        train(image_set(8), torch.arange(8), world_size=5)


def test_evaluation_batches_are_positive() -> None:
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        eval_requests(torch.arange(8), rank=0, world_size=1, batch_size=0)


class Moody:
    """A set whose sample 5 is broken, and that does not answer in epoch 3."""

    groups = None

    def __len__(self) -> int:
        return 12

    def fetch(self, samples: Tensor, augment: tuple[int, int] | None) -> Samples:
        if augment is not None and augment[1] == 3:
            raise ValueError("s3://bucket does not answer")
        good = samples[samples != 5]
        bad = tuple(BadImage(5, "five.jpg", "text") for _ in range(len(samples) - len(good)))
        return Samples(torch.zeros(len(good), 1, 2, 2, dtype=torch.uint8), good, bad)


@pytest.mark.system
def test_loader_workers_change_nothing_and_live_on() -> None:
    images = image_set(40)
    loader = Loader({"train": images, "validation": images}, num_workers=2)
    loader.start()
    options: dict[str, Any] = {"batch_size": 4, "rank": 1, "world_size": 2, "seed": 7}
    processes = set()
    for epoch in range(2):
        requests = train_requests(images, torch.arange(40), epoch=epoch, steps=range(1, 10), **options)
        assert_same(
            list(loader.batches(requests)), train(images, torch.arange(40), start_step=1, epoch=epoch, **options)
        )
        processes |= {process.pid for process in multiprocessing.active_children()}
    validated = list(loader.batches(eval_requests(torch.arange(40), rank=0, world_size=1, batch_size=16)))
    assert_same(validated, evaluate(images, torch.arange(40), rank=0, world_size=1, batch_size=16))
    assert len(processes) == 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_images_are_left_out_and_named(num_workers: int) -> None:
    batches = train(Moody(), torch.arange(12), num_workers=num_workers)
    assert sum(len(batch.labels) for batch in batches) == 11
    assert [image for batch in batches for image in batch.bad] == [BadImage(5, "five.jpg", "text")]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_storage_that_does_not_answer_is_one_line(num_workers: int) -> None:
    with pytest.raises(ValueError, match=r"^s3://bucket does not answer$"):
        train(Moody(), torch.arange(12), num_workers=num_workers, epoch=3)
