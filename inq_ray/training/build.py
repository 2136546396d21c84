"""From a configuration to what a run works on: network, data, transforms."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inq_ray.data.image_set import ImageSet, SourceInfo
from inq_ray.data.order import holdout
from inq_ray.data.source import Source, open_source
from inq_ray.data.transforms import Augmentation
from inq_ray.models.registry import check_arch, create
from inq_ray.models.selection import param_groups
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


def build_task(config: RunConfig, device: torch.device, *, evaluate: bool = False) -> Task:
    """Opens and decodes the data, makes the network and loads its weights.

    Args:
        config: the configuration.
        device: where the network goes.
        evaluate: nothing will be trained: only the images to validate on are decoded, ``train_indices`` is empty.

    Raises:
        ValueError: data, network or weights are not there or do not fit; one line.
    """
    source = open_source(config.data.data)
    if config.data.holdout:
        train = validation = source.split("train")
        train_indices, validation_indices = split_holdout(config, source.info)
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
        raise ValueError(
            f"--holdout {config.data.holdout} leaves none of the {info.num_train} training images to train on"
        )
    return holdout(info.num_train, config.data.holdout, config.training.seed)


def check(config: RunConfig, *, evaluate: bool = False) -> tuple[Source, nn.Module]:
    """Finds what is wrong with a configuration before anything expensive starts; decodes no image.

    Args:
        config: the configuration.
        evaluate: the network is only to be evaluated, as it is.

    Returns:
        The opened source, and the network with its weights, in evaluation mode, on the CPU.

    Raises:
        ValueError: one line that names what was given and what to do.
    """
    check_arch(config.network.arch)
    source = open_source(config.data.data)
    _check_weights_are_named(config, evaluate)
    if config.data.holdout:
        split_holdout(config, source.info)
    if not evaluate:
        _check_batch(config, source.info)
    model = build_model(config, source.info)
    if not evaluate:
        param_groups(
            model, None if config.plain else config.quantization.weight_bits, skip=config.quantization.skip
        )  # a pattern of --skip may meet nothing, or everything
    _check_takes_images(config, model, source.info, evaluate)
    return source, model


def _check_weights_are_named(config: RunConfig, evaluate: bool) -> None:
    if config.network.weights is not None:
        return
    if evaluate:
        raise ValueError("--evaluate measures a trained network: name the file of its weights by --weights")
    if not config.plain and config.training.float_epochs == 0:
        raise ValueError(
            "there are no trained weights to quantize: name a file by --weights, train them first by --float-epochs N, "
            "or train only by --plain"
        )


def _check_batch(config: RunConfig, info: SourceInfo) -> None:
    """There must be a whole global batch of training images."""
    if info.num_train == 0:
        raise ValueError(f"--data {info.name} has no images to train on (train-*.parquet), only --evaluate is possible")
    num_train, batch_size = info.num_train - config.data.holdout, config.training.batch_size
    if batch_size > num_train:
        raise ValueError(
            f"--batch-size {batch_size} (global) is more than the {num_train} training images: take at most {num_train}"
        )


def _check_takes_images(config: RunConfig, model: nn.Module, info: SourceInfo, evaluate: bool) -> None:
    """Runs as few images through the network as a worker may have: some networks refuse small ones, or a single one."""
    smallest = 1 if evaluate else config.training.batch_size // config.cluster.num_workers // config.training.accumulate
    images = torch.zeros(min(2, smallest), info.channels, info.height, info.width)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # BatchNorm's statistics stay
    model.train(not evaluate)
    try:
        with torch.no_grad():
            torch.func.functional_call(model, buffers, (images,))
    except (AssertionError, RuntimeError, ValueError) as error:  # torchvision and torch refuse by any of these
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--arch {config.network.arch} does not take {len(images)} image(s) a worker of {list(images.shape[1:])} "
            f"(channels, height, width) from --data {info.name}: {reason}"
        ) from None
    model.eval()
