"""From a configuration to what a run works on: network, data, transforms."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inq_ray.data.group_order import fitting_workers, holdout_groups
from inq_ray.data.image_set import Images, SourceInfo
from inq_ray.data.loader import Loader
from inq_ray.data.order import holdout
from inq_ray.data.preset import Interpolation, Policy, Preset
from inq_ray.data.source import Source, open_source
from inq_ray.models.preset import input_preset
from inq_ray.models.pretrained import resolve_weights
from inq_ray.models.registry import check_arch, create
from inq_ray.models.selection import param_groups
from inq_ray.models.shapes import head_parameters
from inq_ray.models.weights import load_weights
from inq_ray.training.config import RunConfig
from inq_ray.training.distill import load_teacher
from inq_ray.training.model_input import ModelInput
from inq_ray.training.wrapping import check_wrapping


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
        preset=image_preset(config),
        policy=Policy(auto_augment=data.auto_augment, random_erasing=data.random_erasing),
        index_folder=Path(config.output.storage_path).expanduser().absolute() / ".index",
        fingerprint=fingerprint,
        follow_links=data.follow_links,
    )


def image_preset(config: RunConfig) -> Preset:
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
    return Preset(
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
    count, seed = config.data.holdout, config.training.seed
    if train.groups is None:
        return holdout(len(train), count, seed)
    return holdout_groups(train.groups, count, seed)


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
    check_wrapping("cuda" if config.cluster.use_gpu else "cpu", compile=config.training.compile, sync_batchnorm=False)
    _check_weights_are_named(config, evaluate)
    source = open_data(config)
    _check_flags_matter(config, source.info)
    _check_validation(config, source.info)
    if not evaluate:
        _check_batch(config, source.info)
    model = build_model(config, source.info)
    if not evaluate:
        param_groups(
            model, None if config.plain else config.quantization.weight_bits, skip=config.quantization.skip
        )  # a pattern of --skip may meet nothing, or everything
        if config.training.teacher is not None:
            load_teacher(config, copy.deepcopy(model))
    _check_takes_images(config, model, source.info, evaluate)
    return source, model


def batchnorm_layers(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


def _check_flags_matter(config: RunConfig, info: SourceInfo) -> None:
    """Small images in memory stay as they are, all of them; digits have their own statistics too. Else is refused."""
    data = config.data
    if data.data == "digits" and (data.mean or data.std):
        raise ValueError(f"{'--mean' if data.mean else '--std'} plays no part: digits have their own; leave it out")
    given = {
        "--crop-size": data.crop_size is not None,
        "--train-crop-size": data.train_crop_size is not None,
        "--resize-size": data.resize_size is not None,
        "--interpolation": data.interpolation != "auto",
    }
    if data.skip_bad_images and not info.is_streamed:
        raise ValueError(
            f"--skip-bad-images plays no part: the images of {info.name} are kept in memory, where each has to be "
            "whole; leave it out"
        )
    flags = [flag for flag, is_given in given.items() if is_given]
    if flags and not info.is_streamed:
        raise ValueError(
            f"{flags[0]} plays no part: the images of {info.name} are all of {info.width}x{info.height} pixels, are "
            "kept in memory, and stay as they are; leave it out"
        )


def _check_weights_are_named(config: RunConfig, evaluate: bool) -> None:
    if config.network.weights is not None:
        return
    if config.network.replace_head:
        raise ValueError("--replace-head is about trained weights: name them by --weights")
    if evaluate:
        raise ValueError("--evaluate measures a trained network: name the file of its weights by --weights")
    if not config.plain and config.training.float_epochs == 0:
        raise ValueError(
            "there are no trained weights to quantize: name a file by --weights, train them first by --float-epochs N, "
            "or train only by --plain"
        )


def _check_validation(config: RunConfig, info: SourceInfo) -> None:
    """There must be images to measure accuracy on."""
    if config.data.holdout >= max(1, info.num_train):
        raise ValueError(
            f"--holdout {config.data.holdout} leaves none of the {info.num_train} training images to train on"
        )
    if config.data.holdout == 0 and info.num_test == 0:
        raise ValueError(
            f"--data {info.name} has no images to validate on (val/CLASS/, validation-*.parquet or test-*.parquet): "
            "add them, or hold some out of the training images by --holdout N"
        )


def _check_batch(config: RunConfig, info: SourceInfo) -> None:
    """There must be a whole global batch of training images."""
    if info.num_train == 0:
        raise ValueError(
            f"--data {info.name} has no images to train on (train/CLASS/ or train-*.parquet), only --evaluate is "
            "possible"
        )
    num_train, batch_size = info.num_train - config.data.holdout, config.training.batch_size
    if batch_size > num_train:
        raise ValueError(
            f"--batch-size {batch_size} (global) is more than the {num_train} training images: take at most {num_train}"
        )


def _check_takes_images(config: RunConfig, model: nn.Module, info: SourceInfo, evaluate: bool) -> None:
    """Runs as few images through the network as a worker may have: some networks refuse small ones, or a single one."""
    training, most = config.training, config.cluster.workers.most
    smallest = 1 if evaluate else training.batch_size // most // training.accumulate
    model.train(not evaluate)
    sizes = {(info.height, info.width)}
    if info.is_streamed and config.data.train_crop_size and not evaluate:
        sizes.add((config.data.train_crop_size,) * 2)
    for size in sizes:
        _check_takes(model, torch.zeros(min(2, smallest), info.channels, *size), config.network.arch, info)
    model.eval()


def _check_takes(model: nn.Module, images: Tensor, arch: str, info: SourceInfo) -> None:
    """Refuses a network that does not make logits of images."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # BatchNorm's statistics stay
    what = f"{len(images)} image(s) a worker of {list(images.shape[1:])} (channels, height, width)"
    try:
        with torch.no_grad():
            logits = torch.func.functional_call(model, buffers, (images,))
    except Exception as error:  # torch's networks refuse by several kinds, a user's own may fail with anything
        reason = (str(error).strip().splitlines() or [""])[0]
        if not isinstance(error, AssertionError | RuntimeError | ValueError) or not reason:
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        raise ValueError(f"--arch {arch} does not take {what} from --data {info.name}: {reason}") from error
    expected = [len(images), info.num_classes]
    if not isinstance(logits, Tensor) or list(logits.shape) != expected:
        got = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"--arch {arch} makes {got} of {what}: it must make logits {expected}")
