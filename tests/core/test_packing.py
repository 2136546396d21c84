import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.core.packing import indices, pack_codes, packed_size, unpack_codes


@given(st.integers(1, 8), st.data())
def test_unpacking_packed_codes_is_the_identity(num_bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 2**num_bits - 1), max_size=70))
    packed = pack_codes(torch.tensor(codes, dtype=torch.uint8), num_bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_size(num_bits, len(codes))
    assert unpack_codes(packed, num_bits, len(codes)).tolist() == codes


@given(st.integers(1, 8), st.data())
def test_codes_stand_side_by_side_from_the_lowest_bit_on(num_bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 2**num_bits - 1), max_size=30))
    number = sum(code << (num_bits * place) for place, code in enumerate(codes))
    packed = pack_codes(torch.tensor(codes, dtype=torch.uint8), num_bits)
    assert bytes(packed.tolist()) == number.to_bytes(packed_size(num_bits, len(codes)), "little")


def test_masks_are_packed_as_one_bit_each() -> None:
    mask = torch.tensor([True, False, True, True, False, False, False, False, True])
    assert pack_codes(mask, 1).tolist() == [0b1101, 1]


def test_positions_are_in_row_major_order_in_any_memory_format() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    assert indices(mask).tolist() == [0, 2, 4, 5]
    assert indices(mask.t().contiguous().t()).tolist() == [0, 2, 4, 5]
    assert indices(torch.zeros(0, dtype=torch.bool)).dtype == torch.int64


@pytest.mark.parametrize("num_bits", [0, 9])
def test_other_widths_are_faults_of_ours(num_bits: int) -> None:
    with pytest.raises(AssertionError, match="num_bits"):
        pack_codes(torch.zeros(3, dtype=torch.uint8), num_bits)
