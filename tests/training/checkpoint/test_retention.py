from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry, kept

POSITIONS = st.builds(
    TrainingPosition, stage=st.integers(0, 4), epoch=st.integers(0, 5), step=st.sampled_from([0, 10, 20])
)
ENTRIES = st.lists(
    st.builds(
        Entry,
        position=POSITIONS,
        is_stage_end=st.booleans(),
        top1=st.none() | st.sampled_from([0.0, 50.0, 75.5]) | st.floats(0, 100),
    ),
    unique_by=lambda entry: entry.position,
)


def positions(entries: list[Entry]) -> set[TrainingPosition]:
    return {entry.position for entry in entries}


@given(ENTRIES, st.integers(1, 5))
def test_the_last_the_stage_ends_and_the_best_stay_and_nothing_else(entries: list[Entry], last: int) -> None:
    stay = kept(entries, last)
    newest = sorted(positions(entries))[-last:]
    ends = {entry.position for entry in entries if entry.is_stage_end}
    assert stay <= positions(entries)
    assert stay >= set(newest) | ends
    assert bool(stay) == bool(entries)
    others = [entry for entry in entries if entry.position in stay - set(newest) - ends]
    assert len(others) <= 1
    measured = [entry for entry in entries if entry.top1 is not None]
    if measured:
        stage = max(entry.position.stage for entry in measured)
        best = max(entry.top1 for entry in measured if entry.position.stage == stage)
        assert any(entry.top1 == best and entry.position.stage == stage for entry in measured if entry.position in stay)
        assert all(entry.top1 == best for entry in others)


@given(ENTRIES, st.integers(1, 5))
def test_what_stays_stays_when_asked_again_in_any_order(entries: list[Entry], last: int) -> None:
    stay = kept(entries, last)
    assert kept([entry for entry in reversed(entries) if entry.position in stay], last) == stay


@given(ENTRIES, st.integers(1, 5))
def test_deleting_along_the_way_keeps_what_deleting_at_the_end_would(entries: list[Entry], last: int) -> None:
    """A run deletes after each checkpoint; it sees them in the order of their positions."""
    held: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: entry.position):
        held.append(entry)
        stay = kept(held, last)
        held = [each for each in held if each.position in stay]
    assert positions(held) == kept(entries, last)


def test_an_example() -> None:
    def entry(stage: int, epoch: int, top1: float | None = None, *, end: bool = False) -> Entry:
        return Entry(position=TrainingPosition(stage=stage, epoch=epoch, step=0), is_stage_end=end, top1=top1)

    entries = [entry(0, 1, 99.0), entry(0, 2, 98.0, end=True), entry(1, 1, 60.0), entry(1, 2, 70.0), entry(1, 3, 65.0)]
    stay = kept([*entries, entry(1, 4), entry(1, 5)], 2)
    assert {(position.stage, position.epoch) for position in stay} == {(0, 2), (1, 2), (1, 4), (1, 5)}
