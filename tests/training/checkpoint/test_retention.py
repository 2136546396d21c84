from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training.checkpoint.position import Place
from inq_ray.training.checkpoint.retention import Entry, kept

PLACES = st.builds(Place, stage=st.integers(0, 4), epoch=st.integers(0, 5), step=st.sampled_from([0, 10, 20]))
ENTRIES = st.lists(
    st.builds(
        Entry,
        place=PLACES,
        is_stage_end=st.booleans(),
        top1=st.none() | st.sampled_from([0.0, 50.0, 75.5]) | st.floats(0, 100),
    ),
    unique_by=lambda entry: entry.place,
)


def places(entries: list[Entry]) -> set[Place]:
    return {entry.place for entry in entries}


@given(ENTRIES, st.integers(1, 5))
def test_the_last_the_stage_ends_and_the_best_stay_and_nothing_else(entries: list[Entry], last: int) -> None:
    stay = kept(entries, last)
    newest = sorted(places(entries))[-last:]
    ends = {entry.place for entry in entries if entry.is_stage_end}
    assert stay <= places(entries)
    assert stay >= set(newest) | ends
    assert bool(stay) == bool(entries)
    others = [entry for entry in entries if entry.place in stay - set(newest) - ends]
    assert len(others) <= 1
    measured = [entry for entry in entries if entry.top1 is not None]
    if measured:
        stage = max(entry.place.stage for entry in measured)
        best = max(entry.top1 for entry in measured if entry.place.stage == stage)
        assert any(entry.top1 == best and entry.place.stage == stage for entry in measured if entry.place in stay)
        assert all(entry.top1 == best for entry in others)


@given(ENTRIES, st.integers(1, 5))
def test_what_stays_stays_when_asked_again_in_any_order(entries: list[Entry], last: int) -> None:
    stay = kept(entries, last)
    assert kept([entry for entry in reversed(entries) if entry.place in stay], last) == stay


@given(ENTRIES, st.integers(1, 5))
def test_deleting_along_the_way_keeps_what_deleting_at_the_end_would(entries: list[Entry], last: int) -> None:
    """A run deletes after each checkpoint; it sees them in the order of their places."""
    held: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: entry.place):
        held.append(entry)
        stay = kept(held, last)
        held = [each for each in held if each.place in stay]
    assert places(held) == kept(entries, last)


def test_an_example() -> None:
    def entry(stage: int, epoch: int, top1: float | None = None, *, end: bool = False) -> Entry:
        return Entry(place=Place(stage=stage, epoch=epoch, step=0), is_stage_end=end, top1=top1)

    entries = [entry(0, 1, 99.0), entry(0, 2, 98.0, end=True), entry(1, 1, 60.0), entry(1, 2, 70.0), entry(1, 3, 65.0)]
    stay = kept([*entries, entry(1, 4), entry(1, 5)], 2)
    assert {(place.stage, place.epoch) for place in stay} == {(0, 2), (1, 2), (1, 4), (1, 5)}
