"""A step of inq_ray.SGD over ResNet-18 at increasing frozen portions, alone and in a training step, against torch's.

On one thread, as for one worker per core. The first table compares with torch.optim.SGD(fused=True), the second, of
whole training steps (forward, backward, optimizer), with torch.optim.SGD's default.
"""

import torch
import torchvision
from timing import report
from torch import nn

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.core.optim.sgd import SGD

FROZEN = (0.0, 0.2, 0.5, 0.75, 0.875, 1.0)
FROZEN_IN_TRAINING = (0.0, 0.5, 0.875)
OPTIONS = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
IMAGES = 8


def resnet18() -> nn.Module:
    """Return a ResNet-18 with gradients."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    for param in model.parameters():
        param.grad = torch.randn_like(param) * 1e-3
    return model


def ours(model: nn.Module, portion: float, *, fused: bool | None = None) -> SGD:
    """Return SGD with this portion of the conv and linear weights frozen."""
    optimizer = SGD(model.parameters(), fused=fused, **OPTIONS)
    for param in model.parameters():
        if param.ndim > 1:
            optimizer.freeze(param, torch.rand_like(param) < portion)
    return optimizer


def torchs(model: nn.Module, *, fused: bool | None = None) -> torch.optim.SGD:
    """torch.optim.SGD."""
    return torch.optim.SGD(model.parameters(), fused=fused, **OPTIONS)


def stepping(optimizer: torch.optim.SGD) -> Case:
    """Return a step after the first one, which creates the momentum."""
    optimizer.step()
    return Case(lambda _: optimizer.step())


def training(model: nn.Module, optimizer: torch.optim.SGD) -> Case:
    """Return a training step."""
    images, labels = torch.randn(IMAGES, 3, 224, 224), torch.arange(IMAGES)

    def step(_: object) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return Case(step)


def main() -> None:
    """Measure and print both tables."""
    torch.set_num_threads(1)
    cases = {"torch, fused": stepping(torchs(resnet18(), fused=True)), "torch": stepping(torchs(resnet18()))}
    cases |= {f"{portion:g} frozen": stepping(ours(resnet18(), portion)) for portion in FROZEN}
    cases |= {f"{portion:g} frozen, fused": stepping(ours(resnet18(), portion, fused=True)) for portion in FROZEN}
    report("An SGD step over ResNet-18", take_turns(cases, num_rounds=40), reference="torch, fused", notes={})

    models = {portion: resnet18() for portion in FROZEN_IN_TRAINING}
    cases = {"torch": training(model := resnet18(), torchs(model))}
    cases |= {f"{portion:g} frozen": training(model, ours(model, portion)) for portion, model in models.items()}
    title = f"A training step of ResNet-18, {IMAGES} images"
    report(title, take_turns(cases, num_rounds=10), reference="torch", notes={})


if __name__ == "__main__":
    main()
