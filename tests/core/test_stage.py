import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.channels import Per
from inq_ray.core.codebook import Codebook, Levels, Rule
from inq_ray.core.portions import num_frozen
from inq_ray.core.stage import StageUpdate, apply, compensated, decide, restore
from inq_ray.core.state import TensorState
from tests.core.test_channels import ANY_LEVELS, ANY_PER
from tests.core.weights import DTYPES, bits, equation_4, weights

PORTIONS = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.75, 0.8, 0.875, 0.975]), min_size=1, max_size=5, unique=True)
STRATEGIES: st.SearchStrategy[str] = st.sampled_from(["pruning", "random"])


def run_stage(
    weight: Tensor,
    state: TensorState,
    portion: float,
    *,
    strategy: str = "pruning",
    stage: int = 0,
    rule: Rule = "max",
) -> StageUpdate:
    update = decide(weight, state, portion, name="w", strategy=strategy, seed=0, stage=stage, rule=rule)
    apply(weight, state, update)
    return update


def rows_of(state: TensorState, *tensors: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Codebook]]:
    """Return the rows of three tensors with the codebook of each, or the whole tensors where there is one."""
    if isinstance(state.codebook, Codebook):
        return [(*tensors, state.codebook)]
    return list(zip(*tensors, state.codebook.channels, strict=True))


@given(weights(), PORTIONS, st.integers(2, 8), STRATEGIES, st.sampled_from([0.1, 1.7, 3.0]), ANY_LEVELS, ANY_PER)
def test_stages_freeze_exactly_the_portion_for_ever_at_levels(
    weight: Tensor, portions: list[float], num_bits: int, strategy: str, growth: float, levels: Levels, per: Per
) -> None:
    """Properties 1 to 3 of the design: counts, bits of frozen weights, codebook; live weights move between stages."""
    state = TensorState.live(weight, num_bits, levels, per)
    for stage, portion in enumerate([*sorted(portions), 1.0]):
        before, frozen_before = weight.clone(), state.frozen.clone()
        update = decide(weight, state, portion, name="w", strategy=strategy, seed=0, stage=stage)
        assert bits(weight) == bits(before), "deciding changes nothing"
        apply(weight, state, update)
        assert state.num_frozen == num_frozen(portion, weight.numel())
        assert not bool((frozen_before & ~state.frozen).any()), "the frozen set only grows"
        assert torch.equal(update.newly_frozen, state.frozen & ~frozen_before)
        assert bits(weight[frozen_before]) == bits(before[frozen_before]), "frozen weights keep their bits"
        assert bits(weight[~state.frozen]) == bits(before[~state.frozen]), "live weights keep theirs"
        newly = update.newly_frozen
        for row, row_before, row_newly, codebook in rows_of(state, weight, before, newly):
            assert row[row_newly].tolist() == [equation_4(value, codebook) for value in row_before[row_newly].tolist()]
        assert bits(state.codebook.decode(state.codes, weight.dtype)[state.frozen]) == bits(weight[state.frozen])
        assert not bool(state.codes[~state.frozen].any())
        weight.copy_(torch.where(state.frozen, weight, weight * growth))
    assert bool(state.frozen.all())
    assert set(weight.reshape(-1).tolist()) <= set(state.codebook.values())


