"""Small images of one size, decoded once for all processes of a node, and memory-mapped from a file."""

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.decode.small import Layout, decode, is_small
from inq_ray.data.encoded import Encoded
from inq_ray.data.image_set import BadImage, Samples
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.node_cache import shared_file
from inq_ray.data.preprocessing import Augmentation, Preprocessing

# Small images of one size are kept in memory if a split has at most this many bytes.
MAX_BYTES = 8 * 2**30
# Resizing by a larger factor is reported.
_LARGEST_FACTOR = 1.5
_LABEL_BYTES = 8


def fits(layout: Layout | None, num_images: int) -> bool:
    """Return whether this many images fit in memory."""
    return layout is not None and is_small(layout) and num_images * layout.num_bytes <= MAX_BYTES


def decoded_set(
    key: str,
    num: int,
    layout: Layout,
    labels: Callable[[], Iterable[NDArray[np.int64]]],
    images: Callable[[Executor], Iterator[NDArray[np.uint8]]],
    augmentation: Augmentation,
    mean: tuple[float, ...],
) -> ImageSet:
    """Return a split in memory, decoded by this process unless another of the node has.

    For training, images are padded and cropped by an eighth of their height (4 pixels for 32x32).

    Args:
        key: Name of the decoded data: other files need another key.
        num: Number of images.
        layout: Layout of each image.
        labels: Yields labels, in parts.
        images: Yields pixels in the same order, uint8 [n, C, H, W], decoded on the given threads.
        augmentation: Augmentation for training.
        mean: Mean per channel.

    Raises:
        ValueError: An image is damaged, or there is not enough space.
        TimeoutError: Another process has been decoding for too long.
    """

    def write(file: BinaryIO) -> None:
        file.writelines(part.tobytes() for part in labels())
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            file.writelines(part.data for part in images(pool))

    path = shared_file(key, num * (_LABEL_BYTES + layout.num_bytes), write)
    crop_flip = CropFlip.of(augmentation, (layout.channels, layout.height, layout.width))
    return ImageSet(*_map(path, num, layout), crop_flip, augmentation, mean)


def decode_some(encoded: Iterable[Encoded], layout: Layout, *, may_lose_colors: bool) -> Samples:
    """Decode some images as they are stored; those that cannot be read are left out and reported."""
    images, labels, bad = [torch.empty(0, layout.channels, layout.height, layout.width, dtype=torch.uint8)], [], []
    for sample, each in enumerate(encoded):
        try:
            pixels = decode_one(each, layout, may_lose_colors=may_lose_colors)
            images.append(torch.from_numpy(pixels.copy())[None])
            labels.append(each.label)
        except ValueError as error:
            bad.append(BadImage(sample, each.name, str(error)))
    return Samples(torch.cat(images), torch.tensor(labels, dtype=torch.int64), tuple(bad))


def decode_one(encoded: Encoded, layout: Layout, *, may_lose_colors: bool) -> NDArray[np.uint8]:
    """Decode an image: uint8 [C, H, W].

    Raises:
        ValueError: The image cannot be read, or has another layout.
    """
    if encoded.data is None:
        raise ValueError(encoded.error)
    return decode(encoded.data, layout, may_lose_colors=may_lose_colors)


def size_notes(name: str, layouts: Collection[Layout], preprocessing: Preprocessing) -> tuple[str, ...]:
    """Return a line if images have several sizes, or if resizing changes them much; else nothing.

    Args:
        name: Name of the data.
        layouts: Layouts of some of the images.
        preprocessing: Preprocessing applied to them.
    """
    if not layouts:
        return ()
    sizes = sorted({(layout.width, layout.height) for layout in layouts}, key=lambda size: (size[0] * size[1], size))
    factors = [preprocessing.resize_size / min(size) for size in sizes]
    if len(sizes) == 1 and max(factors[0], 1 / factors[0]) <= _LARGEST_FACTOR:
        return ()
    shown = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys((sizes[0], sizes[-1])))
    side = min(sizes[0])
    asked = "" if preprocessing.is_sized else f"; --crop-size {side} --resize-size {side} keeps their size"
    advice = asked if len(sizes) == 1 else "; --crop-size and --resize-size change this"
    crop = preprocessing.crop_size
    resized = f"resized to {preprocessing.resize_size} (shorter side) and cropped to {crop}x{crop}"
    return (f"{name}: images of {shown} pixels are {resized}{advice}",)


def _map(path: Path, num: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """Memory-map a decoded file, labels first for alignment; return images and labels."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    with warnings.catch_warnings():
        # Read-only is intended here; torch has no read-only tensors and warns.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = torch.from_numpy(raw)
    labels, images = torch.split(data, [num * _LABEL_BYTES, num * layout.num_bytes])
    return images.view(num, layout.channels, layout.height, layout.width), labels.view(torch.int64)
