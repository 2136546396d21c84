"""Image files into Parquet: the same bytes, labels and classes come out; nothing that is not whole looks so."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inq_ray.data.encoded_set import EncodedSet
from inq_ray.data.image_set import Split
from inq_ray.data.parquet import writer as parquet_writer
from inq_ray.data.parquet.writer import Plan, find_shards, plan_folder, remove, write_shards
from inq_ray.data.source import open_source
from inq_ray.storage.address import Location, locate
from tests.proxy import BadProxy
from tests.s3 import S3Server

pytestmark = pytest.mark.system

CLASSES = ("ant", "bee", "cat")
SHARD_BYTES = 1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty training images and nine to validate on; not images, but of images nobody looks here."""
    folder = tmp_path_factory.mktemp("images") / "made up"
    generator = np.random.default_rng(0)
    for number in range(69):
        path = folder / ("train" if number < 60 else "val") / CLASSES[number % 3] / f"{number} ü.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generator.bytes(int(generator.integers(1, 200))))
    return folder


def write(data: Path | str, output: str, **options: int) -> list[str]:
    plans = plan_folder(str(data), **{"seed": 0, "shard_bytes": SHARD_BYTES, **options})
    shards = [shard for plan in plans for shard in write_shards(plan, locate(output), rows_per_group=4)]
    return [shard.file.name for shard in shards]


def contents(data: Path | str, split: Split) -> list[tuple[str, int, bytes | None]]:
    """Name without folder, label and bytes of each image, sorted."""
    images = open_source(str(data)).split(split)
    assert isinstance(images, EncodedSet)
    return sorted(
        (each.name.rpartition("/")[2], each.label, each.data) for each in images.reader.read(np.arange(len(images)))
    )


def rows(output: Path, pattern: str) -> list[tuple[str, int, bytes | None]]:
    table = [row for path in sorted(output.glob(pattern)) for row in pq.read_table(path).to_pylist()]
    return [(row["image"]["path"], row["label"], row["image"]["bytes"]) for row in table]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_same_images_labels_and_classes_come_out(folder: Path, tmp_path: Path) -> None:
    names = write(folder, str(tmp_path / "a" / "b"))
    assert [Path(name).name for name in names] == [
        "validation-00000-of-00001.parquet",
        *(f"train-{number:05d}-of-00004.parquet" for number in range(4)),
    ], "those to train on last: what an interruption leaves is no set that looks whole"
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(Path(name).name for name in names)
    before, after = open_source(str(folder)).info, open_source(str(tmp_path / "a" / "b")).info
    assert after.class_names == before.class_names == CLASSES
    assert (after.num_train, after.num_test) == (before.num_train, before.num_test) == (60, 9)
    assert sorted(rows(tmp_path / "a" / "b", "train-*")) == contents(folder, "train")
    assert sorted(rows(tmp_path / "a" / "b", "validation-*")) == contents(folder, "test")


def test_shards_and_row_groups_have_about_the_size_asked_for(folder: Path, tmp_path: Path) -> None:
    write(folder, str(tmp_path))
    sizes = [pq.read_metadata(path) for path in sorted(tmp_path.glob("train-*"))]
    assert [metadata.num_rows for metadata in sizes] == [15] * 4
    assert [[each.row_group(group).num_rows for group in range(each.num_row_groups)] for each in sizes] == [
        [4, 4, 4, 3]
    ] * 4


