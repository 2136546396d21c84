"""The order of trials against brute force: whatever is shared and however many run, nothing is trained twice."""

from hypothesis import given
from hypothesis import strategies as st

from inq_ray.sweep.reuse.shared_prefixes import Keys, choose, deepest, is_ready, missing, needed

SCHEDULES = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=8)


def keys_of(schedule: list[int]) -> Keys:
    """Prefixes, as the keys of stages are: the later a stage, the more it depends on."""
    return tuple("".join(map(str, schedule[: place + 1])) for place in range(len(schedule)))


@given(SCHEDULES, st.integers(1, 4), st.data())
def test_every_stage_is_trained_once(schedules: list[list[int]], num_slots: int, data: st.DataObject) -> None:
    """Simulates a sweep in which stages take any time: each is trained by one trial, and all trials end."""
    trials = [keys_of(schedule) for schedule in schedules]
    waiting, running = list(trials), list[list[str]]()
    stored, trained, num_reused = set[str](), list[str](), 0
    while waiting or running:
        claimed = {key for left in running for key in left}
        place = choose(waiting, stored, claimed) if len(running) < num_slots else None
        if place is not None:
            keys = waiting.pop(place)
            assert is_ready(keys, stored, claimed)
            num_reused += deepest(keys, stored)
            running.append(list(missing(keys, stored)))
            continue
        assert running, "something waits, nothing runs, and nothing can start"
        of = data.draw(st.sampled_from(running))
        if not of:
            running.remove(of)
            continue
        trained.append(of.pop(0))
        stored.add(trained[-1])
    assert sorted(trained) == sorted({key for keys in trials for key in keys})
    assert len(trained) + num_reused == sum(map(len, trials))


@given(SCHEDULES, st.data())
def test_what_is_not_needed_any_more_can_go(schedules: list[list[int]], data: st.DataObject) -> None:
    trials = [keys_of(schedule) for schedule in schedules]
    every = sorted({key for keys in trials for key in keys})
    stored = set(data.draw(st.lists(st.sampled_from(every)))) if every else set()
    kept = needed(trials, stored)
    assert kept <= stored
    for keys in trials:
        assert deepest(keys, kept) == deepest(keys, stored)
    for key in kept:
        assert any(deepest(keys, kept - {key}) < deepest(keys, stored) for keys in trials)


def test_what_most_wait_for_comes_first() -> None:
    waiting = [("a",), ("b", "bc"), ("b", "bc"), ("b", "bd")]
    assert choose(waiting, set(), set()) == 1
    assert choose(waiting, {"b"}, set()) == 1
    assert choose(waiting, {"b"}, {"bc"}) == 0
    assert choose(waiting, {"b", "bc"}, {"a", "bd"}) == 1  # nothing that others could use is left to train
    assert choose([("a",)], set(), {"a"}) is None
    assert choose([()], set(), {"a"}) == 0