@given(weights(), STRATEGIES)
def test_memory_format_and_device_layout_do_not_matter(weight: Tensor, strategy: str) -> None:
    weight = weight.reshape(-1)[: weight.numel() // 4 * 4].reshape(-1, 2, 2, 1)
    last = weight.clone(memory_format=torch.channels_last)
    states = [TensorState.live(weight, 5), TensorState.live(last, 5)]
    for stage, portion in enumerate([0.5, 1.0]):
        for tensor, state in zip((weight, last), states, strict=True):
            run_stage(tensor, state, portion, strategy=strategy, stage=stage)
        assert bits(weight) == bits(last)
        assert torch.equal(states[0].frozen, states[1].frozen)
        assert torch.equal(states[0].codes, states[1].codes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_codebook_stays_that_of_the_first_stage(dtype: torch.dtype) -> None:
    weight = torch.tensor([1.0, 0.5, 0.25, -0.25], dtype=dtype)
    state = TensorState.live(weight, 4)
    run_stage(weight, state, 0.25)
    assert (weight[0].item(), state.codebook) == (1.0, Codebook(num_bits=4, n_1=0))
    weight[1], weight[2] = 1.6, -300.0
    run_stage(weight, state, 1.0, stage=1)
    assert state.codebook == Codebook(num_bits=4, n_1=0)
    assert weight.tolist() == [1.0, 1.0, -1.0, -0.25]


def test_the_codebook_of_least_error_stays_that_of_the_first_stage_too() -> None:
    weight = torch.cat([torch.full((95,), 0.25), torch.full((5,), 1.0)])
    state = TensorState.live(weight, 2)
    run_stage(weight, state, 0.5, rule="mse")
    assert state.codebook == Codebook.for_weight(weight, 2, "mse") == Codebook(num_bits=2, n_1=-2)
    weight[~state.frozen] = 8.0
    run_stage(weight, state, 1.0, stage=1, rule="mse")
    assert state.codebook == Codebook(num_bits=2, n_1=-2)
    assert set(weight.tolist()) == {0.25}


def test_a_tensor_of_zeros_freezes_at_zero_and_gets_a_codebook_when_it_grows() -> None:
    weight = torch.zeros(8)
    weight[7] = -0.0
    state = TensorState.live(weight, 3)
    run_stage(weight, state, 0.5)
    assert state.codebook.n_1 is None
    assert state.num_frozen == 4
    weight[4:] = torch.tensor([0.3, -0.1, 0.01, 0.2])
    run_stage(weight, state, 1.0, stage=1)
    assert state.codebook.n_1 == -2
    assert weight.tolist() == [0.0] * 4 + [0.25, -0.125, 0.0, 0.25]
    assert not bool(weight[:4].signbit().any())


def test_tensors_without_elements_and_of_one_element() -> None:
    for weight, expected in ((torch.empty(0, 3), []), (torch.tensor([0.7]), [0.5])):
        state = TensorState.live(weight, 5)
        for stage, portion in enumerate((0.4, 1.0)):
            run_stage(weight, state, portion, stage=stage)
        assert weight.flatten().tolist() == expected
        assert bool(state.frozen.all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_name_the_tensor_and_change_nothing(bad: float) -> None:
    weight = torch.tensor([1.0, bad, 0.5])
    state = TensorState.live(weight, 5)
    with pytest.raises(ValueError, match=r"^layer1\.conv\.weight: weights are NaN or infinite"):
        decide(weight, state, 0.5, name="layer1.conv.weight", strategy="pruning", seed=0, stage=0)
    assert state.num_frozen == 0


def test_a_portion_that_is_reached_freezes_nothing_more() -> None:
    weight = torch.arange(10.0)
    state = TensorState.live(weight, 5)
    run_stage(weight, state, 0.5)
    update = run_stage(weight, state, 0.5, stage=1)
    assert not bool(update.newly_frozen.any())


def test_restore_writes_frozen_weights_only() -> None:
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    state = TensorState.live(weight, 5)
    run_stage(weight, state, 0.5)
    other = torch.full((100,), math.nan)
    restore(other, state)
    assert bits(other[state.frozen]) == bits(weight[state.frozen])
    assert bool(other[~state.frozen].isnan().all())


def test_freezing_twice_is_a_fault_of_ours() -> None:
    weight = torch.arange(4.0)
    state = TensorState.live(weight, 5)
    update = run_stage(weight, state, 0.5)
    with pytest.raises(AssertionError, match="frozen again"):
        apply(weight, state, update)


def test_parameters_keep_their_storage_and_need_no_gradient_mode() -> None:
    param = torch.nn.Parameter(torch.randn(20, generator=torch.Generator().manual_seed(0)))
    address = param.data_ptr()
    run_stage(param, TensorState.live(param, 5), 1.0)  # type: ignore[arg-type]
    assert param.data_ptr() == address
    assert param.requires_grad
    assert param.is_leaf


@given(st.integers(0, 2**31), st.sampled_from([1, 3]), ANY_LEVELS, ANY_PER, st.sampled_from(DTYPES))
def test_compensated_stages_change_outputs_less_and_leave_frozen_weights_alone(
    seed: int, groups: int, levels: Levels, per: Per, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(groups, 60, 12, generator=generator, dtype=torch.float64)
    inputs = inputs @ torch.randn(groups, 12, 12, generator=generator, dtype=torch.float64)
    moments = inputs.transpose(1, 2) @ inputs / 60
    weight = (torch.randn(6, 12, generator=generator) * 0.3).to(dtype)
    other, state = weight.clone(), TensorState.live(weight, 3, levels, per)

    def error(of: Tensor, before: Tensor) -> float:
        change = (of.double() - before.double()).reshape(groups, -1, 12)
        return float(((change @ moments) * change).sum())

    for stage, portion in enumerate([0.5, 0.8, 1.0]):
        before, frozen, other_state = weight.clone(), state.frozen.clone(), copy.deepcopy(state)
        update = decide(weight, state, portion, name="w", strategy="pruning", seed=0, stage=stage)
        found = compensated(weight, state, update, moments)
        other.copy_(weight)
        apply(other, other_state, update)
        apply(weight, state, found)
        assert torch.equal(state.frozen, other_state.frozen)
        assert bits(weight[frozen]) == bits(before[frozen])
        assert bits(state.codebook.decode(state.codes, dtype)[state.frozen]) == bits(weight[state.frozen])
        assert portion == 1 or error(weight, before) <= error(other, before)
        assert found.moved is None if portion == 1 else found.moved is not None
    assert bool(state.frozen.all())
