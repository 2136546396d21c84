"""Image files out of Parquet's row groups: the right bytes in any order, few reads, bounded memory, faults by name."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.data.encoded import Encoded
from inq_ray.data.encoded_set import EncodedSet
from inq_ray.data.loader import Loader, train_requests
from inq_ray.data.order.groups import LANES, GroupOrder
from inq_ray.data.parquet import reader as parquet_reader
from inq_ray.data.parquet.access import RetriedFile
from inq_ray.data.parquet.files import find_files, read_shards
from inq_ray.data.parquet.reader import ParquetReader
from inq_ray.data.source import open_source
from inq_ray.storage.address import Location, locate
from tests.data.parquet_files import random_images, write_parquet
from tests.data.pictures import encode
from tests.proxy import BadProxy
from tests.s3 import S3Server

BLOBS = [bytes([number % 256]) * (1 + number % 7) for number in range(60)]
LABELS = [number % 3 for number in range(60)]


def write_shards(folder: Path) -> Path:
    """Sixty made-up image files in four shards of unequal size, one of them empty, groups of up to 8 rows."""
    folder.mkdir(exist_ok=True)
    for number, (start, end) in enumerate([(0, 20), (20, 20), (20, 57), (57, 60)]):
        path = folder / f"train-0000{number}-of-00004.parquet"
        write_parquet(path, BLOBS[start:end], LABELS[start:end], row_group_size=8)
    return folder


def open_reader(data: Path | str, **options: int) -> ParquetReader:
    return ParquetReader(read_shards(find_files(str(data))["train"]), 3, **options)


def read(reader: ParquetReader, *samples: int) -> list[Encoded]:
    return reader.read(np.array(samples))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def group_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """File and number of each row group that is read from now on."""
    reads: list[tuple[str, int]] = []
    original = parquet_reader.read_groups

    def counted(file: Location, footer: str, groups: list[int], columns: list[str]) -> object:
        reads.append((file.name, *groups))
        return original(file, footer, groups, columns)

    monkeypatch.setattr(parquet_reader, "read_groups", counted)
    return reads


def test_groups_are_the_row_groups_of_all_shards(folder: Path) -> None:
    reader = open_reader(folder)
    assert reader.groups.tolist() == [0, 8, 16, 20, 28, 36, 44, 52, 57, 60]
    assert len(reader) == 60


@given(wanted=st.lists(st.lists(st.integers(0, 59), max_size=30), max_size=6), held_bytes=st.sampled_from([200, 10**6]))
def test_any_samples_in_any_order(folder: Path, wanted: list[list[int]], held_bytes: int) -> None:
    reader = open_reader(folder, held_bytes=held_bytes)
    for samples in wanted:
        found = reader.read(np.array(samples, np.int64))
        assert [encoded.data for encoded in found] == [BLOBS[sample] for sample in samples]
        assert [encoded.label for encoded in found] == [LABELS[sample] for sample in samples]
        assert reader._held.num_bytes <= held_bytes


def test_names_are_file_and_row(folder: Path) -> None:
    names = [encoded.name for encoded in read(open_reader(folder), 0, 19, 20, 56, 59)]
    assert names == [
        f"{folder}/train-0000{shard}-of-00004.parquet, row {row}"
        for shard, row in [(0, 0), (0, 19), (2, 0), (2, 36), (3, 2)]
    ]


def test_an_epoch_in_order_reads_each_group_about_once(folder: Path, group_reads: list[tuple[str, int]]) -> None:
    """Each loader worker with a reader of its own, that holds what is left of its lanes' windows."""
    for num_workers in (1, 4):
        group_reads.clear()
        readers = [pickle.loads(pickle.dumps(open_reader(folder))) for _ in range(num_workers)]  # noqa: S301
        order = GroupOrder(
            torch.arange(60),
            readers[0].groups,
            batch_size=1,
            data_shard=0,
            num_data_shards=1,
            seed=0,
            epoch=0,
            buffer=16 * LANES,
        )
        for step in range(len(order)):
            readers[step % num_workers].read(order[step].numpy())
        assert len(group_reads) <= 9 + num_workers * LANES
        assert all(reader._held.num_bytes <= sum(map(len, BLOBS)) for reader in readers)


