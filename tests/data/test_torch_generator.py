"""torch's generator is lent for a block, and given back as it was."""

import contextlib

import torch

from inq_ray.data.seeded import seeded


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
