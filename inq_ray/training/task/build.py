"""From a configuration to the objects of a run: network, data, transforms."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inq_ray.data.image_set import Images, Source, SourceInfo
from inq_ray.data.loader import Loader
from inq_ray.data.order.epoch import holdout
from inq_ray.data.order.groups import fitting_workers
from inq_ray.data.preprocessing import Augmentation, Interpolation, Preprocessing
from inq_ray.data.source import open_source
from inq_ray.distributed.replica import on_rank_0
from inq_ray.models.eval_transform import eval_transform
from inq_ray.models.registry import create
from inq_ray.models.shapes import head_parameters
from inq_ray.models.weights.load import load_weights
from inq_ray.models.weights.pretrained import resolve_weights
from inq_ray.training.config import DataConfig, NetworkConfig, RunConfig
from inq_ray.training.task.model_input import ModelInput

if TYPE_CHECKING:
    from inq_ray.data.encoded_set import EncodedSet


@dataclass(frozen=True, kw_only=True)
class Task:
    """Network and data of a run.

    Attributes:
        model: The network, on its device; of several ranks only rank 0's has the weights of --weights at first.
        info: Facts about the data.
        loader: Loader of the sets "train" and "validation".
        train_indices: int64, images of "train" to train on.
        validation_indices: int64, images of "validation" to measure accuracy on.
        to_input: Transform from stored images to the network's input.
    """

    model: nn.Module
    info: SourceInfo
    loader: Loader
    train_indices: Tensor
    validation_indices: Tensor
    to_input: ModelInput


def build_task(
    config: RunConfig,
    device: torch.device,
    *,
    evaluate: bool = False,
    fingerprint: str | None = None,
    model: nn.Module | None = None,
    source: Source | None = None,
) -> Task:
    """Open the data, build the network and load its weights.

    Args:
        config: The configuration.
        device: Device of the network.
        evaluate: Whether the run only evaluates: training images are not opened, ``train_indices`` is empty.
        fingerprint: Fingerprint that the data must have; None accepts any.
        model: Network to use instead of the configuration's.
        source: Opened data to use instead of the configuration's.

    Raises:
        ValueError: Data, network or weights do not exist or do not fit; one line.
    """
    source = source or open_data(config, fingerprint)
    num_held_out = config.data.holdout
    if num_held_out:
        train = validation = source.split("train")
        train_indices, validation_indices = _split(train, num_held_out, config.training.seed)
    else:
        validation = source.split("test")
        train = validation if evaluate else source.split("train")
        train_indices, validation_indices = torch.arange(len(train)), torch.arange(len(validation))
    if evaluate:
        train_indices = train_indices[:0]
    sets: dict[str, Images] = {"train": train, "validation": validation}
    if config.data.jpeg_decoder == "nvjpeg":
        sets = _decoded_on(device, sets)
    num_workers = config.data.loader_workers
    if num_workers is None:
        num_workers = _num_loader_workers(config.cluster.cpus_per_worker, source.info, train)
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    return Task(
        model=(model or build_model(config, source.info)).to(  # type: ignore[call-overload]
            device, memory_format=memory_format
        ),
        info=source.info,
        loader=Loader(sets, num_workers=num_workers, pin_memory=device.type == "cuda"),
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
    """Return the data with the network's preprocessing.

    Raises:
        ValueError: The data do not exist, have no known layout, or another fingerprint.
    """
    data = config.data
    return open_source(
        data.data,
        preprocessing=preprocessing_of(data, config.network),
        augmentation=image_augmentation(data),
        index_folder=Path(config.output.storage_path).expanduser().absolute() / ".index",
        fingerprint=fingerprint,
        image_column=data.image_column,
        label_column=data.label_column,
        follow_links=data.follow_links,
    )


def encoded(images: Images) -> "EncodedSet":
    """Return images as the set that is read on demand, which they are for --jpeg-decoder nvjpeg."""
    from inq_ray.data.encoded_set import EncodedSet

    assert isinstance(images, EncodedSet)  # others are refused: the option has no effect
    return images


def preprocessing_of(data: DataConfig, network: NetworkConfig) -> Preprocessing:
    """Return the preprocessing: that of the weights, with the changes of the flags.

    Raises:
        ValueError: The network or its weights do not exist, or a size is not possible.
    """
    stated = eval_transform(network.arch, network.weights)
    crop_size = data.crop_size or stated.crop_size
    # Another crop keeps its fraction of the resized image, such as 224 of 256.
    resize_size = data.resize_size or round(crop_size * stated.resize_size / stated.crop_size)
    if resize_size < crop_size:
        raise ValueError(
            f"--resize-size {resize_size} is less than the crop of {crop_size} pixels, which would get black "
            f"borders: use at least {crop_size}, or a smaller --crop-size"
        )
    interpolation = stated.interpolation if data.interpolation == "auto" else data.interpolation
    return Preprocessing(
        crop_size=crop_size,
        resize_size=resize_size,
        train_crop_size=data.train_crop_size,
        interpolation=cast(Interpolation, interpolation),
        mean=_of_channels(data.mean or stated.mean),
        std=_of_channels(data.std or stated.std),
        channels=data.channels,
        is_sized=any((data.crop_size, data.resize_size, data.train_crop_size)),
    )


def image_augmentation(data: DataConfig) -> Augmentation:
    """Return the augmentation for training."""
    (least, most), (narrow, wide) = data.crop_scale, data.crop_ratio
    return Augmentation(
        auto_augment=data.auto_augment,
        random_erasing=data.random_erasing,
        flip=data.flip,
        scale=(least, most),
        ratio=(narrow, wide),
        crop_padding=data.crop_padding,
        padding_mode=data.padding_mode,
    )


def _decoded_on(device: torch.device, sets: dict[str, Images]) -> dict[str, Images]:
    """Return sets that are read on demand, with JPEGs decoded on a device (--jpeg-decoder nvjpeg).

    Raises:
        ValueError: That does not work on this machine.
    """
    # Images in memory need none of these imports, which take seconds.
    from inq_ray.data.decode.nvjpeg import check_decoder
    from inq_ray.data.jpeg_set import JpegSet

    check_decoder(device)
    return {name: JpegSet(encoded(images), device) for name, images in sets.items()}


def _of_channels(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values if len(values) == 3 else values * 3
    return red, green, blue


def _num_loader_workers(num_cpus: int, info: SourceInfo, train: Images) -> int:
    """Return the number of loader processes per rank; images in memory are read by the rank itself."""
    if not info.is_streamed:
        return 0
    return num_cpus if train.groups is None else fitting_workers(num_cpus)


def build_model(config: RunConfig, info: SourceInfo, tell: Callable[[str], None] = lambda _: None) -> nn.Module:
    """Return the network with its weights, or with random ones determined by the seed; on the CPU.

    Every rank calls it, but only rank 0 reads or downloads weights: others have random ones until they get rank 0's.

    Args:
        config: The configuration.
        info: Facts about the data.
        tell: Called on rank 0 with a line about the tensors loaded from a file, if there was a choice.

    Raises:
        ValueError: The network does not exist, or the weights do not fit it; raised on every rank.
    """
    network = config.network
    torch.manual_seed(config.training.seed)
    model = create(
        network.arch, num_classes=info.num_classes, in_channels=info.channels, image_size=image_size_of(info)
    )
    if network.weights is not None:
        on_rank_0(lambda: _load_weights(model, config, info, tell))
    return model


def _load_weights(model: nn.Module, config: RunConfig, info: SourceInfo, tell: Callable[[str], None]) -> None:
    """Load --weights into the network."""
    network = config.network
    path = resolve_weights(network.arch, network.weights)
    assert path is not None
    head = head_parameters(network.arch, info.channels) if network.replace_head else frozenset()
    loaded = load_weights(model, path, replace_head=head)
    if loaded.note:
        tell(loaded.note)
    if loaded.fresh and config.float_epochs == 0:
        raise ValueError(
            f"--replace-head: {', '.join(loaded.fresh)} are random: train them before quantizing, with --float-epochs N"
        )


def image_size_of(info: SourceInfo) -> int | None:
    """Return the height and width of images for networks that are built for one size; None = the published size."""
    return info.height if info.is_streamed else None


def _split(train: Images, num_held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices (int64) of the training images to train on, and of those held out.

    If images are read in groups, whole groups are held out, except a part of one: otherwise every validation would read
    nearly all of the set.
    """
    return holdout(len(train), num_held_out, seed, train.groups)


def batchnorm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
