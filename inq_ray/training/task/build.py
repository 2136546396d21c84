"""From a configuration to what a run works on: network, data, transforms."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inq_ray.data.image_set import Images, Source, SourceInfo
from inq_ray.data.loader import Loader
from inq_ray.data.order.epoch import holdout
from inq_ray.data.order.groups import fitting_workers
from inq_ray.data.preprocessing import Augmentation, Interpolation, Preprocessing
from inq_ray.data.source import open_source
from inq_ray.models.preset import input_preset
from inq_ray.models.pretrained import resolve_weights
from inq_ray.models.registry import create
from inq_ray.models.shapes import head_parameters
from inq_ray.models.weights import load_weights
from inq_ray.training.config import RunConfig
from inq_ray.training.task.model_input import ModelInput


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run works on.

    Attributes:
        model: the network, on its device, the same on every rank.
        info: facts about the data.
        loader: reads the sets "train" and "validation".
        train_indices: int64, those images of the one that are trained on.
        validation_indices: int64, those images of the other on which accuracy is measured.
        to_input: from stored images to what the network takes.
    """

    model: nn.Module
    info: SourceInfo
    loader: Loader
    train_indices: Tensor
    validation_indices: Tensor
    to_input: ModelInput


def build_task(
    config: RunConfig, device: torch.device, *, evaluate: bool = False, fingerprint: str | None = None
) -> Task:
    """Opens the data, makes the network and loads its weights.

    Args:
        config: the configuration.
        device: where the network goes.
        evaluate: nothing will be trained: only the images to validate on are looked at, ``train_indices`` is empty.
        fingerprint: what the data must be: those with which the driver began.

    Raises:
        ValueError: data, network or weights are not there or do not fit; one line.
    """
    source = open_data(config, fingerprint)
    if config.data.holdout:
        train = validation = source.split("train")
        train_indices, validation_indices = split_holdout(config, train)
    else:
        validation = source.split("test")
        train = validation if evaluate else source.split("train")
        train_indices, validation_indices = torch.arange(len(train)), torch.arange(len(validation))
    if evaluate:
        train_indices = train_indices[:0]
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    return Task(
        model=build_model(config, source.info).to(device, memory_format=memory_format),  # type: ignore[call-overload]
        info=source.info,
        loader=Loader(
            {"train": train, "validation": validation},
            num_workers=num_loader_workers(config, source.info, train),
            pin_memory=device.type == "cuda",
        ),
        train_indices=train_indices,
        validation_indices=validation_indices,
        to_input=ModelInput(
            mean=torch.tensor(source.info.mean),
            std=torch.tensor(source.info.std),
            device=device,
            memory_format=memory_format,
        ),
    )


def open_data(config: RunConfig, fingerprint: str | None = None) -> Source:
    """The data, as the network wants to see them.

    Raises:
        ValueError: they are not there, or not of a known layout, or others than those of the fingerprint.
    """
    data = config.data
    return open_source(
        data.data,
        preprocessing=image_preset(config),
        augmentation=Augmentation(auto_augment=data.auto_augment, random_erasing=data.random_erasing),
        index_folder=Path(config.output.storage_path).expanduser().absolute() / ".index",
        fingerprint=fingerprint,
        follow_links=data.follow_links,
    )


def image_preset(config: RunConfig) -> Preprocessing:
    """How the network sees images: as its weights state it, but for what the flags say.

    Raises:
        ValueError: there is no such network, no such weights of it, or a size is not possible.
    """
    data = config.data
    is_auto = data.interpolation == "auto"
    stated = input_preset(config.network.arch, config.network.weights)
    crop_size = data.crop_size or stated.crop_size
    # Another crop keeps its share of the resized image, as 224 of 256 is.
    resize_size = data.resize_size or round(crop_size * stated.resize_size / stated.crop_size)
    if resize_size < crop_size:
        raise ValueError(
            f"--resize-size {resize_size} is less than the {crop_size} pixels of the crop, which would get black "
            f"borders: take at least {crop_size}, or a smaller --crop-size"
        )
    return Preprocessing(
        crop_size=crop_size,
        resize_size=resize_size,
        train_crop_size=data.train_crop_size,
        interpolation=cast(Interpolation, stated.interpolation if is_auto else data.interpolation),
        mean=_of_channels(data.mean or stated.mean),
        std=_of_channels(data.std or stated.std),
    )


def _of_channels(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values if len(values) == 3 else values * 3
    return red, green, blue


def num_loader_workers(config: RunConfig, info: SourceInfo, train: Images) -> int:
    """Processes of each rank that read images; memory is read by the rank itself."""
    if config.data.loader_workers is not None:
        return config.data.loader_workers
    num_cpus = config.cluster.cpus_per_worker
    if not info.is_streamed:
        return 0
    return num_cpus if train.groups is None else fitting_workers(num_cpus)


def build_model(config: RunConfig, info: SourceInfo) -> nn.Module:
    """The network with its weights, or with fresh ones that are a function of the seed; on the CPU.

    Raises:
        ValueError: there is no such network, or the weights do not fit it.
    """
    network = config.network
    torch.manual_seed(config.training.seed)
    size = info.height if info.is_streamed else None
    model = create(network.arch, num_classes=info.num_classes, in_channels=info.channels, image_size=size)
    path = resolve_weights(network.arch, network.weights)
    if path is not None:
        head = head_parameters(network.arch, info.channels) if network.replace_head else frozenset()
        fresh = load_weights(model, path, replace_head=head).fresh
        if fresh and config.float_epochs == 0:
            raise ValueError(
                f"--replace-head: {', '.join(fresh)} start fresh: train them before they are quantized, by "
                "--float-epochs N"
            )
    return model


def split_holdout(config: RunConfig, train: Images) -> tuple[Tensor, Tensor]:
    """Indices (int64) of the training images that are trained on, and of those held out.

    Where images are read in groups, whole groups are held out but for a part of one: else every validation would read
    nearly all of the set.
    """
    return holdout(len(train), config.data.holdout, config.training.seed, train.groups)


def batchnorm_layers(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
