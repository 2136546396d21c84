import torch
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.core.partition.largest import largest


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data(), st.sampled_from([torch.int16, torch.int64]))
def test_largest_by_brute_force(keys: list[int], data: st.DataObject, dtype: torch.dtype) -> None:
    frozen = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    count = data.draw(st.integers(0, frozen.count(False)))
    places = sorted((p for p in range(len(keys)) if not frozen[p]), key=lambda p: (-keys[p], p))[:count]
    given_keys = torch.tensor(keys, dtype=dtype)
    chosen = largest(given_keys, torch.tensor(frozen), count)
    assert chosen.nonzero().view(-1).tolist() == sorted(places)
    assert given_keys.tolist() == keys, "keys are left as they are"
