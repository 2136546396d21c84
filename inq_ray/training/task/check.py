"""Check a configuration before anything expensive starts."""

import copy

import torch
from torch import Tensor, nn

from inq_ray.data.image_set import Source, SourceInfo
from inq_ray.models.registry import check_arch
from inq_ray.models.selection import param_groups
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import check_refused
from inq_ray.training.task.build import build_model, open_data
from inq_ray.training.task.distill import load_teacher
from inq_ray.training.task.wrapping import check_wrapping


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
    check_refused(config, source.info)
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
