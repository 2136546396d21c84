"""Bits by layer: within the size, and as good as trying everything where that can be proven."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from inq_ray.sensitivity.allocation import Choice, allocations, bits_of, total_bytes

LAYERS = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.builds(Choice, st.integers(2, 8), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=4),
    min_size=1,
)
Layers = dict[str, list[Choice]]


def loss_of(chosen: dict[str, Choice]) -> float:
    return sum(choice.loss for choice in chosen.values())


def least_loss(layers: Layers, most_bytes: float) -> float | None:
    """Of all allocations."""
    every = (dict(zip(layers, each, strict=True)) for each in itertools.product(*layers.values()))
    return min((loss_of(each) for each in every if total_bytes(each) <= most_bytes), default=None)


@given(LAYERS)
def test_each_step_is_the_best_of_its_size(layers: Layers) -> None:
    path = list(allocations(layers))
    for chosen in path:
        assert loss_of(chosen) == least_loss(layers, total_bytes(chosen))
    for before, after in itertools.pairwise(path):
        assert total_bytes(before) <= total_bytes(after)
        assert loss_of(before) > loss_of(after)
        assert sum(before[name] != after[name] for name in layers) == 1
    assert loss_of(path[-1]) == sum(min(choice.loss for choice in each) for each in layers.values())


@given(LAYERS, st.integers(0, 36))
def test_within_a_size_it_is_close_to_the_best(layers: Layers, most_bytes: int) -> None:
    path = list(allocations(layers, most_bytes))
    best = least_loss(layers, most_bytes)
    assert (best is None) == (not path)
    if best is None:
        return
    assert total_bytes(path[-1]) <= most_bytes
    # The bound of the greedy knapsack: no worse than the best by more than one layer's change.
    most = max(max(choice.loss for choice in each) - min(choice.loss for choice in each) for each in layers.values())
    assert best <= loss_of(path[-1]) <= best + most
    assert list(allocations(layers, most_bytes)) == path


def test_an_example_by_hand() -> None:
    layers = {
        "large": [Choice(2, 100, 1.0), Choice(4, 200, 0.2)],
        "small": [Choice(2, 10, 1.0), Choice(4, 20, 0.5)],
    }
    assert [bits_of(chosen) for chosen in allocations(layers)] == [
        {"large": 2, "small": 2},
        {"large": 2, "small": 4},
        {"large": 4, "small": 4},
    ]
    (*_, best) = allocations(layers, 210)
    assert bits_of(best) == {"large": 2, "small": 4}
    assert list(allocations(layers, 109)) == []
