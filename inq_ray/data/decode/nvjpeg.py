"""nvJPEG, NVIDIA's decoder of JPEGs on GPUs, by torchvision.io: which files it gets, and batches of them.

It gets baseline JPEGs of one scan, which GPUs decode fastest; a progressive one would keep the rank's process busy.

Pixels differ from libjpeg-turbo's by rounding, and by how subsampled colors are interpolated. torchvision (0.29):

- fails for a whole batch if one file cannot be decoded: the files are then decoded one by one;
- decodes on a stream of its own, into memory that kernels in the queue of the caller's stream may still read
  (https://github.com/pytorch/vision/pull/9606): here the caller's stream is one that is empty;
- warns that its decoders are deprecated;
- leaks memory with CUDA before 11.6, which torch does not support any more.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from inq_ray.data.decode.turbojpeg import decode_part, library, read_header
from inq_ray.files.shown import one_line

# Greatest number of pixels of the images that are decoded at once, unless a single one has more: 200 MB.
MAX_PIXELS_AT_ONCE = 2**26
_LAST_SUBSAMPLING = 5  # 4:1:1; nvJPEG does not know 4:4:1
_START_OF_SCAN, _BASELINE = 0xDA, 0xC0
# Frames that are not baseline, such as progressive ones, with the rare markers among them.
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xCC}
# In a scan, a byte FF is followed by 00, or by the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_PROBE_SIDE = 16


def takes(data: bytes) -> bool:
    """Return whether a file is a JPEG for nvJPEG: baseline, of one scan, in colors or gray, and not broken.

    It is not broken if libjpeg-turbo decodes its first pixel and it has no marker within its scan: other damage changes
    pixels, but no decoder refuses it. So images count as unreadable as they do without nvJPEG.
    """
    header = read_header(data)
    if header is None or header.subsampling > _LAST_SUBSAMPLING:
        return False
    scan = _scan(data)
    if scan is None:
        return False
    marker = _MARKER.search(data, scan)
    if marker is None or marker.end() != len(data):
        return False
    return decode_part(data, header, 0, 0, 1, 1) is not None


def decode_batch(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """Decode JPEGs on a device: nvJPEG on a GPU, libjpeg-turbo on a CPU.

    Args:
        files: Contents of each file, uint8 [n], on the CPU.
        device: Device, also of the result.

    Returns:
        For each file uint8 [3, height, width]; None if it cannot be decoded.
    """
    try:
        return [*_decode(files, device)]
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # not the fault of a file: pixels must not depend on the free memory of the GPU
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [pixels for file in files for pixels in decode_batch([file], device)]


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run the block on a stream of a GPU that only decoding uses, and wait for it; do nothing on a CPU."""
    if device.type != "cuda":
        yield
        return
    stream = _stream(device)
    with torch.cuda.stream(stream):
        try:
            yield
        finally:
            stream.synchronize()  # files and pixels are free from here on


def handed_over(pixels: Tensor) -> Tensor:
    """Return pixels that were computed in `own_stream`, for use on the caller's stream."""
    if pixels.device.type == "cuda":
        # Their memory is not used again before the caller's kernels have ended.
        pixels.record_stream(torch.cuda.current_stream(pixels.device))
    return pixels


def check_decoder(device: torch.device) -> None:
    """Refuse a machine on which nvJPEG cannot be used.

    Args:
        device: Device on which images are to be decoded.

    Raises:
        ValueError: torchvision has no nvJPEG, its nvJPEG does not work, or there is no libjpeg-turbo.
    """
    check_headers()
    try:
        from torchvision.io import encode_jpeg

        with warnings.catch_warnings(action="ignore"), own_stream(device):
            file = encode_jpeg(torch.zeros(3, _PROBE_SIDE, _PROBE_SIDE, dtype=torch.uint8))
            _decode([file], device)
    except (ImportError, RuntimeError) as error:
        reason = one_line(error, 150)
        raise ValueError(f"--jpeg-decoder nvjpeg: torchvision cannot decode on {device}: {reason}; use cpu") from None


def check_headers() -> None:
    """Refuse a machine on which headers of JPEGs cannot be read, so that nvJPEG would get none.

    Raises:
        ValueError: There is no libjpeg-turbo.
    """
    if library() is None:
        raise ValueError(
            "--jpeg-decoder nvjpeg needs libjpeg-turbo 3 or newer, which reads the headers: pip install turbojpeg, or "
            "leave it out"
        )


def _scan(data: bytes) -> int | None:
    """Return where the first scan of a baseline JPEG begins; None for other JPEGs."""
    position, is_baseline = 2, False
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        if marker in _OTHER_FRAMES:
            return None
        is_baseline = is_baseline or marker == _BASELINE
        position += 2 + size
        if marker == _START_OF_SCAN:
            return position if is_baseline else None
    return None


def _decode(files: list[Tensor], device: torch.device) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg

    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # see above
    with warnings.catch_warnings(action="ignore"):
        decoded: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device)
    return decoded


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
