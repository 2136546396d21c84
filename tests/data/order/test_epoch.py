"""The order of samples: permutations, alike at any world size, the same for ever."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.data.order.epoch import epoch_batches, epoch_order, holdout, rank_slice
from inq_ray.data.order.groups import GroupOrder

integers = st.integers(-(2**70), 2**70)


@given(num=st.integers(0, 300), seed=integers, epoch=st.integers(0, 10**6))
def test_an_order_is_a_permutation_of_seed_and_epoch(num: int, seed: int, epoch: int) -> None:
    order = epoch_order(num, seed, epoch)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(num))
    assert torch.equal(order, epoch_order(num, seed, epoch))


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_the_order_stays_the_same_for_ever() -> None:
    """A resumed run goes on with the order it began with, whatever was updated in between."""
    assert epoch_order(10, 0, 0).tolist() == [8, 6, 0, 2, 7, 5, 1, 3, 9, 4]
    assert epoch_order(10, 7, 3).tolist() == [9, 6, 0, 5, 8, 2, 1, 7, 3, 4]


def test_every_place_is_equally_likely() -> None:
    counts = np.zeros((6, 6))
    for epoch in range(6000):
        counts[np.arange(6), epoch_order(6, 1, epoch).numpy()] += 1
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi square, 25 degrees of freedom: 52.6 at 0.1 %


@given(num=st.integers(0, 100), world_size=st.integers(1, 9))
def test_slices_of_ranks_are_the_batch_in_order(num: int, world_size: int) -> None:
    batch = torch.arange(num) + 5
    parts = [rank_slice(batch, rank, world_size) for rank in range(world_size)]
    assert torch.equal(torch.cat(parts), batch)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(num=st.integers(1, 200), seed=integers, data=st.data())
def test_holdout_splits_without_loss(num: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, num - 1))
    kept, held = holdout(num, count, seed)
    assert len(held) == count
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(num))
    assert kept.tolist() == sorted(kept.tolist())
    assert torch.equal(holdout(num, count, seed)[1], held)


@pytest.mark.parametrize("count", [-1, 10, 11])
def test_holdout_leaves_something(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot hold out {count} of 10 training samples"):
        holdout(10, count, 0)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=25),
    num_data_shards=st.integers(1, 5),
    world_size=st.integers(1, 5),
    more=st.integers(0, 9),
    buffer=st.sampled_from([1, 16, 200]),
    epoch=st.integers(0, 3),
)
def test_batches_of_groups_are_the_same_on_any_number_of_ranks(
    sizes: list[int], num_data_shards: int, world_size: int, more: int, buffer: int, epoch: int
) -> None:
    """Global batches are those of as many ranks as data shards; a rank takes as much as where there are no groups."""
    groups = np.cumsum([0, *sizes])
    indices = torch.arange(groups[-1])
    options: dict[str, Any] = {
        "batch_size": max(num_data_shards, world_size) + more,
        "seed": 3,
        "epoch": epoch,
        "buffer": buffer,
    }
    shards = [
        GroupOrder(indices, groups, data_shard=shard, num_data_shards=num_data_shards, **options)
        for shard in range(num_data_shards)
    ]
    parts = [
        epoch_batches(groups, indices, rank=rank, world_size=world_size, num_data_shards=num_data_shards, **options)
        for rank in range(world_size)
    ]
    for step in range(len(indices) // options["batch_size"]):
        batch = torch.cat([shard[step] for shard in shards])
        for rank, part in enumerate(parts):
            assert torch.equal(part(step), rank_slice(batch, rank, world_size))
    plain = epoch_batches(groups, indices, rank=0, world_size=num_data_shards, **options)
    assert all(torch.equal(plain(step), shards[0][step]) for step in range(len(shards[0])))
