"""Collectives on 1 to 4 ranks, and without a process group."""

import pytest
import torch

from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.distributed.replica import broadcast_tensors, largest, of_rank_0, sum_counts
from inq_ray.distributed.wire import broadcast_bytes, bytes_to_tensor, gather_bytes, rank, tensor_to_bytes, world_size
from tests.ranks import rank_outcomes, run_ranks

SIZES = (1, 2, 3, 4)


def network(seed: int) -> dict[str, torch.Tensor]:
    """All dtypes that a network may hold, an empty tensor, a scalar, and one in channels_last."""
    generator = torch.Generator().manual_seed(seed)
    conv = torch.randn(8, 3, 3, 3, generator=generator)
    return {
        "conv": conv.to(memory_format=torch.channels_last),
        "half": conv.bfloat16(),
        "double": conv.double(),
        "flags": conv > 0,
        "codes": torch.randint(0, 32, (5, 7), dtype=torch.uint8, generator=generator),
        "count": torch.tensor(seed),
        "empty": torch.empty(0, 3),
        "special": torch.tensor([-0.0, float("nan"), float("inf")]) * (1 if seed else -1),
        "parameter": torch.nn.Parameter(torch.randn(100, 7, generator=generator)),
        "transposed": torch.randn(6, 4, generator=generator).T,
    }


def as_bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().contiguous().numpy(force=True).tobytes() for name, tensor in floats(tensors).items()}


def floats(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().float() if t.dtype == torch.bfloat16 else t for name, t in tensors.items()}


def broadcast_networks(bucket_bytes: int) -> tuple[dict[str, bytes], bool]:
    tensors = network(seed=rank())
    if rank() == 1:  # another order of names and another memory format must not matter
        tensors = dict(reversed(tensors.items()))
        tensors["conv"] = tensors["conv"].contiguous()
    places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    broadcast_tensors(tensors, bucket_bytes=bucket_bytes)
    in_place = all(tensor.data_ptr() == places[name] for name, tensor in tensors.items())
    return as_bytes(tensors), in_place


@pytest.mark.parametrize("bucket_bytes", [1, 300, 25_000_000])
@pytest.mark.parametrize("size", SIZES)
def test_broadcast_gives_every_rank_the_bits_of_rank_0_in_place(size: int, bucket_bytes: int) -> None:
    expected = as_bytes(network(seed=0))
    for received, in_place in run_ranks(broadcast_networks, size, bucket_bytes):
        assert received == expected
        assert in_place


def broadcast_other_shapes() -> None:
    broadcast_tensors({"weight": torch.zeros(3 if rank() == 1 else 4), "bias": torch.zeros(4)})


def test_other_shapes_are_an_error_on_every_rank_and_no_hang() -> None:
    for outcome in rank_outcomes(broadcast_other_shapes, 3):
        assert isinstance(outcome.error, ReplicaMismatchError)
        assert (outcome.error.tensor, outcome.error.ranks) == ("weight", (1,))


def exchange() -> tuple[int, int, bytes, list[bytes], list[int], list[int]]:
    message = bytes_to_tensor(b"from rank 0") if rank() == 0 else None
    received = tensor_to_bytes(broadcast_bytes(message))
    nothing = broadcast_bytes(torch.empty(0, dtype=torch.uint8) if rank() == 0 else None)
    assert nothing.numel() == 0
    assert gather_bytes(b"") == [b""] * world_size()
    counts = torch.tensor([2**60 + rank(), 1])
    total = sum_counts(counts)
    return rank(), world_size(), received, gather_bytes(b"x" * rank()), total.tolist(), counts.tolist()


@pytest.mark.parametrize("size", SIZES)
def test_bytes_and_counts_travel_exactly(size: int) -> None:
    for place, answer in enumerate(run_ranks(exchange, size)):
        total = [size * 2**60 + sum(range(size)), size]
        gathered = [b"x" * r for r in range(size)]
        assert answer == (place, size, b"from rank 0", gathered, total, [2**60 + place, 1])


def test_without_a_process_group_everything_is_a_no_op() -> None:
    assert exchange() == (0, 1, b"from rank 0", [b""], [2**60, 1], [2**60, 1])
    tensors = network(seed=0)
    before = as_bytes(tensors)
    broadcast_tensors(tensors)
    assert as_bytes(tensors) == before


def largest_and_first() -> tuple[list[float], list[float], list[float]]:
    values = torch.tensor([float(rank()), -float(rank()), 5.0], dtype=torch.float64)
    given = values.clone()
    answers = largest(values), of_rank_0(values)
    assert values.equal(given)
    return answers[0].tolist(), answers[1].tolist(), given.tolist()


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_and_those_of_rank_0_are_everybodys(size: int) -> None:
    for place, (most, first, given) in enumerate(run_ranks(largest_and_first, size)):
        assert most == [size - 1, 0.0, 5.0]
        assert first == [0.0, 0.0, 5.0]
        assert given[0] == place


def test_without_a_process_group_values_are_ones_own() -> None:
    values = torch.tensor([3.0, 4.0])
    for exchanged in (largest(values), of_rank_0(values)):
        assert exchanged.equal(values)
        assert exchanged.data_ptr() != values.data_ptr()
