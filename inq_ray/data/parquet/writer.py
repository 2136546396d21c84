"""Writer of image files as Parquet in the layout of the Hugging Face hub: streamed, shuffled, whole files only.

    FOLDER/train-00000-of-00294.parquet    column image {bytes, path}, column label; class names in the schema

Image bytes are copied unchanged. Images are shuffled over all shards, so that reading by row group shuffles well (see
`inq_ray.data.order.groups`).
"""

import json
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inq_ray.data.encoded import Encoded, Reader
from inq_ray.data.folder.source import FolderSource, is_image_folder
from inq_ray.data.image_set import Split
from inq_ray.data.order.epoch import epoch_order
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.files.whole import whole
from inq_ray.storage.address import Location, locate
from inq_ray.storage.retry import MissingError, retry

_NUM_SAMPLED = 256
# Row groups read ahead while one is written.
_NUM_AHEAD = 4
_COPY_BYTES = 1 << 23
_SHARD = re.compile(r"(train|test|validation)-.*\.parquet(\.partial)?")
_LARGEST_GROUP = 2**31 - 1


class Written(NamedTuple):
    """A finished shard.

    Attributes:
        file: Location.
        num_images: Number of images.
        num_bytes: Size, bytes.
    """

    file: Location
    num_images: int
    num_bytes: int


class Plan(NamedTuple):
    """Plan for writing a split.

    Attributes:
        split: "train" or "validation".
        class_names: Names of all classes.
        reader: The images.
        order: int64 [n], order of the images.
        num_shards: Number of files.
        num_bytes: Total size of the images, estimated from some of them.
    """

    split: str
    class_names: Sequence[str]
    reader: Reader
    order: NDArray[np.int64]
    num_shards: int
    num_bytes: int


def plan_folder(data: str, *, seed: int, shard_bytes: int, follow_links: bool = False) -> list[Plan]:
    """List a folder of images, shuffle the images of each split, and divide them into shards of about equal size.

    Args:
        data: Path or address of train/CLASS/... and val/CLASS/...; either may be missing.
        seed: Determines the order.
        shard_bytes: Size of a shard.
        follow_links: Whether links in the folder may lead out of it.

    Raises:
        ValueError: The folder does not exist, a link leads out of it, the storage fails, or an image cannot be read.
    """
    place = locate(data)
    place.info()
    if not is_image_folder(place):
        raise ValueError(f"no folder of images at {data}: it must contain train/CLASS/*.JPEG and val/CLASS/*.JPEG")
    source = FolderSource(place, Preprocessing(), Augmentation(), follow_links=follow_links)
    names = source.info.class_names
    # Training images last, so that an interrupted result cannot be trained on.
    splits: list[tuple[str, Split, int]] = [
        ("validation", "test", source.info.num_test),
        ("train", "train", source.info.num_train),
    ]
    return [
        plan_split(name, names, source.reader(split), seed=seed, shard_bytes=shard_bytes)
        for name, split, num_images in splits
        if num_images
    ]


