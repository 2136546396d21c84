import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.partition import STRATEGIES, check_strategy, partition
from tests.core.weights import weights


@given(weights(), st.data())
def test_pruning_takes_the_largest_live_and_of_equal_ones_the_first(weight: Tensor, data: st.DataObject) -> None:
    n = weight.numel()
    frozen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))).view(weight.shape)
    live = [place for place in range(n) if not frozen.view(-1)[place]]
    count = data.draw(st.integers(0, len(live)))
    chosen = partition(weight, frozen, count, strategy="pruning", seed=0, stage=0, name="w")
    flat = weight.reshape(-1).abs().tolist()
    expected = sorted(live, key=lambda place: (-flat[place], place))[:count]
    assert chosen.shape == weight.shape
    assert sorted(expected) == chosen.view(-1).nonzero().view(-1).tolist()


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_equal_weights_are_taken_from_the_first_on(value: float) -> None:
    weight = torch.full((10, 10), value)
    frozen = torch.zeros(10, 10, dtype=torch.bool)
    frozen[0] = True
    chosen = partition(weight, frozen, 37, strategy="pruning", seed=0, stage=0, name="w")
    assert chosen.view(-1).nonzero().view(-1).tolist() == list(range(10, 47))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_format_does_not_matter(strategy: str) -> None:
    weight = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    frozen = torch.zeros(weight.shape, dtype=torch.bool)
    plain, last = (
        partition(w, frozen, 50, strategy=strategy, seed=3, stage=1, name="w")
        for w in (weight, weight.to(memory_format=torch.channels_last))
    )
    assert torch.equal(plain, last)


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(ValueError, match=f"strategy must be one of {', '.join(STRATEGIES)}, got 'largest'"):
        check_strategy("largest")
