"""Checks of a configuration before anything expensive starts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from inq_ray.data.image_set import Source, SourceInfo, Split
from inq_ray.data.source import named_source
from inq_ray.files.shown import shown
from inq_ray.models.registry import check_arch
from inq_ray.models.selection import check_used_as_stored
from inq_ray.training.config import NetworkConfig, RunConfig
from inq_ray.training.config.option import check_refused
from inq_ray.training.task.build import build_model, encoded, open_data
from inq_ray.training.task.distill import load_teacher
from inq_ray.training.task.groups import groups_of, quantized_names
from inq_ray.training.task.wrapping import check_wrapping

# Images of a split that are looked at for --jpeg-decoder nvjpeg.
_NUM_LOOKED_AT = 32


def check(
    config: RunConfig,
    *,
    evaluate: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    source: Source | None = None,
    needs_weights: bool = True,
) -> tuple[Source, nn.Module]:
    """Check a configuration before anything expensive starts; decodes a few images.

    Args:
        config: The configuration.
        evaluate: Whether the network is only evaluated.
        tell: Called with lines about choices made for files that contain several networks.
        source: Opened data to use instead of the configuration's.
        needs_weights: Whether a network without trained weights is refused.

    Returns:
        The opened source, and the network with its weights, in evaluation mode, on the CPU.

    Raises:
        ValueError: One line that names what was given and what to do.
    """
    network, training, num_held_out = config.network, config.training, config.data.holdout
    check_arch(network.arch)
    check_wrapping("cuda" if config.cluster.use_gpu else "cpu", compile=training.compile, sync_batchnorm=False)
    source = source or open_data(config)
    if needs_weights and network.weights is None:
        _check_no_weights(network, evaluate=evaluate, is_trained=config.float_epochs > 0)
    check_refused(config, source.info)
    _check_validation(source.info, num_held_out)
    if not evaluate:
        _check_batch(source.info, num_held_out, training.batch_size)
    splits: list[Split] = ["test"] if evaluate else ["train", "test"]
    if num_held_out:
        splits = ["train"]
    for split in splits:
        _check_readable(source, split, config.data.skip_bad_images)
        if config.data.jpeg_decoder == "nvjpeg":
            _check_jpegs(source, split)
    model = build_model(config, source.info, tell)
    chosen: list[str] = []
    if not evaluate:
        # --skip may match nothing, or everything
        chosen = quantized_names(groups_of(model, config))
    teacher = None
    if not evaluate and training.teacher is not None:
        teacher = load_teacher(training, network.arch, model, source.info, tell).eval()
    sizes, num_images = {(source.info.height, source.info.width)}, 1
    if not evaluate:
        num_images = training.batch_size // config.cluster.workers.most // training.accumulate
        if source.info.is_streamed and config.data.train_crop_size:
            sizes.add((config.data.train_crop_size,) * 2)
    model.train(not evaluate)
    for size in sizes:  # of the smallest shard of a worker: some networks refuse small batches, or a single image
        images = torch.zeros(min(2, num_images), source.info.channels, *size)
        _check_takes(model, images, f"--arch {network.arch}", source.info)
        if chosen and size == (source.info.height, source.info.width):
            check_used_as_stored(model, chosen, images)
        if teacher is not None:
            what = f"--teacher-arch {training.teacher_arch}" if training.teacher_arch else "--teacher"
            _check_takes(teacher, images, what, source.info)
    return source, model.eval()


def check_given(network: NetworkConfig) -> None:
    """Refuse to measure a network without trained weights.

    Raises:
        ValueError: None are named.
    """
    if network.weights is None:
        raise ValueError("--evaluate measures a trained network: name the file of its weights by --weights")


def _check_no_weights(network: NetworkConfig, *, evaluate: bool, is_trained: bool) -> None:
    """Refuse a network without --weights if trained weights are needed."""
    if network.replace_head:
        raise ValueError("--replace-head applies to trained weights: name them with --weights")
    if evaluate:
        check_given(network)
    if not is_trained:
        raise ValueError(
            "there are no trained weights to quantize: pass a file with --weights, train first with --float-epochs N, "
            "or only train with --plain"
        )


def _check_validation(info: SourceInfo, num_held_out: int) -> None:
    """Refuse data without images to measure accuracy on."""
    if num_held_out >= max(1, info.num_train):
        raise ValueError(f"--holdout {num_held_out} leaves none of the {info.num_train} training images to train on")
    if num_held_out == 0 and info.num_test == 0:
        raise ValueError(
            f"--data {info.name} has no images to validate on (val/CLASS/, validation-*.parquet or test-*.parquet): "
            "add some, or hold out training images with --holdout N"
        )


def _check_readable(source: Source, split: Split, num_skipped: int) -> None:
    """Refuse data if one of the first images cannot be read, unless that many may be left out."""
    seen = source.peek(split)
    if not seen.bad or (source.info.is_streamed and len(seen.labels) and len(seen.bad) <= num_skipped):
        return
    _, name, reason = seen.bad[0]
    advice = ""
    if len(seen.labels):
        advice = ", or leave out such images with --skip-bad-images N" if source.info.is_streamed else ""
        advice = f": repair or remove it{advice}"
    share = f"{len(seen.bad)} of the first {len(seen.labels) + len(seen.bad)} images"
    raise ValueError(f"{share} cannot be read ({name[-100:]}: {reason[:120]}){advice}")


def _check_jpegs(source: Source, split: Split) -> None:
    """Refuse --jpeg-decoder nvjpeg if none of some images of a split is for nvJPEG."""
    from inq_ray.data.decode.nvjpeg import check_headers, takes

    check_headers()
    images = encoded(source.split(split))
    num = min(_NUM_LOOKED_AT, len(images))
    # Images of a folder are in the order of classes. Those of a row group of Parquet are read together.
    places = torch.arange(num) * len(images) // num if images.groups is None else torch.arange(num)
    files = [each.data for _, each in images.read_files(places)]
    if not any(data is not None and takes(data) for data in files):
        raise ValueError(
            f"--jpeg-decoder nvjpeg: none of {num} images of {shown(source.info.name)} is a JPEG that it decodes "
            "(baseline, in colors or gray): leave it out"
        )


def _check_batch(info: SourceInfo, num_held_out: int, batch_size: int) -> None:
    """Refuse data with fewer training images than a global batch."""
    if info.num_train == 0:
        raise ValueError(
            f"--data {info.name} has no images to train on (train/CLASS/ or train-*.parquet): it works with "
            "--evaluate only"
        )
    num_train = info.num_train - num_held_out
    if batch_size > num_train:
        raise ValueError(
            f"--batch-size {batch_size} (global) is more than the {num_train} training images: use at most {num_train}"
        )


def _check_takes(model: nn.Module, images: Tensor, flag: str, info: SourceInfo) -> None:
    """Refuse a network that does not turn these images into logits; ``flag`` names it, with its value."""
    try:
        _check_logits(model, images, flag, info)
    except ValueError as error:
        raise ValueError(f"{error}{_advice_on_channels(model, images, info)}") from error


def _advice_on_channels(model: nn.Module, images: Tensor, info: SourceInfo) -> str:
    """Return advice to use gray images, or colors, if the network accepts those instead; else nothing."""
    if named_source(info.name) is not None:
        return ""
    channels, what = (1, "converts images to gray") if info.channels == 3 else (3, "gives gray images three channels")
    try:
        _check_logits(model, images[:, :1].expand(-1, channels, -1, -1), "", info)
    except ValueError:
        return ""
    return f"; --channels {channels} {what}"


def _check_logits(model: nn.Module, images: Tensor, flag: str, info: SourceInfo) -> None:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # keeps BatchNorm's statistics
    what = f"{len(images)} image(s) per worker of shape {list(images.shape[1:])} (channels, height, width)"
    try:
        with torch.no_grad():
            logits = torch.func.functional_call(model, buffers, (images,))
    except Exception as error:  # torch's networks raise several types, a user's own may raise anything
        reason = (str(error).strip().splitlines() or [""])[0]
        if not isinstance(error, AssertionError | RuntimeError | ValueError) or not reason:
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        raise ValueError(f"{flag} does not accept {what} from --data {info.name}: {reason}") from error
    expected = [len(images), info.num_classes]
    if not isinstance(logits, Tensor) or list(logits.shape) != expected:
        got = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"{flag} returns {got} for {what}: it must return logits {expected}")
