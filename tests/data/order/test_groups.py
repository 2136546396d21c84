"""The order of samples that are read in groups: each once, alike for ever, from any step, few reads, a good shuffle."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.data.order.epoch import holdout, rank_slice
from inq_ray.data.order.groups import LANES, GroupOrder, fitting_workers
from inq_ray.data.seeded import counter_hash


@st.composite
def sets(draw: st.DrawFn) -> dict[str, Any]:
    """Sets of unequal, also empty, groups; some samples held out; any split over ranks."""
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=25))
    groups = np.cumsum([0, *sizes])
    keep = np.random.default_rng(draw(st.integers(0, 99))).random(groups[-1]) < draw(st.sampled_from([0.5, 0.9, 1]))
    num_shards = draw(st.integers(1, 4))
    return {
        "indices": torch.from_numpy(np.flatnonzero(keep)),
        "groups": groups,
        "batch_size": draw(st.integers(num_shards, 12)),
        "num_data_shards": num_shards,
        "seed": draw(st.integers(-(2**65), 2**65)),
        "epoch": draw(st.integers(0, 5)),
        "buffer": draw(st.sampled_from([1, 16, 64, 200, 10_000])),
    }


def all_shards(**options: Any) -> list[GroupOrder]:
    return [GroupOrder(data_shard=shard, **options) for shard in range(options["num_data_shards"])]


def brute_force(
    indices: torch.Tensor,
    groups: np.ndarray,
    batch_size: int,
    data_shard: int,
    num_data_shards: int,
    seed: int,
    epoch: int,
    buffer: int,
) -> list[list[int]]:
    """The same in the words of the docstring, everything written out."""

    def by_hash(purpose: str, values: Sequence[int]) -> list[int]:
        keys = counter_hash(purpose, seed, epoch, np.array(values, np.int64)).tolist()
        return [value for _, value in sorted(zip(keys, values, strict=True))]

    kept = set(indices.tolist())
    sequence, boundaries = [], set()
    for group in by_hash("groups", range(len(groups) - 1)):
        sequence += [sample for sample in range(groups[group], groups[group + 1]) if sample in kept]
        boundaries.add(len(sequence))
    num_steps = len(kept) // batch_size
    place = 0
    for each in range(num_data_shards):
        part = len(rank_slice(torch.arange(batch_size), each, num_data_shards))
        steps: list[list[int]] = [[] for _ in range(num_steps)]
        for lane in range(LANES):
            own = range(lane, num_steps, LANES)
            start, end = place, place + part * len(own)
            inner = sorted(cut for cut in boundaries if start < cut < end)
            size = max(1, buffer // LANES)
            cuts = {
                min(inner, key=lambda cut, at=at: (abs(cut - at), cut))
                for at in range(start + size, end, size)
                if inner
            }
            edges = sorted({start, end} | cuts)
            lane_samples = [sample for a, b in pairwise(edges) for sample in by_hash("window", sequence[a:b])]
            for turn, step in enumerate(own):
                steps[step] = lane_samples[turn * part : (turn + 1) * part]
            place = end
        if each == data_shard:
            return steps
    raise AssertionError(data_shard)


@settings(max_examples=50)
@given(sets())
def test_equal_to_brute_force(options: dict[str, Any]) -> None:
    for shard, order in enumerate(all_shards(**options)):
        assert [order[step].tolist() for step in range(len(order))] == brute_force(data_shard=shard, **options)


@settings(max_examples=50)
@given(sets())
def test_every_step_once_from_any_step_and_alike(options: dict[str, Any]) -> None:
    indices, batch_size, num_shards = options["indices"], options["batch_size"], options["num_data_shards"]
    num_steps = len(indices) // batch_size
    seen = []
    for shard, order in enumerate(all_shards(**options)):
        assert len(order) == num_steps
        backwards = [order[step] for step in reversed(range(num_steps))][::-1]
        again = GroupOrder(data_shard=shard, **options)
        for step, samples in enumerate(backwards):
            assert samples.dtype == torch.int64
            assert torch.equal(samples, again[step])
            assert len(samples) == len(rank_slice(torch.arange(batch_size), shard, num_shards))
            seen += samples.tolist()
    assert len(seen) == len(set(seen)) == num_steps * batch_size
    assert set(seen) <= set(indices.tolist())


@settings(max_examples=50)
@given(sets())
def test_reads_are_hardly_more_than_groups(options: dict[str, Any]) -> None:
    """A lane that goes through its steps reads a group once, if it holds what it has read until its window is done."""
    groups, num_shards = options["groups"], options["num_data_shards"]
    reads = 0
    for order in all_shards(**options):
        for lane in range(LANES):
            samples = [sample for step in range(lane, len(order), LANES) for sample in order[step].tolist()]
            found = np.searchsorted(groups, samples, side="right") - 1
            reads += len(set(found.tolist()))
    assert reads <= len(groups) - 1 + num_shards * LANES


def test_a_step_holds_no_more_than_two_windows_of_groups() -> None:
    """What a worker has to hold for a lane is bounded by the buffer and the groups, not by the set."""
    for num_groups in (50, 5000):
        groups = np.arange(num_groups + 1) * 100
        order = GroupOrder(
            torch.arange(num_groups * 100), groups, batch_size=32, data_shard=0, num_data_shards=1, seed=0, epoch=0
        )
        steps = range(0, len(order), max(1, len(order) // 50))
        assert max(len(set((order[step] // 100).tolist())) for step in steps) <= 2 * (8192 // LANES // 100 + 1)


def test_an_epoch_and_a_seed_give_another_order() -> None:
    orders = set()
    for seed in range(5):
        for epoch in range(5):
            order = GroupOrder(
                torch.arange(200),
                np.arange(21) * 10,
                batch_size=10,
                data_shard=0,
                num_data_shards=1,
                seed=seed,
                epoch=epoch,
            )
            orders.add(tuple(order[0].tolist()))
    assert len(orders) == 25


def test_the_order_stays_the_same_for_ever() -> None:
    """A resumed run goes on with the order it began with, whatever was updated in between."""
    order = GroupOrder(
        torch.arange(60), np.arange(13) * 5, batch_size=8, data_shard=1, num_data_shards=2, seed=7, epoch=3, buffer=160
    )
    assert [order[step].tolist() for step in range(2)] == [[15, 4, 3, 16], [25, 18, 19, 17]]


def test_no_such_step() -> None:
    order = GroupOrder(
        torch.arange(9), np.array([0, 9]), batch_size=4, data_shard=0, num_data_shards=1, seed=0, epoch=0
    )
    assert sum(len(samples) for samples in order) == 8
    for step in (-1, 2):
        with pytest.raises(IndexError):
            order[step]


def test_every_sample_is_equally_likely_in_a_first_batch() -> None:
    """Over epochs: chi square of how often each of 40 samples is in the first batch of ten."""
    counts = np.zeros(40)
    for epoch in range(1000):
        order = GroupOrder(
            torch.arange(40), np.arange(9) * 5, batch_size=10, data_shard=0, num_data_shards=1, seed=1, epoch=epoch
        )
        counts[order[0].numpy()] += 1
    assert abs(counts / 1000 - 0.25).max() < 0.08


def test_loader_workers_that_share_no_lane() -> None:
    assert [fitting_workers(num) for num in (0, 1, 3, 4, 12, 15, 16, 64)] == [0, 1, 2, 4, 8, 8, 16, 16]


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=20), seed=st.integers(0, 99), data=st.data())
def test_held_out_groups(sizes: list[int], seed: int, data: st.DataObject) -> None:
    groups = np.cumsum([0, *sizes])
    total = int(groups[-1])
    if total == 0:
        return
    count = data.draw(st.integers(0, total - 1))
    kept, held = holdout(total, count, seed, groups)
    assert len(held) == count
    assert sorted(kept.tolist() + held.tolist()) == list(range(total))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    both = set(np.searchsorted(groups, kept.numpy(), side="right")) & set(
        np.searchsorted(groups, held.numpy(), side="right")
    )
    assert len(both) <= 1  # no group but one is in both


def test_more_held_out_than_there_are() -> None:
    with pytest.raises(ValueError, match="cannot hold out 9 of 9 training samples; allowed: 0 to 8"):
        holdout(9, 9, 0, np.array([0, 4, 9]))
