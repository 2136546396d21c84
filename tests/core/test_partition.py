import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inq_ray.core.codebook import Codebook
from inq_ray.core.partition import STRATEGIES, Strategy, check_strategy, choose, largest
from tests.core.weights import equation_4, weights

CODEBOOK = Codebook(num_bits=5, n_1=0)


def random_choice(n: int, count: int, *, seed: int = 0, stage: int = 0, name: str = "w") -> Tensor:
    frozen = torch.zeros(n, dtype=torch.bool)
    return choose(torch.ones(n), frozen, count, codebook=CODEBOOK, strategy="random", seed=seed, stage=stage, name=name)


@given(weights(), st.data())
def test_pruning_takes_the_largest_live_and_of_equal_ones_the_first(weight: Tensor, data: st.DataObject) -> None:
    n = weight.numel()
    frozen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))).view(weight.shape)
    live = [place for place in range(n) if not frozen.view(-1)[place]]
    count = data.draw(st.integers(0, len(live)))
    chosen = choose(weight, frozen, count, codebook=CODEBOOK, strategy="pruning", seed=0, stage=0, name="w")
    flat = weight.reshape(-1).abs().tolist()
    expected = sorted(live, key=lambda place: (-flat[place], place))[:count]
    assert chosen.shape == weight.shape
    assert sorted(expected) == chosen.view(-1).nonzero().view(-1).tolist()


@given(weights(), st.data(), st.integers(2, 8), st.sampled_from([0.1, 1.0, 5.0]))
def test_error_takes_those_nearest_to_their_levels_and_of_equal_ones_the_first(
    weight: Tensor, data: st.DataObject, num_bits: int, growth: float
) -> None:
    """Levels by equation 4, differences by fractions; what has grown past the top since is far from it."""
    n = weight.numel()
    codebook = Codebook.for_weight(weight, num_bits)
    weight = weight * growth
    frozen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))).view(weight.shape)
    live = [place for place in range(n) if not frozen.view(-1)[place]]
    count = data.draw(st.integers(0, len(live)))
    chosen = choose(weight, frozen, count, codebook=codebook, strategy="error", seed=0, stage=0, name="w")
    errors = [abs(Fraction(value) - Fraction(equation_4(value, codebook))) for value in weight.reshape(-1).tolist()]
    expected = sorted(live, key=lambda place: (errors[place], place))[:count]
    assert chosen.shape == weight.shape
    assert sorted(expected) == chosen.view(-1).nonzero().view(-1).tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data(), st.sampled_from([torch.int16, torch.int64]))
def test_largest_by_brute_force(keys: list[int], data: st.DataObject, dtype: torch.dtype) -> None:
    frozen = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    count = data.draw(st.integers(0, frozen.count(False)))
    places = sorted((p for p in range(len(keys)) if not frozen[p]), key=lambda p: (-keys[p], p))[:count]
    given_keys = torch.tensor(keys, dtype=dtype)
    chosen = largest(given_keys, torch.tensor(frozen), count)
    assert chosen.nonzero().view(-1).tolist() == sorted(places)
    assert given_keys.tolist() == keys, "keys are left as they are"


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_equal_weights_are_taken_from_the_first_on(value: float) -> None:
    weight = torch.full((10, 10), value)
    frozen = torch.zeros(10, 10, dtype=torch.bool)
    frozen[0] = True
    chosen = choose(weight, frozen, 37, codebook=CODEBOOK, strategy="pruning", seed=0, stage=0, name="w")
    assert chosen.view(-1).nonzero().view(-1).tolist() == list(range(10, 47))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_format_does_not_matter(strategy: Strategy) -> None:
    weight = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    frozen = torch.zeros(weight.shape, dtype=torch.bool)
    plain, last = (
        choose(w, frozen, 50, codebook=CODEBOOK, strategy=strategy, seed=3, stage=1, name="w")
        for w in (weight, weight.to(memory_format=torch.channels_last))
    )
    assert torch.equal(plain, last)


def test_random_is_a_function_of_seed_stage_and_name() -> None:
    first = random_choice(1000, 300)
    torch.manual_seed(123)  # the global generator has no say, and is left alone
    state = torch.get_rng_state()
    assert torch.equal(first, random_choice(1000, 300))
    assert torch.equal(state, torch.get_rng_state())
    for other in (
        random_choice(1000, 300, seed=1),
        random_choice(1000, 300, stage=1),
        random_choice(1000, 300, name="v"),
        random_choice(1000, 300, seed=-1),
        random_choice(1000, 300, seed=2**80),
    ):
        assert int(other.sum()) == 300
        # Independent draws share 90 of 300 on average, with a standard deviation of 6.6.
        assert 50 < int((first & other).sum()) < 130


def test_random_does_not_look_at_the_weights() -> None:
    frozen = torch.zeros(100, dtype=torch.bool)
    one, two = (
        choose(w, frozen, 30, codebook=CODEBOOK, strategy="random", seed=0, stage=0, name="w")
        for w in (torch.arange(100.0), torch.zeros(100, dtype=torch.float64))
    )
    assert torch.equal(one, two)


def test_random_is_uniform() -> None:
    counts = sum(random_choice(50, 20, seed=seed).int() for seed in range(1000))
    assert isinstance(counts, Tensor)
    # Binomial(1000, 0.4) at each place: 400, with a standard deviation of 15.5; five of them allowed.
    assert bool(((counts - 400).abs() < 5 * math.sqrt(1000 * 0.4 * 0.6)).all())


def test_random_is_uniform_over_the_live_ones() -> None:
    frozen = torch.arange(60) % 3 == 0
    for seed in range(20):
        chosen = choose(torch.ones(60), frozen, 25, codebook=CODEBOOK, strategy="random", seed=seed, stage=0, name="w")
        assert int(chosen.sum()) == 25
        assert not bool((chosen & frozen).any())


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(ValueError, match="strategy must be one of pruning, random, error, got 'largest'"):
        check_strategy("largest")
