"""Who differs, by hand and by brute force; the errors survive a trip between processes."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from inq_ray.distributed.agreement import ReplicaMismatchError, check_equal, differing_names, minority

entries = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))


def test_minority_by_hand() -> None:
    assert minority(["a", "a", "a"]) == ()
    assert minority(["a", "b", "a"]) == (1,)
    assert minority(["b", "a", "a"]) == (0,)
    assert minority(["a", "b"]) == (1,)  # nobody has a majority: rank 0 counts as right
    assert minority(["a", "b", "c", None]) == (1, 2, 3)


@given(st.lists(entries, min_size=1, max_size=5))
def test_names_differ_exactly_where_not_all_ranks_hold_the_same(by_rank: list[dict[str, str]]) -> None:
    differing = differing_names(by_rank)
    for name in "abc":
        values = {entry.get(name) for entry in by_rank}
        assert (name in differing) == (len(values) > 1)
        right = {entry.get(name) for place, entry in enumerate(by_rank) if place not in differing.get(name, ())}
        assert len(right) == 1


def test_the_error_pickles_and_names_what_is_needed() -> None:
    error = pickle.loads(pickle.dumps(ReplicaMismatchError(2, "replicas", "conv1.weight", (1, 3), 5)))  # noqa: S301, our own
    assert (error.stage, error.what, error.tensor, error.ranks, error.num_tensors) == (
        2,
        "replicas",
        "conv1.weight",
        (1, 3),
        5,
    )
    for part in ("stage 2", "'conv1.weight'", "[1, 3]", "first of 5"):
        assert part in str(error)
    assert "\n" not in str(error)
    assert "stage" not in str(ReplicaMismatchError(None, "replicas", "conv1.weight", (1,)))


def test_one_rank_agrees_with_itself() -> None:
    check_equal({"a": "x"}, stage=1, what="replicas")
