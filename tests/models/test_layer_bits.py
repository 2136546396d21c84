"""Bits of single layers: how they are typed, and what of it a network does not allow."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from inq_ray.models.layer_bits import check_layer_bits, parse_layer_bits, words_of_bits

NETWORK = nn.ModuleDict(
    {"stem": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "embed": nn.Embedding(5, 4),
     "head": nn.ModuleDict({"one": nn.Linear(4, 4), "two": nn.Linear(4, 2)})}
)  # fmt: skip


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(2, 8), max_size=4))
def test_words_are_read_back_in_the_order_of_patterns(bits: dict[str, int]) -> None:
    words = words_of_bits(bits)
    assert parse_layer_bits(words) == parse_layer_bits(words[::-1]) == bits
    assert list(parse_layer_bits(words)) == sorted(bits)


@pytest.mark.parametrize(
    ("words", "what"),
    [(["fc"], "'fc' is not PATTERN=BITS"), (["=3"], "'=3' is not"), (["fc="], "'fc=' is not"), (["fc=²"], "is not"),
     (["fc=-3"], "is not"), (["fc=3.0"], "is not"), (["fc=1"], "from 2 to 8, got 1"), (["fc=9"], "got 9"),
     (["fc=" + "9" * 9999], "got 999999999"), (["fc=0000000051"], "got 51"),
     (["fc=3", "fc=4"], "'fc' has 3 and 4 bits")],
)  # fmt: skip
def test_other_words_are_refused(words: list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        parse_layer_bits(words)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("bits", "options", "what"),
    [({"stam": 3}, {}, "--layer-bits: the pattern 'stam' matches no convolution or linear weight; nearest: stem"),
     ({"norm": 3}, {}, "'norm' matches no convolution or linear weight"),
     ({"embed": 3}, {}, "--layer-bits embed=3: embed.weight stays float: quantize it with --include, too"),
     ({"head.*": 3}, {"skip": ["head"]}, "head.one.weight stays float by --skip: leave one of them out"),
     ({"head": 3, "head.two": 4}, {}, "--layer-bits head=3 head.two=4: both match head.two.weight")],
)  # fmt: skip
def test_what_the_network_does_not_allow(bits: dict[str, int], options: Any, what: str) -> None:
    with pytest.raises(ValueError, match="--layer-bits") as caught:
        check_layer_bits(NETWORK, bits, **options)
    assert what in str(caught.value)


def test_what_it_allows() -> None:
    assert check_layer_bits(NETWORK, {"stem": 3, "head": 4, "head.two": 4}) == []
    assert check_layer_bits(NETWORK, {"embed": 3}, include=["embed"]) == []
    assert check_layer_bits(NETWORK, {"*": 3}, skip=["head.two", "stem"]) == [
        "--layer-bits *=3: stem.weight and 1 more stay float by --skip"
    ]
