import pytest
import torch
from torchvision.transforms.v2.functional import normalize, to_dtype

from inq_ray.training.task.model_input import ModelInput


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.3,), (0.35,))],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_torchvisions(
    mean: tuple[float, ...], std: tuple[float, ...], memory_format: torch.memory_format
) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(len(mean) * 2).view(2, len(mean), 16, 16)
    to_input = ModelInput(torch.tensor(mean), torch.tensor(std), torch.device("cpu"), memory_format)
    expected = normalize(to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    result = to_input(images)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    assert result.is_contiguous(memory_format=memory_format)


def test_the_images_are_left_alone() -> None:
    images = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    to_input = ModelInput(torch.tensor([0.5]), torch.tensor([0.5]), torch.device("cpu"), torch.contiguous_format)
    assert to_input(images).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
    assert (images == 255).all()