def test_the_order_is_shuffled_by_the_seed(folder: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        output = tmp_path / str(len(found))
        write(folder, str(output), seed=seed)
        found.append([name for name, _, _ in rows(output, "train-*")])
    assert found[0] == found[1] != found[2]
    assert found[0] != sorted(found[0])
    assert (tmp_path / "0" / "train-00001-of-00004.parquet").read_bytes() == (
        tmp_path / "1" / "train-00001-of-00004.parquet"
    ).read_bytes()


def test_the_hubs_library_knows_images_and_classes(folder: Path, tmp_path: Path) -> None:
    write(folder, str(tmp_path))
    schema = pq.read_schema(tmp_path / "train-00000-of-00004.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(schema.field("label").type) == "int64"


def test_metadata_as_of_the_sample(folder: Path, tmp_path: Path, shared_data: Path) -> None:
    """Those were written by others."""
    write(folder, str(tmp_path))
    ours = pq.read_schema(tmp_path / "train-00000-of-00004.parquet")
    theirs = pq.read_schema(shared_data / "imagenet_sample" / "train-00000-of-00002.parquet")
    assert ours.remove_metadata() == theirs.remove_metadata()

    def without_names(schema: object) -> object:
        value = json.loads(schema.metadata[b"huggingface"])  # type: ignore[attr-defined]
        value["info"]["features"]["label"]["names"] = []
        return value

    assert without_names(ours) == without_names(theirs)


def test_there_and_back_over_s3(folder: Path, tmp_path: Path, s3: S3Server) -> None:
    few = tmp_path / "few"
    for path in sorted(folder.rglob("*1 ü.JPEG")):
        (few / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (few / path.relative_to(folder)).write_bytes(path.read_bytes())
    output = locate("s3://writer/new/parquet")
    names = write(s3.upload(few, "writer/images"), output.name, shard_bytes=400)
    assert names[-1] == "s3://writer/new/parquet/train-00001-of-00002.parquet"
    assert [shard.name for shard in find_shards(output)] == sorted(names)
    write(few, str(tmp_path / "here"), shard_bytes=400)
    for path in (tmp_path / "here").iterdir():
        assert output.join(path.name).read() == path.read_bytes()
    assert open_source(output.name).info.num_train == 6
    remove(find_shards(output)[0])
    assert "has 1 shard of train, but their names count 00002" in refusal(lambda: open_source(output.name))
    assert "NO_SUCH_BUCKET" in refusal(lambda: find_shards(locate("s3://nowhere/new")))
    assert find_shards(locate("s3://writer/elsewhere")) == []


def test_a_storage_that_breaks_is_tried_again(folder: Path, proxy: BadProxy, s3: S3Server, short_pauses: None) -> None:
    s3.file_system().create_dir("written")
    (plan,) = plan_folder(str(folder), seed=0, shard_bytes=10**6)[-1:]
    proxy.drop_after_bytes, proxy.num_drops = 0, 2
    (shard,) = write_shards(plan, locate("s3://written"), rows_per_group=4)
    assert proxy.num_drops == 0
    assert (
        shard.num_images
        == pq.read_metadata("written/train-00000-of-00001.parquet", filesystem=s3.file_system()).num_rows
    )
    proxy.num_drops = 10**9
    text = refusal(lambda: list(write_shards(plan, locate("s3://written/b"), rows_per_group=4)))
    assert text.startswith("cannot write s3://written/b/train-00000-of-00001.parquet: failed 6 times")


def test_an_image_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    (_, plan) = plan_folder(str(folder), seed=0, shard_bytes=SHARD_BYTES)
    output = tmp_path / "output"
    image = folder / "train" / "ant" / "57 ü.JPEG"
    data = image.read_bytes()
    image.unlink()
    try:
        text = refusal(lambda: list(write_shards(plan, locate(str(output)), rows_per_group=4)))
    finally:
        image.write_bytes(data)
    assert str(image) in text
    assert all(path.suffix == ".parquet" for path in output.iterdir())  # those that were done, and no part of one


def test_a_place_that_cannot_be_written_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = refusal(lambda: write(folder, str(tmp_path / "file" / "output")))
    assert text.startswith(f"cannot write {tmp_path / 'file' / 'output'}")


def test_groups_that_would_be_too_large(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_writer, "_LARGEST_GROUP", 100)
    assert "use fewer rows per group" in refusal(lambda: write(folder, str(tmp_path)))


def test_no_more_than_some_row_groups_are_in_memory(folder: Path, tmp_path: Path) -> None:
    """Reading waits for writing: however large the set is."""

    class Counting:
        """Hands out images, and counts those that were not written yet."""

        groups = None

        def __init__(self, plan: Plan) -> None:
            self.reader, self.num_read = plan.reader, 0

        def __len__(self) -> int:
            return len(self.reader)

        def read(self, samples: np.ndarray) -> object:  # type: ignore[type-arg]
            self.num_read += len(samples)
            return self.reader.read(samples)

    (_, plan) = plan_folder(str(folder), seed=0, shard_bytes=10**6)
    counting = Counting(plan)
    ahead = []
    original = parquet_writer._table

    def table(images: list[object], schema: object) -> object:
        ahead.append(counting.num_read)
        return original(images, schema)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_writer, "_table", table)
        list(write_shards(plan._replace(reader=counting), locate(str(tmp_path)), rows_per_group=2))  # type: ignore[arg-type]
    assert all(read - 2 * place <= 2 * 4 for place, read in enumerate(ahead))


_KILLED = """
import os, sys
from inq_ray.data.parquet import writer as parquet_writer
from inq_ray.storage.address import locate
_, plan = parquet_writer.plan_folder(sys.argv[1], seed=0, shard_bytes=1500)
tables = []
original = parquet_writer._table
def table(images, schema):
    tables.append(images)
    if len(tables) == 7:
        os.kill(os.getpid(), 9)
    return original(images, schema)
parquet_writer._table = table
list(parquet_writer.write_shards(plan, locate(sys.argv[2]), rows_per_group=4))
"""


def test_a_killed_writer_leaves_nothing_that_looks_whole(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(folder), str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=300).returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "train-00000-of-00004.parquet",
        "train-00001-of-00004.parquet.partial",
    ]
    assert "has 1 shard of train, but their names count 00004: incomplete" in refusal(
        lambda: open_source(str(tmp_path))
    )
    for shard in find_shards(Location("", str(tmp_path), "here")):
        remove(shard)
    assert list(tmp_path.iterdir()) == []
