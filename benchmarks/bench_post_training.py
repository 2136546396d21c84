"""Accuracy of inq_ray.quantize_ (post-training): CIFAR ResNets, digits, a pruned SqueezeNet for ImageNet, and others.

    python benchmarks/bench_post_training.py DATA [NETWORK ...] [--codebook-per tensor channel]

DATA is a folder with cifar10/*.parquet, imagenet_sample/*.parquet and models/*.safetensors. CIFAR and digits: 512
training images without augmentation or labels; top-1 in % on the whole test set. SqueezeNet: 125 images for
quantization; top-1 and agreement with the float network on the 125 others. slim16, a network of depthwise convolutions,
and vit16, a transformer, are trained here for a minute or two, on 5,000 training images at 16x16 pixels; top-1 on 5,000
test images.
"""

import argparse
import copy
import io
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms import v2

from inq_ray import quantize_
from inq_ray.core.channels import PERS
from inq_ray.core.codebook import Levels
from inq_ray.data.digits import DigitsSource
from inq_ray.models.registry import create

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
NUM_IMAGES = 512
WIDTHS: tuple[tuple[int, Levels], ...] = (
    (5, "paper"),
    (4, "paper"),
    (4, "full"),
    (3, "paper"),
    (3, "full"),
    (2, "paper"),
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Case(NamedTuple):
    """A float network with images for quantization, and labeled images for measurement."""

    network: nn.Module
    images: Tensor
    test_images: Tensor
    test_labels: Tensor
    keeps_zeros: tuple[bool, ...] = (False,)


def cifar(depth: int, data: Path) -> Case:
    """Return a CIFAR ResNet with the first training images."""
    network = create(f"cifar_resnet{depth}", num_classes=10)
    network.load_state_dict(load_file(data / "models" / f"cifar10_resnet{depth}.safetensors"))
    train, test = (
        [*_read(data / "cifar10", split, _as_tensor, most)] for split, most in (("train", NUM_IMAGES), ("test", None))
    )
    return Case(network, torch.stack([image for image, _ in train]), *_stacked(test))


def digits(_: Path) -> Case:
    """Return a network for the digits, trained here for a minute, with the first training images."""
    source = DigitsSource()
    mean, std = source.info.mean[0], source.info.std[0]
    parts = {split: source._sets[split] for split in ("train", "test")}  # noqa: SLF001
    (images, labels), (test_images, test_labels) = (
        ((each.images.float() / 255 - mean) / std, each.labels) for each in parts.values()
    )
    torch.manual_seed(0)
    network = create("digits_cnn", num_classes=10, in_channels=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(30):
        for part in torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[part]), labels[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Case(network, images[:NUM_IMAGES], test_images, test_labels)


def slim16(data: Path) -> Case:
    """Return a network of depthwise and pointwise convolutions for small CIFAR images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for inputs, outputs, stride in ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 192, 2)):
        layers += [
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 10))
    return _trained(network, data, lambda params: torch.optim.SGD(params, 0.1, 0.9, weight_decay=5e-4), epochs=8)


class _Block(nn.Module):
    """A block of a transformer: attention and two linear layers, both after LayerNorm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, 4, batch_first=True)
        self.linear = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return cast(Tensor, tokens + self.linear(tokens))


class _Transformer(nn.Module):
    """A vision transformer of four blocks, on patches of 4x4 pixels: float [N, 3, 16, 16] -> logits [N, 10]."""

    def __init__(self, dim: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(16, dim))
        self.blocks = nn.Sequential(*(_Block(dim) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.blocks(self.patches(images).flatten(2).mT + self.places)
        return cast(Tensor, self.head(self.norm(tokens).mean(dim=1)))


def vit16(data: Path) -> Case:
    """Return a transformer for small CIFAR images."""
    torch.manual_seed(0)
    return _trained(_Transformer(), data, lambda params: torch.optim.AdamW(params, 1e-3, weight_decay=0.05), epochs=12)


def _trained(
    network: nn.Module, data: Path, optimizer_of: Callable[[Any], torch.optim.Optimizer], *, epochs: int
) -> Case:
    """Train a network on small CIFAR images, with random flips; return it with the first of them."""
    (images, labels), (test_images, test_labels) = (
        _stacked([*_read(data / "cifar10", split, _as_tensor, most)])
        for split, most in (("train", 5_000), ("test", 5_000))
    )
    images, test_images = (nn.functional.avg_pool2d(each, 2) for each in (images, test_images))
    generator, optimizer = torch.Generator().manual_seed(0), optimizer_of(network.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for part in torch.randperm(len(labels), generator=generator).split(64):
            flips = torch.rand(len(part), 1, 1, 1, generator=generator) < 0.5
            batch = torch.where(flips, images[part].flip(3), images[part])
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), labels[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return Case(network, images[:NUM_IMAGES], test_images, test_labels)


def squeezenet(data: Path) -> Case:
    """Return torchvision's SqueezeNet, pruned, with every second of the sample images."""
    network = create("squeezenet1_0", num_classes=1000)
    network.load_state_dict(load_file(data / "models" / "squeezenet1_0_imagenet.safetensors"))
    crop = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224), v2.PILToTensor()])
    images, labels = _stacked([*_read(data / "imagenet_sample", "train", lambda image: _normalized(crop(image)), None)])
    return Case(network, images[::2], images[1::2], labels[1::2], keeps_zeros=(False, True))


CASES: dict[str, Callable[[Path], Case]] = {
    "cifar_resnet20": lambda data: cifar(20, data),
    "cifar_resnet32": lambda data: cifar(32, data),
    "digits_cnn": digits,
    "squeezenet1_0": squeezenet,
    "slim16": slim16,
    "vit16": vit16,
}


def _read(
    folder: Path, split: str, transform: Callable[[Image.Image], Tensor], most: int | None
) -> Iterator[tuple[Tensor, int]]:
    left = most
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        for row in pq.read_table(path, columns=["image", "label"]).to_pylist():
            if left == 0:
                return
            left = None if left is None else left - 1
            yield transform(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")), row["label"]


def _as_tensor(image: Image.Image) -> Tensor:
    return _normalized(torch.from_numpy(np.array(image)).permute(2, 0, 1))


def _normalized(image: Tensor) -> Tensor:
    return (image.float() / 255 - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


def _stacked(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


@torch.no_grad()
def predictions(network: nn.Module, images: Tensor) -> Tensor:
    """Return a network's classes of images: int64 [N]."""
    network.eval()
    return torch.cat([network(batch).argmax(dim=1) for batch in images.split(250)])


def percent(same: Tensor) -> float:
    """Return the percentage of true values in bool [N]."""
    return 100 * float(same.double().mean())


def main() -> None:
    """Quantize each network at each width, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=DATA)
    parser.add_argument("networks", nargs="*", choices=[[], *CASES], default=list(CASES))
    parser.add_argument("--codebook-per", nargs="+", choices=PERS, default=["tensor"])
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"skipped: there are no data in {given.data}")
        return
    print("| network | bits | levels | codebook per | zeros kept | top-1 | against float | agreement | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in given.networks:
        case = CASES[name](given.data)
        float_classes = predictions(case.network, case.test_images)
        float_top1 = percent(float_classes == case.test_labels)
        print(f"| {name} | float | | | | {float_top1:.2f} | | | |", flush=True)
        for keep_zeros, (num_bits, levels), per in product(case.keeps_zeros, WIDTHS, given.codebook_per):
            network, begin = copy.deepcopy(case.network), time.perf_counter()
            quantize_(network, case.images, num_bits, levels=levels, codebook_per=per, keep_zeros=keep_zeros)
            seconds = time.perf_counter() - begin
            classes = predictions(network, case.test_images)
            top1, agreement = percent(classes == case.test_labels), percent(classes == float_classes)
            print(
                f"| {name} | {num_bits} | {levels} | {per} | {'yes' if keep_zeros else ''} | {top1:.2f} | "
                f"{top1 - float_top1:+.2f} | {agreement:.2f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
