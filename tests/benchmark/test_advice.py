"""What a benchmark recommends."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.benchmark.advice import (
    WORTH,
    advise,
    advise_gradients,
    advise_workers,
    images_per_second,
    sizes_of,
    worth_workers,
)
from inq_ray.benchmark.figures import Figure, World
from inq_ray.benchmark.subject import PORTIONS
from tests.benchmark.worlds import made_world

_RATIO = st.floats(0.05, 1.5)
_ORDER = ("dense", "auto", "live")


def _choice(ratios: dict[float, float]) -> str:
    return advise_gradients(ratios).flag.removeprefix("--gradient-communication ")


@pytest.mark.parametrize(
    ("after_stages", "choice"),
    [
        ((0.9, 0.8, 0.7, 0.6), "live"),
        ((0.99, 0.8, 0.7, 0.6), "auto"),
        ((1.0, 1.0, 1.0, 0.9), "auto"),
        ((1.0, 1.0, 0.99, 0.985), "dense"),
        ((0.9, 0.9, 0.9, 1.0), "dense"),  # less is sent, and it is slower: noise
    ],
)
def test_live_is_recommended_from_the_portion_on_from_which_it_saves_time(
    after_stages: tuple[float, ...], choice: str
) -> None:
    assert _choice(dict(zip(PORTIONS, (1.0, *after_stages), strict=True))) == choice


def test_a_gain_within_the_noise_is_none() -> None:
    ratios = dict(zip(PORTIONS, (0.93, 0.95, 0.95, 0.95, 0.95), strict=True))
    advice = advise_gradients(ratios)
    assert advice.flag.endswith(" dense")
    assert "less than 7 %, the noise here," in advice.reason
    assert _choice({**ratios, 0.0: 1.0}) == "live"


@given(st.lists(_RATIO, min_size=4, max_size=4), st.floats(0.5, 1.0))
def test_a_faster_exchange_of_live_weights_is_never_recommended_less(ratios: list[float], factor: float) -> None:
    slow = dict(zip(PORTIONS, (1.0, *ratios), strict=True))
    fast = {portion: ratio * factor if portion else ratio for portion, ratio in slow.items()}
    assert _ORDER.index(_choice(fast)) >= _ORDER.index(_choice(slow))


@given(st.lists(_RATIO, min_size=4, max_size=4), st.floats(0.5, 1.5))
def test_live_is_never_recommended_where_it_saves_nothing(ratios: list[float], noise: float) -> None:
    choice = _choice(dict(zip(PORTIONS, (noise, *ratios), strict=True)))
    saves = [ratio <= 1 - max(WORTH, abs(1 - noise)) for ratio in ratios]
    assert choice == ("live" if all(saves) else "auto" if saves[-1] else "dense")


@given(st.integers(1, 64), st.integers(0, 200))
def test_numbers_of_workers_are_doubled_up_to_the_largest(least: int, more: int) -> None:
    sizes = sizes_of(least, least + more)
    assert (sizes[0], sizes[-1]) == (least, least + more)
    assert sizes == sorted(set(sizes))
    assert all(other == 2 * one for one, other in itertools.pairwise(sizes[:-1]))
    assert len(sizes) == 1 or sizes[-1] <= 2 * sizes[-2]


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=6), st.floats(1.0, 4.0))
def test_faster_large_numbers_of_workers_are_never_recommended_less(speeds: list[float], factor: float) -> None:
    slow = {2**index: speed for index, speed in enumerate(speeds)}
    best = worth_workers(slow)
    assert best in slow
    last = max(slow)
    assert worth_workers({**slow, last: slow[last] * factor}) >= best
    assert worth_workers({number: 10.0 * number for number in slow}) == last
    assert worth_workers(dict.fromkeys(slow, 10.0)) == 1


def test_what_workers_bring_is_in_the_reason() -> None:
    advice = advise_workers({1: 100.0, 2: 180.0, 4: 200.0})
    assert advice.flag == "--num-workers 2"
    assert advice.reason == "2 train 180 images/s, 1.80 times as many as 1, 4 only 1.11 times as many as 2"
    assert advise_workers({1: 100.0, 2: 90.0}).reason == "1 trains 100 images/s, 2 only 0.90 times as many as 1"


def test_advice_is_about_the_recommended_number_of_workers() -> None:
    worlds = [made_world(1, compute=2.0), made_world(2, compute=1.0, exchange=0.25), made_world(4, exchange=1.0)]
    flags = [each.flag for each in advise(worlds, batch_size=64)]
    assert flags == [
        "--num-workers 2",
        "--gradient-communication live",
        "inq_ray.LiveGradients(optimizer, torch.bfloat16)",
    ]
    assert advise([made_world(1)], batch_size=64) == []
    assert [each.flag for each in advise([made_world(2, exchange=0.001)], 64)] == ["--gradient-communication dense"]


def test_a_slow_input_is_reported() -> None:
    world = made_world(1, compute=0.5)
    assert images_per_second(world, 100) == 200

    def reading(speed: float) -> World:
        return dataclasses.replace(world, figures=(*world.figures, Figure.of("input", [speed])))

    assert advise([reading(201.0)], 100) == []
    (advice,) = advise([reading(150.0)], 100)
    assert advice.reason == "the input reads 150 images/s, less than the 200 that are trained"
