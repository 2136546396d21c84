from hypothesis import given
from hypothesis import strategies as st

from inq_ray.training.checkpoint.position import Place

PLACES = st.builds(Place, stage=st.integers(0, 200), epoch=st.integers(0, 20_000), step=st.integers(0, 10**9))


@given(PLACES)
def test_a_name_says_where_it_was(place: Place) -> None:
    assert Place.parse(place.name) == place


@given(PLACES, PLACES)
def test_names_of_usual_length_sort_as_places_do(first: Place, second: Place) -> None:
    usual = len(Place(stage=0, epoch=0, step=0).name)
    if len(first.name) == usual == len(second.name):
        assert (first < second) == (first.name < second.name)


@given(st.text() | st.from_regex(r"checkpoint-\d+-\d+-\d+", fullmatch=True))
def test_other_names_are_no_places(name: str) -> None:
    place = Place.parse(name)
    assert place is None or place.name == name


def test_examples() -> None:
    assert Place(stage=2, epoch=3, step=120).name == "checkpoint-02-0003-00000120"
    for name in ("", "checkpoint-2-3-120", ".checkpoint-02-0003-00000120.x.partial", "checkpoint-002-0003-00000120"):
        assert Place.parse(name) is None
