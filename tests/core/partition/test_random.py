import math

import torch
from torch import Tensor

from inq_ray.core.partition import partition


def random_choice(n: int, count: int, *, seed: int = 0, stage: int = 0, name: str = "w") -> Tensor:
    frozen = torch.zeros(n, dtype=torch.bool)
    return partition(torch.ones(n), frozen, count, strategy="random", seed=seed, stage=stage, name=name)


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
        partition(w, frozen, 30, strategy="random", seed=0, stage=0, name="w")
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
        chosen = partition(torch.ones(60), frozen, 25, strategy="random", seed=seed, stage=0, name="w")
        assert int(chosen.sum()) == 25
        assert not bool((chosen & frozen).any())
