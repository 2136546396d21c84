"""Random numbers of (purpose, seed, epoch, sample); torch's generator is lent for a block, and given back as it was."""

import contextlib

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.data.seeded import counter_hash, seeded

integers = st.integers(-(2**70), 2**70)


def splitmix64(state: int) -> int:
    """The published generator, one step, in Python integers (https://prng.di.unimi.it/splitmix64.c)."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(purpose=st.sampled_from(["order", "crop_flip"]), seed=integers, epoch=integers, sample=st.integers(0, 2**62))
def test_the_hash_is_splitmix64(purpose: str, seed: int, epoch: int, sample: int) -> None:
    key = 0
    for value in (*purpose.encode(), seed, epoch):
        key = splitmix64(key ^ (value % 2**64))
    expected = splitmix64((key + sample * 0x9E3779B97F4A7C15) % 2**64)
    assert counter_hash(purpose, seed, epoch, np.array([sample])).tolist() == [expected]


def test_every_bit_of_the_hash_is_even() -> None:
    bits = counter_hash("order", 3, 5, np.arange(20_000))
    shares = [((bits >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)]
    assert max(abs(share - 0.5) for share in shares) < 0.02


def test_what_is_drawn_is_a_function_of_the_key() -> None:
    def draw(*key: int) -> list[float]:
        with seeded("test", *key):
            return torch.rand(5).tolist() + torch.randn(5).tolist()

    first = draw(1, 2, 3)
    torch.manual_seed(5)
    torch.randn(3)
    assert draw(1, 2, 3) == first
    assert len({tuple(draw(*key)) for key in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0), (-1, 2, 3))}) == 5
    with seeded("other", 1, 2, 3):
        assert torch.rand(5).tolist() != first[:5]


def test_the_generator_goes_on_where_it_was() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    with contextlib.suppress(KeyError), seeded("test", 0, 0, 0):
        torch.rand(7)
        raise KeyError
    assert torch.equal(torch.rand(4), expected)
