"""Preprocessing and augmentation in lines for the user, with the origin of each setting."""

from inq_ray.data.image_set import SourceInfo
from inq_ray.data.preprocessing import Augmentation, PaddingMode
from inq_ray.data.source import named_source
from inq_ray.files.shown import shown
from inq_ray.models.weights.files import is_weights_file
from inq_ray.training.config import DataConfig, NetworkConfig
from inq_ray.training.task.build import image_augmentation, preprocessing_of

_PADDED_WITH: dict[PaddingMode, str] = {
    "constant": "black",
    "edge": "the pixels of the edge",
    "reflect": "the mirrored image",
}
# Number of classes that are printed, in addition to the last one.
_NUM_CLASSES = 5


def describe_classes(info: SourceInfo) -> list[str]:
    """Return a line with the order of the classes, which the weights must share; none if their names are numbers.

    Args:
        info: Facts about the data.
    """
    names = [shown(name, 30) for name in info.class_names]
    if names == [str(number) for number in range(len(names))]:
        return []
    first = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_NUM_CLASSES]))
    last = f", ..., {len(names) - 1} {names[-1]}" if len(names) > _NUM_CLASSES else ""
    return [f"classes: {first}{last}"]


def describe_images(data: DataConfig, network: NetworkConfig, info: SourceInfo, *, is_trained: bool) -> list[str]:
    """Return a line about the network's input, one about validation, and one about training.

    Args:
        data: Options for images.
        network: The network, whose weights may set the preprocessing.
        info: Facts about the data.
        is_trained: Whether the run trains.
    """
    seen = preprocessing_of(data, network)
    stated = "assumed" if network.weights is None or is_weights_file(network.weights) else "weights"
    named = named_source(info.name)

    def origin(flag: object, otherwise: str = stated) -> str:
        return "flag" if flag else otherwise

    own = "data" if named is not None and named.has_own_statistics else stated
    size = f"{info.channels}x{info.height}x{info.width}"
    mean = f"mean {_text(info.mean)} ({origin(data.mean, own)})"
    std = f"std {_text(info.std)} ({origin(data.std, own)})"
    why = _why(data, info, stated)
    lines = [f"images: {size} (channels, height, width; {why}), normalized by {mean} and {std}"]
    if info.is_streamed:
        lines.append(
            f"validation: shorter side resized to {seen.resize_size} ({origin(data.resize_size or data.crop_size)}), "
            f"center crop of {seen.crop_size}x{seen.crop_size} ({origin(data.crop_size)}), {seen.interpolation} "
            f"({origin(data.interpolation != 'auto')})"
        )
    else:
        lines.append("validation: images unchanged (data: they are small and of one size)")
    if data.jpeg_decoder == "nvjpeg":
        lines.append(
            "decoding: baseline JPEGs by nvJPEG on the GPU, all other images on the CPU (flag); bits of pixels, and so "
            "of results, differ from those with --jpeg-decoder cpu"
        )
    if info.name != data.data:
        lines.insert(0, f"data: read from {info.name}")
    if is_trained:
        lines.append(f"training: {_training(data, network, info)}")
    return lines


def _why(data: DataConfig, info: SourceInfo, stated: str) -> str:
    """Return the origins of size and channels."""
    size = "data" if not info.is_streamed else "flag" if data.crop_size else stated
    channels = "flag" if data.channels else "data" if not info.is_streamed or info.channels == 1 else "default"
    return size if size == channels else f"channels: {channels}, size: {size}"


def _training(data: DataConfig, network: NetworkConfig, info: SourceInfo) -> str:
    augmentation, seen = image_augmentation(data), preprocessing_of(data, network)
    if info.is_streamed:
        scale, ratio = (_text(part).replace(" ", " to ") for part in (augmentation.scale, augmentation.ratio))
        size = f"{seen.train_size}x{seen.train_size}"
        crop = f"random crop of {scale} of the area, width / height {ratio}, resized to {size}"
    else:
        crop = _padding(augmentation, info)
    flip = "half of the images mirrored" if augmentation.flips(info.channels) else "not mirrored"
    why = "flag" if data.flip is not None else "default for colors" if info.channels == 3 else "default for gray"
    return (
        f"{crop}; {flip} ({why}: --flip, --no-flip); auto-augment {augmentation.auto_augment}; "
        f"random erasing {augmentation.random_erasing:g}"
    )


def _padding(augmentation: Augmentation, info: SourceInfo) -> str:
    padding = augmentation.padding(info.height, info.width)
    if not padding:
        return "not cropped (flag)" if augmentation.crop_padding == 0 else "not cropped (data: too small)"
    return f"padded by {padding} with {_PADDED_WITH[augmentation.padding_mode]} and cropped back at random"


def _text(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
