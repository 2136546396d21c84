"""Digests see every bit, and a rank that differs stops all ranks by name."""

import hashlib
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.digest import digest_tensors, summary
from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.distributed.digest import check_replicas, fast_digests
from inq_ray.distributed.wire import rank
from tests.distributed.networks import all_tensors, apply_all, decide_all, make_network, make_states
from tests.ranks import rank_outcomes, run_ranks


def digest(tensor: Tensor) -> tuple[str, str]:
    """The digest that is published, and the one that is compared and dropped."""
    return digest_tensors({"x": tensor})["x"], fast_digests({"x": tensor})["x"]


def test_a_digest_knows_dtype_shape_and_every_bit_but_no_memory_format() -> None:
    weight = torch.randn(4, 3, 2, 2)
    assert digest(weight) == digest(weight.to(memory_format=torch.channels_last)) == digest(weight.clone())
    assert digest(weight.mT) == digest(weight.mT.contiguous())
    others = [
        weight.view(3, 4, 2, 2),
        weight.view(torch.int32),
        weight.double(),
        torch.tensor(0.0),
        torch.tensor(-0.0),
        torch.tensor([0.0]),
        torch.tensor([False, False]),
        torch.tensor([False, True]),
        torch.empty(0),
        torch.empty(0, 3),
        torch.zeros(2, dtype=torch.bfloat16),
        torch.tensor(0, dtype=torch.int64),
    ]
    for digests in zip(*map(digest, [weight, *others]), strict=True):
        assert len(set(digests)) == len(others) + 1


@given(st.integers(0, 5), st.integers(0, 31))
def test_one_flipped_bit_changes_the_digest(place: int, bit: int) -> None:
    weight = torch.arange(6, dtype=torch.float32)
    flipped = weight.clone()
    flipped.view(torch.int32)[place] ^= (1 << bit) if bit < 31 else -(1 << 31)
    assert all(one != other for one, other in zip(digest(weight), digest(flipped), strict=True))


def test_published_digests_are_sha256_of_dtype_shape_and_bytes() -> None:
    due = hashlib.sha256(b"torch.float32 [2, 1]\n" + struct.pack("<2f", 1.0, -0.0)).hexdigest()
    assert digest(torch.tensor([[1.0], [-0.0]]))[0] == due
    assert len(digest(torch.tensor(1))[1]) == 32, "128 bits"


def test_the_summary_depends_on_names_and_digests_but_not_on_their_order() -> None:
    assert summary({"a": "1", "b": "2"}) == summary({"b": "2", "a": "1"})
    assert len({summary({"a": "1", "b": "2"}), summary({"a": "2", "b": "1"}), summary({"a": "1"}), summary({})}) == 4


def check_with_a_fault(fault: str, faulty_rank: int) -> str:
    """All ranks hold the same network with one stage applied, but for one bit on one rank."""
    network = make_network(seed=0)
    states = make_states(network)
    apply_all(network, states, decide_all(network, states, stage=0))
    tensors = all_tensors(network, states)
    if rank() == faulty_rank:
        match fault:
            case "0.weight" | "3.bias" | "1.running_var":
                tensors[fault].data.view(torch.int32).view(-1)[1] ^= 1
            case "3.weight/frozen":
                tensors[fault].view(-1)[7] ^= True
            case "3.weight/codes":
                tensors[fault].view(-1)[7] ^= 1
            case "0.weight/codebook":
                tensors[fault][1] += 1
            case "1.num_batches_tracked":
                tensors[fault] += 1
            case "1.running_mean":
                del tensors[fault]
            case "3.other":
                tensors[fault] = torch.zeros(1)
            case "1.bias":  # equal as numbers, but not as bits
                tensors[fault][0] = -0.0
    check_replicas(tensors, stage=1, what="replicas")
    return summary(digest_tensors(tensors))


FAULTS = [
    "0.weight",
    "3.bias",
    "1.running_var",
    "3.weight/frozen",
    "3.weight/codes",
    "0.weight/codebook",
    "1.num_batches_tracked",
    "1.running_mean",
    "3.other",
    "1.bias",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rank_that_differs_stops_every_rank_naming_tensor_and_rank(fault: str) -> None:
    for outcome in rank_outcomes(check_with_a_fault, 3, fault, 1):
        assert isinstance(outcome.error, ReplicaMismatchError), outcome
        assert (outcome.error.stage, outcome.error.tensor, outcome.error.ranks) == (1, fault, (1,))
        assert outcome.error.num_tensors == 1
        assert repr(fault) in str(outcome.error)
        assert "ranks [1]" in str(outcome.error)


@pytest.mark.parametrize(("size", "faulty", "named"), [(2, 0, (1,)), (2, 1, (1,)), (3, 0, (0,)), (4, 3, (3,))])
def test_the_minority_is_named_and_of_two_ranks_the_second(size: int, faulty: int, named: tuple[int, ...]) -> None:
    for outcome in rank_outcomes(check_with_a_fault, size, "0.weight", faulty):
        assert isinstance(outcome.error, ReplicaMismatchError), outcome
        assert outcome.error.ranks == named


def test_equal_replicas_return_the_same_summary_at_every_world_size() -> None:
    alone = check_with_a_fault("none", -1)
    for size in (1, 2, 3, 4):
        assert run_ranks(check_with_a_fault, size, "none", -1) == [alone] * size
