"""Image files made for tests, and those of the real sample."""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colors that change smoothly, with edges and noise: what JPEG was made for."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-20, 20, (3, 3))]
    pixels = 128 + 100 * np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file; arrays are uint8 [H, W, 3] or [H, W], or uint16 [H, W]."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """All pixels, as torchvision's ImageFolder loads them: uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG by hand; `rows` is what stands in its lines, their filter bytes included."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@functools.cache
def sample_files(shared_data: Path) -> list[bytes]:
    """The 250 JPEGs of the ImageNet sample."""
    files = sorted((shared_data / "imagenet_sample").glob("*.parquet"))
    return [row["bytes"] for file in files for row in pq.read_table(file).column("image").to_pylist()]
