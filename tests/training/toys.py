"""Small tasks for the tests of training: random images, networks without BatchNorm."""

from collections.abc import Iterator

import torch
from torch import nn

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.image_set import Images, SourceInfo
from inq_ray.data.loader import Batch, Loader, eval_requests
from inq_ray.data.memory_set import ImageSet
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.task.build import Task
from inq_ray.training.task.model_input import ModelInput

CLASSES = 3


def toy_images(num: int, classes: int = CLASSES, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num, 1, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (num,), generator=generator)
    return ImageSet(images, labels, CropFlip(padding=1, flip=True))


def validation_batches(images: Images, batch_size: int = 250) -> Iterator[Batch]:
    """This rank's share of all images."""
    requests = eval_requests(torch.arange(len(images)), rank=rank(), world_size=world_size(), batch_size=batch_size)
    return Loader({"validation": images}).batches(requests)


def toy_network(classes: int = CLASSES, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, classes))


def toy_input() -> ModelInput:
    return ModelInput(torch.tensor([0.5]), torch.tensor([0.25]), torch.device("cpu"), torch.contiguous_format)


def toy_task(num: int, model: nn.Module | None = None) -> Task:
    images = toy_images(num)
    info = SourceInfo(
        name="toy",
        num_classes=CLASSES,
        class_names=("a", "b", "c"),
        channels=1,
        height=6,
        width=6,
        num_train=num,
        num_test=num,
        mean=(0.5,),
        std=(0.25,),
        fingerprint="0",
    )
    return Task(
        model=toy_network() if model is None else model,
        info=info,
        loader=Loader({"train": images, "validation": images}),
        train_indices=torch.arange(num),
        validation_indices=torch.arange(num),
        to_input=toy_input(),
    )