def test_what_was_handed_out_is_not_held(folder: Path, group_reads: list[tuple[str, int]]) -> None:
    reader = open_reader(folder)
    for start in range(0, 60, 4):
        read(reader, *range(start, start + 4))
    assert reader._held.num_bytes == 0
    assert len(group_reads) == len(set(group_reads)) == 9
    read(reader, 5)
    assert len(group_reads) == 10


def test_what_is_left_over_is_let_go(tmp_path: Path) -> None:
    """Images that are held out, or belong to another lane, are never asked for."""
    write_parquet(tmp_path / "train.parquet", [bytes(10)] * 20_000, [0] * 20_000, row_group_size=100)
    reader = open_reader(tmp_path)
    order = np.random.default_rng(0)
    held = []
    for group in range(200):
        for part in np.split(order.permutation(100)[:90] + 100 * group, 3):
            reader.read(part)
            held.append(reader._held.num_bytes)
    assert max(held[:100]) < max(held) == max(held[-300:]) <= (4096 / 90 + 2) * 10 * 10 + 900


def test_validation_holds_nothing(folder: Path, group_reads: list[tuple[str, int]]) -> None:
    """Its next batch is another worker's."""
    reader = open_reader(folder)
    for start in range(0, 60, 12):
        assert [image.data for image in read(reader, *range(start, start + 12))] == BLOBS[start : start + 12]
        assert reader._held.num_bytes == 0
    assert len(group_reads) == 9 + 3  # those that two batches share


