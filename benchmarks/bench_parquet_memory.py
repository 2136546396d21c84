"""Memory and speed of reading Parquet by row groups: private memory of a loader worker, for a small and a large set.

The sets are the sample's images (../shared/data/imagenet_sample), repeated, in shards of about 500 MB, written to a
temporary folder by the writer of `inq-ray parquet`, and removed afterwards. Each figure is of a process of its own that
reads what one of W loader workers reads in an epoch of one rank: files only, without decoding. Files are in the page
cache, if they fit: this measures the program, not the disk.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from timing import show

from inq_ray.data.encoded import Encoded
from inq_ray.data.order.groups import GroupOrder
from inq_ray.data.parquet import reader as parquet_reader
from inq_ray.data.parquet.files import find_files, read_shards
from inq_ray.data.parquet.writer import plan_split, write_shards
from inq_ray.storage.address import locate

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "imagenet_sample"
BATCH_SIZE = 256
ROWS_PER_GROUP = 100


class Repeated:
    """The sample's images, repeated, as a reader for the writer."""

    groups = None

    def __init__(self, num_bytes: int) -> None:
        tables = [pq.read_table(path) for path in sorted(SAMPLE.glob("train-*.parquet"))]
        rows = [row for table in tables for row in table.to_pylist()]
        self.images = [Encoded(row["image"]["path"], row["image"]["bytes"], row["label"]) for row in rows]
        size = sum(len(image.data or b"") for image in self.images)
        self.num = num_bytes * len(self.images) // size

    def __len__(self) -> int:
        return self.num

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Return images by index."""
        return [self.images[sample % len(self.images)] for sample in samples.tolist()]


class Figures(NamedTuple):
    """Figures of one process; memory in MB, private: without memory shared with other processes."""

    num_images: int
    before: float
    peak: float
    mean: float
    at_once: float
    num_reads: int
    num_groups: int
    megabytes_per_second: float


def private_megabytes() -> float:
    """Return this process's private memory, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000


def write(folder: Path, num_bytes: int) -> None:
    """Write a set."""
    plan = plan_split(
        "train", [str(number) for number in range(1000)], Repeated(num_bytes), seed=0, shard_bytes=5 * 10**8
    )
    start = time.perf_counter()
    shards = list(write_shards(plan, locate(str(folder)), rows_per_group=ROWS_PER_GROUP))
    seconds = time.perf_counter() - start
    total = sum(shard.num_bytes for shard in shards) / 1e6
    print(f"wrote {total:,.0f} MB in {len(shards)} shards, {total / seconds:,.0f} MB/s")


def read(folder: str, num_workers: int) -> Figures:
    """Read what the first of `num_workers` loader workers reads in an epoch, and measure it."""
    torch.set_num_threads(1)
    num_reads = 0
    original = parquet_reader.read_groups

    def counted(*arguments: object) -> object:
        nonlocal num_reads
        num_reads += 1
        return original(*arguments)  # type: ignore[arg-type]

    parquet_reader.read_groups = counted  # type: ignore[assignment]
    reader = parquet_reader.ParquetReader(read_shards(find_files(folder)["train"]), 1000)
    options = {"batch_size": BATCH_SIZE, "data_shard": 0, "num_data_shards": 1, "seed": 0, "epoch": 0}
    order = GroupOrder(torch.arange(len(reader)), reader.groups, **options)  # type: ignore[arg-type]
    before, held, num_images, num_bytes, seconds, largest = private_megabytes(), [], 0, 0, 0.0, 0
    for step in range(0, len(order), num_workers):
        start = time.perf_counter()
        images = reader.read(order[step].numpy())
        seconds += time.perf_counter() - start
        batch = sum(len(image.data or b"") for image in images)
        num_images, num_bytes, largest = num_images + len(images), num_bytes + batch, max(largest, batch)
        held.append(private_megabytes())
    speed = num_bytes / 1e6 / seconds
    num_groups = len(reader.groups) - 1
    return Figures(num_images, before, max(held), float(np.mean(held)), largest / 1e6, num_reads, num_groups, speed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--gigabytes", type=float, default=4.0, help="size of the large set; the small one has a quarter"
    )
    size = int(parser.parse_args().gigabytes * 1e9)
    if not SAMPLE.is_dir():
        print("no ../shared/data/imagenet_sample next to the checkout: nothing to measure")
        return
    rows = []
    for num_bytes in (size // 4, size):
        with (
            tempfile.TemporaryDirectory() as folder,
            multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
        ):
            write(Path(folder), num_bytes)
            for num_workers in (1, 4, 16):
                row = pool.apply(read, (folder, num_workers))
                memory = (f"{value:,.0f}" for value in (row.before, row.mean, row.peak, row.at_once))
                reads = (f"{row.num_reads} of {row.num_groups}", f"{row.megabytes_per_second:,.0f}")
                rows.append((f"{num_bytes / 1e9:.1f} GB", str(num_workers), f"{row.num_images:,}", *memory, *reads))
    show(
        f"One loader worker of W, batches of {BATCH_SIZE}, groups of {ROWS_PER_GROUP}; private memory in MB",
        ("set", "W", "images read", "before", "mean", "peak", "of it a batch", "groups read", "MB/s"),
        rows,
    )


if __name__ == "__main__":
    main()
