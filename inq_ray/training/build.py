"""From a configuration to what a run works on: network, data, transforms."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inq_ray.data.image_set import ImageSet, SourceInfo
from inq_ray.data.order import holdout
from inq_ray.data.source import Source, open_source
from inq_ray.data.transforms import Augmentation
from inq_ray.models.registry import check_arch, create
from inq_ray.models.weights import load_weights
from inq_ray.training.config import RunConfig
from inq_ray.training.model_input import ModelInput


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run works on.

    Attributes:
        model: the network, on its device, the same on every rank.
        info: facts about the data.
        train: training images; ``train_indices`` (int64) are those that are trained on.
        validation: images on which accuracy is measured; ``validation_indices`` (int64) of them.
        augmentation: of training images.
        to_input: from stored images to what the network takes.
    """

    model: nn.Module
    info: SourceInfo
    train: ImageSet
    train_indices: Tensor
    validation: ImageSet
    validation_indices: Tensor
    augmentation: Augmentation
    to_input: ModelInput


def build_task(config: RunConfig, device: torch.device) -> Task:
    """Opens and decodes the data, makes the network and loads its weights.

    Raises:
        ValueError: data, network or weights are not there or do not fit; one line.
    """
    source = open_source(config.data.data)
    train = source.split("train")
    train_indices = torch.arange(len(train))
    if config.data.holdout:
        train_indices, validation_indices = split_holdout(config, source.info)
        validation = train
    else:
        validation = source.split("test")
        validation_indices = torch.arange(len(validation))
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    return Task(
        model=build_model(config, source.info).to(device, memory_format=memory_format),  # type: ignore[call-overload]
        info=source.info,
        train=train,
        train_indices=train_indices,
        validation=validation,
        validation_indices=validation_indices,
        augmentation=source.augmentation,
        to_input=ModelInput(
            mean=torch.tensor(source.info.mean),
            std=torch.tensor(source.info.std),
            device=device,
            memory_format=memory_format,
        ),
    )


def build_model(config: RunConfig, info: SourceInfo) -> nn.Module:
    """The network with its weights, or with fresh ones that are a function of the seed; on the CPU.

    Raises:
        ValueError: there is no such network, or the weights do not fit it.
    """
    torch.manual_seed(config.training.seed)
    model = create(config.network.arch, num_classes=info.num_classes, in_channels=info.channels)
    if config.network.weights is not None:
        load_weights(model, config.network.weights)
    return model


def split_holdout(config: RunConfig, info: SourceInfo) -> tuple[Tensor, Tensor]:
    """Indices (int64) of the training images that are trained on, and of those held out.

    Raises:
        ValueError: more are to be held out than there are.
    """
    if config.data.holdout >= info.num_train:
        raise ValueError(f"--holdout must be below the {info.num_train} training images, got {config.data.holdout}")
    return holdout(info.num_train, config.data.holdout, config.training.seed)


def check(config: RunConfig) -> tuple[Source, nn.Module]:
    """Finds what is wrong with a configuration before anything expensive starts; decodes no image.

    Returns:
        The opened source, and the network with its weights.

    Raises:
        ValueError: one line that names what was given and what to do.
    """
    check_arch(config.network.arch)
    source = open_source(config.data.data)
    info = source.info
    training = config.training
    if not config.plain and config.network.weights is None and training.float_epochs == 0:
        raise ValueError(
            "there are no trained weights to quantize: name a file by --weights, train them first by --float-epochs N, "
            "or train only by --plain"
        )
    num_train = len(split_holdout(config, info)[0]) if config.data.holdout else info.num_train
    if training.batch_size > num_train:
        raise ValueError(f"--batch-size {training.batch_size} is more than the {num_train} training images")
    return source, build_model(config, info)