def plan_split(split: str, class_names: Sequence[str], reader: Reader, *, seed: int, shard_bytes: int) -> Plan:
    """Shuffle the images of a split, and divide them into shards of about equal size.

    Raises:
        ValueError: The storage fails, or an image cannot be read.
    """
    order = epoch_order(len(reader), seed, 0).numpy()
    sampled = [_data(encoded) for encoded in reader.read(order[:_NUM_SAMPLED])]
    num_bytes = sum(map(len, sampled)) * len(order) // len(sampled)
    num_shards = min(len(order), -(-num_bytes // shard_bytes))
    return Plan(split, class_names, reader, order, num_shards, num_bytes)


def find_shards(folder: Location) -> list[Location]:
    """Return the shards in a folder, of any split, finished or not; none if the folder does not exist.

    Raises:
        ValueError: The storage fails.
    """
    try:
        names = [folder.relative(info) for info in folder.list()]
    except MissingError:
        return []
    return [folder.join(name) for name in names if _SHARD.fullmatch(name)]


def remove(file: Location) -> None:
    """Remove a file.

    Raises:
        ValueError: The storage fails.
    """
    _change(lambda: file.fs.delete_file(file.path), file)


def write_shards(plan: Plan, folder: Location, *, rows_per_group: int) -> Iterator[Written]:
    """Write the shards of a split, one after the other, and yield each when it is finished.

    Args:
        plan: Plan of the split.
        folder: Target folder; created if missing.
        rows_per_group: Images per row group.

    Raises:
        ValueError: An image cannot be read, or a file cannot be written; one line.
    """
    schema = _schema(plan.class_names)
    if not folder.root.startswith(("s3://", "gs://")):  # these have no folders
        _change(lambda: folder.fs.create_dir(folder.path, recursive=True), folder)
    for number, rows in enumerate(np.array_split(plan.order, plan.num_shards)):
        file = folder.join(f"{plan.split}-{number:05d}-of-{plan.num_shards:05d}.parquet")
        groups = [rows[start : start + rows_per_group] for start in range(0, len(rows), rows_per_group)]
        with _placed(file) as sink:
            _write(sink, schema, plan.reader, groups)
            num_bytes = sink.tell()
        yield Written(file, len(rows), num_bytes)


def _write(sink: BinaryIO, schema: pa.Schema, reader: Reader, groups: list[NDArray[np.int64]]) -> None:
    """Write row groups to a file, reading some of the next ones meanwhile."""
    options = {"compression": "none", "use_dictionary": ["label"], "write_statistics": ["label"]}
    with (
        pq.ParquetWriter(sink, schema, write_page_checksum=True, **options) as writer,
        ThreadPoolExecutor(_NUM_AHEAD) as pool,
    ):
        ahead: deque[Future[list[Encoded]]] = deque()
        waiting = iter(groups)
        try:
            for _ in groups:
                while len(ahead) < _NUM_AHEAD and (group := next(waiting, None)) is not None:
                    ahead.append(pool.submit(reader.read, group))
                writer.write_table(_table(ahead.popleft().result(), schema))
        finally:
            for future in ahead:
                future.cancel()


def _table(images: list[Encoded], schema: pa.Schema) -> pa.Table:
    """Return a row group: image bytes unchanged, names without their folders."""
    blobs = list(map(_data, images))
    if sum(map(len, blobs)) > _LARGEST_GROUP:
        raise ValueError(f"{len(blobs)} images from {images[0].name} on exceed 2 GiB: use fewer rows per group")
    names = [image.name.rpartition("/")[2].encode("utf-8", "backslashreplace").decode() for image in images]
    fields = [pa.array(blobs, pa.binary()), pa.array(names, pa.string())]
    column = pa.StructArray.from_arrays(fields, fields=list(schema.field("image").type))
    return pa.table([column, pa.array([image.label for image in images], pa.int64())], schema=schema)


def _data(image: Encoded) -> bytes:
    if image.data is None:
        raise ValueError(f"cannot read {image.name}: {image.error}")
    return image.data


def _schema(class_names: Sequence[str]) -> pa.Schema:
    """Return the columns, with the metadata from which the hub's library recognizes images and classes."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(class_names), "_type": "ClassLabel"}}
    return pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


@contextmanager
def _placed(file: Location) -> Iterator[BinaryIO]:
    """Yield a temporary file (for a storage: on this machine), and move it to its destination at the end."""
    partial = Location(file.root, f"{file.path}.partial", f"{file.name}.partial")
    if not file.is_local:
        with tempfile.TemporaryFile() as sink:
            yield sink
            _change(lambda: _upload(sink, partial), file)
            _change(lambda: file.fs.move(partial.path, file.path), file)
        return
    try:
        with whole(Path(file.path), temporary=Path(partial.path)) as temporary, temporary.open("wb") as sink:
            yield sink
    except OSError as error:
        raise ValueError(f"cannot write {file.name}: {error.strerror or error}") from error


def _upload(source: BinaryIO, file: Location) -> None:
    """Copy a local file to a storage; pyarrow.fs.copy_files does not report when S3 closes the connection."""
    source.seek(0)
    with file.fs.open_output_stream(file.path) as sink:
        while data := source.read(_COPY_BYTES):
            sink.write(data)


def _change(call: Callable[[], None], file: Location) -> None:
    """Change something on a storage, with retries."""
    retry(call, file.name, verb="write")
