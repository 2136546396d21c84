"""A stage goes over the wire and comes out the same; its bytes are counted; rank 0's failure is everybody's."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.core.channels import PERS, Per, decided, undecided
from inq_ray.core.codebook import LEVELS, Levels
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.core.stage import StageUpdate, apply, decide
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.distributed.broadcast import StageError, broadcast_stage, deal, decode, encode
from inq_ray.distributed.digest import check_replicas
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import rank, world_size
from tests.core.weights import DTYPES, bits
from tests.distributed.networks import PORTIONS, all_tensors, apply_all, decide_all, make_network, make_states, retrain
from tests.ranks import rank_outcomes, run_ranks


def assert_same(update: StageUpdate, other: StageUpdate) -> None:
    assert update.codebook == other.codebook
    assert torch.equal(update.newly_frozen, other.newly_frozen)
    assert torch.equal(update.codes, other.codes)
    assert (update.moved is None) == (other.moved is None)
    if update.moved is not None and other.moved is not None:
        assert update.moved.dtype == other.moved.dtype
        assert bits(update.moved) == bits(other.moved)
    assert (other.newly_frozen.dtype, other.codes.dtype) == (torch.bool, torch.uint8)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    num_bits=st.integers(2, 8),
    frozen_before=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    newly=st.sampled_from([0.0, 0.3, 1.0]),
    is_zero=st.booleans(),
    seed=st.integers(0, 2**31),
    levels=st.sampled_from(LEVELS),
    per=st.sampled_from(PERS),
    moves=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_decode_gives_back_what_was_encoded(
    shape: list[int],
    num_bits: int,
    frozen_before: float,
    newly: float,
    is_zero: bool,
    seed: int,
    levels: Levels,
    per: Per,
    moves: bool,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(shape) if is_zero else torch.randn(shape, generator=generator)
    states = {name: TensorState.live(weight, num_bits) for name in ("a", "b", "not updated")}
    updates = {}
    for name in ("b", "a"):
        states[name].frozen |= torch.rand(shape, generator=generator) < frozen_before
        chosen = (torch.rand(shape, generator=generator) < newly) & ~states[name].frozen
        codebook = decided(undecided(weight, num_bits, levels, per), weight)
        moved = (weight * 1.1).masked_fill(states[name].frozen | chosen, 0.0).to(dtype) if moves else None
        updates[name] = StageUpdate(codebook, chosen, codebook.encode(weight) * chosen, moved)
    decoded = decode(encode(updates, states, None, stage=3), states)
    assert decoded.keys() == updates.keys()
    for name, update in updates.items():
        assert_same(update, decoded[name])


@pytest.mark.parametrize("num_bits", [2, 3, 4, 5])
def test_bytes_on_the_wire_per_newly_frozen_weight(num_bits: int) -> None:
    """(num_bits + 2) / 8 where a stage freezes half of the live weights, num_bits / 8 at the last; header apart."""
    num_weights = 64_000
    weight = torch.randn(num_weights // 64, 64, generator=torch.Generator().manual_seed(0))
    states = {"layer1.0.conv1.weight": TensorState.live(weight, num_bits)}
    (name, state) = next(iter(states.items()))
    frozen_before = 0.0
    for stage, portion in enumerate(PORTIONS):
        update = decide(weight, state, portion, name=name, strategy="pruning", seed=0, stage=stage)
        num_newly = round((portion - frozen_before) * num_weights)
        num_bytes = len(encode({name: update}, states, None, stage=stage))
        bits_each = num_bits + (2 if portion < 1 else 0)
        assert num_newly * bits_each / 8 <= num_bytes <= num_newly * bits_each / 8 + 100
        apply(weight, state, update)
        frozen_before = portion


def quantize_all_stages(is_dealt: bool) -> list[str]:
    """Rank 0's network wins whatever the others begin with; the summary after each stage."""
    network = make_network(seed=rank())
    states = make_states(network)
    summaries = []
    for stage in range(len(PORTIONS)):
        broadcast_tensors(network.state_dict())
        deciders = deal({name: state.frozen.numel() for name, state in states.items()}, world_size() if is_dealt else 1)
        updates = {name: each for name, each in decide_all(network, states, stage).items() if deciders[name] == rank()}
        apply_all(network, states, broadcast_stage(updates, states, stage=stage))
        tensors = all_tensors(network, states)
        check_replicas(tensors, stage=stage, what="replicas")
        summaries.append(summary(digest_tensors(tensors)))
        retrain(network, states)
    return summaries


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_masks_and_codes_are_the_same_bits_on_any_number_of_ranks(size: int) -> None:
    alone = quantize_all_stages(is_dealt=True)  # in this process, without a process group
    assert len(set(alone)) == len(PORTIONS)
    for is_dealt in (True, False):
        assert run_ranks(quantize_all_stages, size, is_dealt) == [alone] * size


@given(st.lists(st.integers(0, 1000), max_size=12), st.integers(1, 5))
def test_no_rank_has_more_than_its_share_and_a_tensor_to_do(costs: list[int], num_ranks: int) -> None:
    named = {str(at): cost for at, cost in enumerate(costs)}
    ranks = deal(named, num_ranks)
    assert ranks.keys() == named.keys()
    loads = [sum(cost for name, cost in named.items() if ranks[name] == each) for each in range(num_ranks)]
    assert max(loads) <= sum(costs) / num_ranks + max(costs, default=0)


def fail_on_rank_0() -> None:
    network = make_network(seed=0)
    states = make_states(network)
    updates, error = None, None
    if rank() == 0:
        with torch.no_grad():
            network.get_parameter("3.weight")[2, 1] = float("nan")
        try:
            updates = decide_all(network, states, stage=0)
        except ValueError as caught:
            error = str(caught)
    broadcast_stage(updates, states, error, stage=0)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_an_error_on_rank_0_is_raised_on_all_ranks(size: int) -> None:
    for outcome in rank_outcomes(fail_on_rank_0, size):
        assert isinstance(outcome.error, StageError), outcome
        assert outcome.error.stage == 0
        assert "3.weight" in outcome.error.message
        assert "NaN" in str(outcome.error)
    with pytest.raises(StageError, match=r"3\.weight"):
        fail_on_rank_0()


def share_with_other_states() -> None:
    network = make_network(seed=0)
    states = make_states(network)
    if rank() == 2:
        states["3.weight"].frozen[0, 0] = True
    broadcast_stage(decide_all(network, states, stage=0) if rank() == 0 else None, states, stage=0)


def test_ranks_that_have_frozen_other_numbers_of_weights_stop_together() -> None:
    for outcome in rank_outcomes(share_with_other_states, 3):
        assert isinstance(outcome.error, ReplicaMismatchError), outcome
        assert (outcome.error.tensor, outcome.error.ranks) == ("3.weight", (2,))


def test_the_error_pickles() -> None:
    error = pickle.loads(pickle.dumps(StageError(2, "conv1.weight has NaN")))  # noqa: S301, our own
    assert (error.stage, error.message, str(error)) == (2, "conv1.weight has NaN", "stage 2: conv1.weight has NaN")