def test_pickled_it_is_small_and_holds_no_image(folder: Path) -> None:
    """ImageNet's training set: 294 shards, 44 row groups each."""
    shard = read_shards(find_files(str(folder))["train"])[0]
    many = [
        dataclasses.replace(
            shard, file=locate(f"s3://bucket/imagenet/data/train-{number:05d}-of-00294.parquet"), group_rows=(100,) * 44
        )
        for number in range(294)
    ]
    assert len(pickle.dumps(ParquetReader(many, 1000))) < 200_000
    reader = open_reader(folder)
    before = pickle.dumps(reader)
    read(reader, 3)
    assert reader._held.num_bytes > 0
    assert pickle.dumps(reader) == before


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row group of ten, of a file with another, large column."""
    write_parquet(tmp_path / "small.parquet", [bytes(1000)] * 100, [0] * 100)
    table = pq.read_table(tmp_path / "small.parquet")
    table = table.add_column(1, "other", [[np.random.default_rng(0).bytes(50_000) for _ in range(100)]])
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=10, write_statistics=["label"])
    reader = open_reader(tmp_path / "train.parquet")
    read(reader, 0)  # the footer is known from here on
    num_bytes = []
    original = RetriedFile.read
    monkeypatch.setattr(RetriedFile, "read", lambda file, num: num_bytes.append(num) or original(file, num))
    assert read(reader, 55)[0].data == bytes(1000)
    assert sum(num_bytes) < 20_000


def test_rows_that_are_not_right_are_named(tmp_path: Path) -> None:
    """The footer has no statistics: only reading tells."""
    path = tmp_path / "train.parquet"
    write_parquet(path, [b"a", None, b"c", b"d", b"e", b"f"], [0, 1, None, 3, -1, 2], write_statistics=False)
    found = read(open_reader(path), *range(6))
    assert [encoded.data for encoded in found] == [b"a", None, None, None, None, b"f"]
    assert [encoded.error for encoded in found] == [
        None,
        "the row has no image bytes, perhaps only a path; write the image file's bytes into the column",
        "there is no label",
        "label 3 is not within 0 to 2",
        "label -1 is not within 0 to 2",
        None,
    ]
    assert found[4].name == f"{path}, row 4"


def test_nulls_that_the_footer_tells_of_are_refused_at_once(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [b"a", b"b"], [0, None])
    assert f"{tmp_path / 'train.parquet'} has 1 row without a label" in refusal(lambda: open_reader(tmp_path))


def test_files_that_change_vanish_or_break_under_way(tmp_path: Path) -> None:
    folder = write_shards(tmp_path)
    path = folder / "train-00002-of-00004.parquet"
    reader = open_reader(folder)
    whole = path.read_bytes()
    write_parquet(path, BLOBS[:37], LABELS[:37], row_group_size=9)
    assert f"{path} changed after it was opened" in refusal(lambda: read(reader, 20))
    path.write_bytes(whole[:-50])
    assert f"cannot read {path}, which is damaged or not Parquet" in refusal(lambda: read(reader, 20))
    path.unlink()
    assert str(path) in refusal(lambda: read(reader, 20))
    path.write_bytes(whole)
    assert read(reader, 20)[0].data == BLOBS[20]


def test_damaged_pages(tmp_path: Path) -> None:
    """The footer is whole; a checksum tells, where the writer made one."""
    path = tmp_path / "train.parquet"
    write_parquet(path, [bytes(500)] * 4, [0] * 4, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    assert f"cannot read {path}, which is damaged or not Parquet" in refusal(lambda: read(open_reader(path), 0))


def test_a_row_group_that_is_too_large(folder: Path) -> None:
    text = refusal(lambda: open_reader(folder, held_bytes=20))
    assert "train-00000-of-00004.parquet has a row group of" in text
    assert "with groups of about 100 images" in text


def test_the_sample(shared_data: Path) -> None:
    folder = shared_data / "imagenet_sample"
    source = open_source(str(folder))
    assert (source.info.num_train, source.info.num_test, source.info.num_classes) == (250, 0, 1000)
    assert (source.info.is_streamed, source.info.height, source.info.width) == (True, 224, 224)
    images = source.split("train")
    assert isinstance(images, EncodedSet)
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    order = torch.randperm(250, generator=torch.Generator().manual_seed(0)).numpy()
    found = images.reader.read(order)
    blobs = [row["bytes"] for table in tables for row in table["image"].to_pylist()]
    labels = [label for table in tables for label in table["label"].to_pylist()]
    assert [encoded.data for encoded in found] == [blobs[sample] for sample in order]
    assert [encoded.label for encoded in found] == [labels[sample] for sample in order]


def test_on_s3_as_here(folder: Path, s3: S3Server) -> None:
    for address in (s3.upload(folder, "bucket/set/data"), "s3://bucket/set", "s3://bucket/s*/data/train-*.parquet"):
        reader = open_reader(address)
        assert [encoded.data for encoded in read(reader, *range(59, -1, -1))] == BLOBS[::-1]
    assert read(reader, 20)[0].name == "s3://bucket/set/data/train-00002-of-00004.parquet, row 0"
    assert open_source(str(folder)).info.fingerprint == open_source("s3://bucket/set").info.fingerprint


def test_a_shard_alone_and_a_glob(folder: Path) -> None:
    assert len(open_reader(folder / "train-00002-of-00004.parquet")) == 37
    assert len(open_reader(f"{folder}/train-0000[03]-*")) == 23
    assert "nothing matches" in refusal(lambda: open_reader(f"{folder}/test-*"))


def test_a_connection_that_breaks_within_a_row_group(
    tmp_path: Path, proxy: BadProxy, s3: S3Server, short_pauses: None
) -> None:
    blobs = [np.random.default_rng(number).bytes(20_000) for number in range(40)]
    write_parquet(tmp_path / "train.parquet", blobs, [0] * 40, row_group_size=10, compression="none")
    reader = open_reader(s3.upload(tmp_path, "breaking"))
    read(reader, 0)
    proxy.drop_after_bytes, proxy.num_drops = 50_000, 2
    assert read(reader, 15)[0].data == blobs[15]
    assert proxy.num_drops == 0
    proxy.num_drops = 10**9
    text = refusal(lambda: read(reader, 25, 35))
    assert text.startswith("cannot read s3://breaking/train.parquet: failed 6 times")


def test_loader_workers_see_what_the_process_itself_sees(tmp_path: Path) -> None:
    for number in range(2):
        pictures = random_images(20, seed=number, height=120, width=100)
        path = tmp_path / f"train-0000{number}-of-00002.parquet"
        write_parquet(path, [encode(image, "JPEG") for image in pictures], [i % 3 for i in range(20)])
    images = open_source(str(tmp_path)).split("train")
    options = {"batch_size": 4, "rank": 0, "world_size": 1, "seed": 3, "epoch": 1, "steps": range(2, 10)}

    def batches(num_workers: int) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        requests = train_requests(images, torch.arange(40), **options)  # type: ignore[arg-type]
        found = Loader({"train": images}, num_workers=num_workers).batches(requests)
        return [(batch.step, batch.images, batch.labels) for batch in found]

    for one, other in zip(batches(0), batches(2), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])
