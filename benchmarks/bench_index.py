"""Cost of the index of an image folder, and a check that a reader's memory does not grow with the folder.

Folders of 20,000 and 200,000 images in 1000 classes, made of hard links to a small JPEG per class, so that they need
little disk space. Each row is measured in a process of its own.
"""

import io
import os
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from timing import show

from inq_ray.data.folder.cache import find_index
from inq_ray.data.folder.source import FolderReader
from inq_ray.storage.address import locate

NUM_CLASSES = 1000
SIZES = (20_000, 200_000)
NUM_READ = 2000


class Figures(NamedTuple):
    """Figures of one process."""

    seconds: float
    grown: int  # private, anonymous memory after it, bytes


def make_folder(root: Path, num_images: int) -> None:
    """Create the folder."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG")
    for label in range(NUM_CLASSES):
        folder = root / "train" / f"n{label:08d}"
        folder.mkdir(parents=True)
        first = folder / f"{folder.name}_0.JPEG"
        first.write_bytes(file.getvalue())
        for number in range(1, num_images // NUM_CLASSES):
            os.link(first, folder / f"{folder.name}_{number}.JPEG")


def measure(call: Callable[..., object], *args: object) -> Figures:
    """Return the cost of a call in this process."""
    before, start = anonymous_bytes(), time.perf_counter()
    call(*args)
    return Figures(time.perf_counter() - start, anonymous_bytes() - before)


def anonymous_bytes() -> int:
    """Return this process's own memory, without pages of files, which all processes of a node share."""
    return 1024 * int(re.findall(r"Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())[0])


def index(root: str, place: Path) -> None:
    """Create the index, or open the existing one."""
    find_index(locate(root), place)


def scan(root: str) -> None:
    """List all files with their sizes by os.scandir, as the least that an index has to do."""
    for folder in os.scandir(Path(root, "train")):
        for file in os.scandir(folder):
            assert file.stat().st_size


def measure_reading(root: str, path: Path, num_images: int) -> Figures:
    """Return the cost of reading, after a first batch in which libraries initialize."""
    reader = FolderReader(locate(root).join("train"), path, "train", num_images)
    reader.read(np.arange(100))
    return measure(read, reader, num_images)


def read(reader: FolderReader, num_images: int) -> None:
    """Read some images, in random order, in batches."""
    for samples in np.split(np.random.default_rng(0).permutation(num_images)[:NUM_READ], NUM_READ // 100):
        assert all(encoded.data for encoded in reader.read(samples))


def alone(call: Callable[..., Figures], *args: object) -> Figures:
    """Call a function that returns figures in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *args).result()


def rows_of(num_images: int, folder: Path) -> list[tuple[str, ...]]:
    """Measure one folder."""
    root, place = folder / "images", folder / "index"
    make_folder(root, num_images)
    time.sleep(2.5)  # folders that changed a moment ago are not trusted to be unchanged
    least = alone(measure, scan, str(root))
    listing = alone(measure, index, str(root), place)
    (path,) = place.iterdir()
    again = alone(measure, index, str(root), place)
    reading = alone(measure_reading, str(root), path, num_images)
    return [
        (
            *(f"{num_images:,}", name, f"{figures.seconds:.2f}", f"{figures.seconds / least.seconds:.2f}"),
            *(f"{figures.grown / 2**20:.1f}", note),
        )
        for name, figures, note in (
            ("sizes by os.scandir", least, "reference"),
            ("list and write the index", listing, f"{path.stat().st_size / 2**20:.1f} MiB on disc"),
            ("open it again", again, f"{NUM_CLASSES} folders looked at"),
            (f"read {NUM_READ} images", reading, f"{1e6 * reading.seconds / NUM_READ:.0f} us an image"),
        )
    ]


def main() -> None:
    """Print the table."""
    rows = []
    for num_images in SIZES:
        with tempfile.TemporaryDirectory() as name:
            os.environ["INQ_RAY_CACHE"] = name
            rows += rows_of(num_images, Path(name))
    title = f"Index of a folder of {NUM_CLASSES} classes, {len(os.sched_getaffinity(0))} cores"
    show(title, ("images", "", "seconds", "ratio", "own memory grew by MiB", ""), rows)


if __name__ == "__main__":
    main()
