from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training.checkpoint.position import TrainingPosition

POSITIONS = st.builds(
    TrainingPosition, stage=st.integers(0, 200), epoch=st.integers(0, 20_000), step=st.integers(0, 10**9)
)


@given(POSITIONS)
def test_a_name_says_where_it_was(position: TrainingPosition) -> None:
    assert TrainingPosition.parse(position.name) == position


@given(POSITIONS, POSITIONS)
def test_names_of_usual_length_sort_as_positions_do(first: TrainingPosition, second: TrainingPosition) -> None:
    usual = len(TrainingPosition(stage=0, epoch=0, step=0).name)
    if len(first.name) == usual == len(second.name):
        assert (first < second) == (first.name < second.name)


@given(st.text() | st.from_regex(r"checkpoint-\d+-\d+-\d+", fullmatch=True))
def test_other_names_are_no_positions(name: str) -> None:
    position = TrainingPosition.parse(name)
    assert position is None or position.name == name


def test_examples() -> None:
    assert TrainingPosition(stage=2, epoch=3, step=120).name == "checkpoint-02-0003-00000120"
    for name in ("", "checkpoint-2-3-120", ".checkpoint-02-0003-00000120.x.partial", "checkpoint-002-0003-00000120"):
        assert TrainingPosition.parse(name) is None
