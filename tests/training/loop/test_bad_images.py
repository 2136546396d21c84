"""What cannot be read is left out and counted, once for each image, the same on all ranks."""

import pytest
import torch

from inq_ray.data.image_set import BadImage
from inq_ray.training.loop.bad_images import BadImages
from tests.ranks import run_ranks


def bad(*numbers: int) -> list[BadImage]:
    return [BadImage(number, f"n{number}.jpg", "text") for number in numbers]


def test_none_is_allowed_unless_asked_for() -> None:
    images = BadImages(0)
    images.add([])
    with pytest.raises(ValueError, match=r"^n7.jpg: text; .*--skip-bad-images N$"):
        images.add(bad(7))


def test_an_image_counts_once_over_all_epochs() -> None:
    images = BadImages(2)
    for _ in range(3):
        images.add(bad(7))
        images.add(bad(3))
        images.agree()
    assert images.reasons == {"n3.jpg": "text", "n7.jpg": "text"}
    with pytest.raises(ValueError, match=r"3 images .* more than --skip-bad-images 2 allows; one is n3"):
        images.add(bad(9))


def found(allowed: int, shared: bool) -> int | str:
    """Each rank finds two, the same ones or ones of its own."""
    images = BadImages(allowed)
    first = 0 if shared else 10 * torch.distributed.get_rank()
    images.add(bad(first, first + 1))
    try:
        images.agree()
    except ValueError as error:
        return str(error)
    return len(images)


@pytest.mark.parametrize("size", [1, 3])
def test_ranks_count_together(size: int) -> None:
    assert run_ranks(found, size, 6, False) == [2 * size] * size
    assert run_ranks(found, size, 2, True) == [2] * size


def test_too_many_together_stop_every_rank_alike() -> None:
    answers = run_ranks(found, 3, 5, False)
    assert len(set(answers)) == 1
    assert "6 images cannot be read, more than --skip-bad-images 5 allows; one is n0.jpg" in str(answers[0])
