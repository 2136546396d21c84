"""Compensation against least squares by brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core import compensation
from inq_ray.core.codebook import Codebook
from inq_ray.core.compensation import compensate, damped, round_in_turn


def problem(seed: int, groups: int = 1, rows: int = 4, n: int = 9, samples: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows [groups, rows, n], inputs that depend on each other [groups, samples, n], and their moments."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(groups, n, n, generator=generator, dtype=torch.float64)
    inputs = torch.randn(groups, samples, n, generator=generator, dtype=torch.float64) @ mixed
    weight = torch.randn(groups, rows, n, generator=generator, dtype=torch.float64)
    return weight, inputs, inputs.transpose(1, 2) @ inputs / samples


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3]), st.sampled_from([0.1, 0.5, 0.9]))
def test_live_weights_move_as_least_squares_has_it(seed: int, groups: int, portion: float) -> None:
    weight, inputs, moments = problem(seed, groups)
    generator = torch.Generator().manual_seed(seed + 1)
    state = torch.rand(weight.shape, generator=generator)
    live, changed = state > portion, state < portion / 2  # the rest is frozen, and does not change
    change = Codebook(3, 0).quantize(weight).sub(weight) * changed
    with pytest.MonkeyPatch.context() as patch:
        moved = compensate(change, live, moments)
        patch.setattr(compensation, "_TOLERANCE", 1e-9)
        exact = compensate(change, live, moments)
    assert not bool(moved[~live].any())
    for group in range(groups):
        for row in range(weight.shape[1]):
            free = live[group, row]
            used, target = inputs[group][:, free], -inputs[group] @ change[group, row]
            best = torch.linalg.lstsq(used, target.unsqueeze(-1)).solution.squeeze(-1)
            solutions = (best, exact[group, row, free], moved[group, row, free])
            least, found, nearly = (float((used @ each - target).square().sum()) for each in solutions)
            assert found <= least + 1e-6 * float(target.square().sum())
            assert nearly <= least + 1e-3 * float(target.square().sum())


def by_elimination(row: Tensor, moments: Tensor, live: list[int], codebook: Codebook) -> Tensor:
    """Round one after the other; those to come move to where the output changes least, solved anew each time."""
    target, now, left = row.clone(), row.clone(), list(live)
    while left:
        now[left[0]] = codebook.quantize(now[left[0]])
        done, left = [at for at in range(len(row)) if at not in left[1:]], left[1:]
        if left:
            error = (now - target)[done]
            now[left] = target[left] - torch.linalg.solve(moments[left][:, left], moments[left][:, done] @ error)
    return now


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(2, 100))
def test_columns_are_rounded_as_if_the_rest_were_solved_for_after_each(
    seed: int, groups: int, frozen: float, n: int
) -> None:
    n = min(n, 12) if seed % 8 else n  # some are wider than a block
    weight, _, moments = problem(seed, groups, n=n, samples=3 * n)
    live = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) >= frozen
    codebook = Codebook(3, 0, "full")
    rounded = round_in_turn(weight, moments, codebook.quantize, live)
    for group in range(groups):
        order = moments[group].diagonal().argsort(descending=True, stable=True).tolist()
        for row in range(weight.shape[1]):
            free = [at for at in order if live[group, row, at]]
            expected = by_elimination(weight[group, row], moments[group], free, codebook)
            assert rounded[group, row].tolist() == expected.tolist()


def test_rounding_in_turn_changes_outputs_less_than_rounding_alone() -> None:
    weight, _, moments = problem(0, rows=64, n=200, samples=600)
    weight *= 0.4
    codebook = Codebook(3, 0)
    alone, in_turn = codebook.quantize(weight), round_in_turn(weight, damped(moments), codebook.quantize)
    assert set(in_turn.reshape(-1).tolist()) <= set(codebook.values())

    def error(rounded: Tensor) -> float:
        change = rounded - weight
        return float((change @ moments * change).sum())

    assert error(in_turn) < 0.6 * error(alone)


@pytest.mark.parametrize("num_dead", [0, 3, 9])
def test_dead_and_dependent_inputs_do_not_matter(num_dead: int) -> None:
    weight, inputs, _ = problem(1)
    inputs[..., 3] = inputs[..., 4]
    inputs[..., :num_dead] = 0
    moments = damped(inputs.transpose(1, 2) @ inputs)
    live = torch.ones_like(weight, dtype=torch.bool)
    live[..., 4:6] = False
    moved = compensate(torch.where(live, 0, weight), live, moments)
    assert moved.isfinite().all()
    assert not bool(moved[..., : min(num_dead, 4)].any())
    assert round_in_turn(weight, moments, Codebook(2, 0).quantize).isfinite().all()
