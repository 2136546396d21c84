"""Which network a file looks like."""

import pytest
import torch

from inq_ray.models.recognition import looks_like
from inq_ray.models.shapes import shapes

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("arch", "num_classes"), [("resnet34", 7), ("vgg11_bn", 1000), ("cifar_resnet44", 10)])
def test_networks_are_told_for_any_number_of_classes(arch: str, num_classes: int) -> None:
    assert looks_like(shapes(arch, num_classes=num_classes)) == arch


def test_other_channels_and_old_files() -> None:
    given = shapes("resnet18", num_classes=10, in_channels=1)
    assert looks_like({name: shape for name, shape in given.items() if "num_batches" not in name}) == "resnet18"


def test_unknown_networks() -> None:
    assert looks_like({"a.weight": torch.Size([3, 3])}) is None
    assert looks_like({"a.weight": torch.Size([2, 0, 3, 3])}) is None
    given = dict(shapes("alexnet", num_classes=10))
    given["features.3.weight"] = torch.Size([192, 64, 3, 3])
    assert looks_like(given) is None
