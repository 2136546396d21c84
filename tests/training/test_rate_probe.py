"""The learning rate that short trials find, and that nothing else remains of them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training import stages
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.config import RunConfig
from inq_ray.training.rate_probe import RATES, find_rate
from inq_ray.training.report.events import Note
from inq_ray.training.run_state import RunState
from tests.ranks import run_ranks
from tests.training.runs import configured, needs_digits, run_here, run_in_parts


@given(st.integers(0, 7), st.integers(0, 7))
def test_it_goes_downhill_to_the_least_loss(first: int, best: int) -> None:
    tried = find_rate(lambda rate: abs(RATES.index(rate) - best), RATES, first)
    assert next(iter(tried)) == RATES[best]
    assert list(tried.values()) == sorted(tried.values())
    assert len(tried) <= abs(first - best) + 3, "rates on the way, and the neighbors of both ends"


@given(st.lists(st.sampled_from([0.5, 1.0, math.inf, math.nan]), min_size=8, max_size=8), st.integers(0, 7))
def test_it_ends_where_no_neighbor_is_better(losses: list[float], first: int) -> None:
    asked: list[float] = []

    def loss_of(rate: float) -> float:
        asked.append(rate)
        return losses[RATES.index(rate)]

    tried = find_rate(loss_of, RATES, first)
    assert sorted(asked) == sorted(tried), "none is tried twice"
    best = next(iter(tried))
    assert all(loss >= tried[best] for loss in tried.values())
    assert all(each in tried for each in neighbors(best)) or math.isinf(tried[best])


def neighbors(rate: float) -> list[float]:
    index = RATES.index(rate)
    return [RATES[each] for each in (index - 1, index + 1) if 0 <= each < len(RATES)]


def test_of_equal_losses_the_lowest_rate_is_kept_and_divergence_leads_down() -> None:
    assert next(iter(find_rate(lambda _: 1.0, RATES, 4))) == RATES[0]
    assert next(iter(find_rate(lambda rate: math.nan if rate > 0.0005 else rate, RATES, 4))) == RATES[0]
    assert next(iter(find_rate(lambda _: math.inf, RATES, 4))) == RATES[0]


def probing(storage: Path, name: str, **training: Any) -> RunConfig:
    return configured(
        storage, name, training={"lr_probe": True, "distill": True, **training}, quantization={"compensate": True}
    )


@needs_digits
@pytest.mark.system
def test_the_run_is_that_of_the_rate_it_found(tmp_path: Path) -> None:
    """Nothing but the rate remains of the trials: weights, buffers, momentum, random numbers."""
    probed = run_here(probing(tmp_path, "probed"))
    lr = probed.summary["found_lr"]
    assert lr in RATES
    (note,) = [each.text for each in probed.told.events if isinstance(each, Note) and "learning rate" in each.text]
    assert note.startswith(f"learning rate {lr:g}, found by short trials: loss ")
    assert {row.lr for row in probed.told.rows if row.stage and row.epoch == 1} == {lr}
    given = run_here(probing(tmp_path, "given", lr_probe=False, lr=lr))
    assert given.summary["found_lr"] is None
    assert given.summary["digest"] == probed.summary["digest"]


@needs_digits
@pytest.mark.system
def test_a_run_that_is_stopped_keeps_its_rate(tmp_path: Path) -> None:
    calm = run_here(probing(tmp_path, "calm"))
    stopped = probing(tmp_path, "stopped")

    def once(*args: Any, **kwargs: Any) -> Any:
        assert store_of(stopped).newest_good().entry is None or begun == [], "found again after the first stage began"
        begun.append(1)
        return find(*args, **kwargs)

    find, begun = stages.probe_rate, list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "probe_rate", once)
        digest, _ = run_in_parts(stopped, [(1, 1, 3), (2, 2, 2)])
    assert begun == [1]
    assert digest == calm.summary["digest"]


@needs_digits
@pytest.mark.system
def test_the_network_is_as_before_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    find = stages._find_lr

    def watched(run: RunState, *args: Any) -> None:
        model = run.task.model
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        mode = model.training
        find(run, *args)
        after = model.state_dict()
        assert model.training == mode
        assert all(param.grad is None and param.requires_grad for param in model.parameters())
        seen.extend(torch.equal(after[name], tensor) for name, tensor in before.items())

    monkeypatch.setattr(stages, "_find_lr", watched)
    run_here(probing(tmp_path, "watched"))
    assert seen
    assert all(seen)


def on_ranks(size: int, storage: Path) -> list[str]:
    return [run_here(probing(storage, "ranks")).summary["digest"]]


@needs_digits
@pytest.mark.system
@pytest.mark.long
def test_all_ranks_find_the_same_rate(tmp_path: Path) -> None:
    """Otherwise their weights would differ, which ends the run."""
    assert len({digest for rank in run_ranks(on_ranks, 2, 2, tmp_path) for digest in rank}) == 1
