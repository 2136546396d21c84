"""Image folders as a source: the same images from this machine and from S3, whatever the storage does."""

import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from inq_ray.data.encoded_set import EncodedSet
from inq_ray.data.folder.index import open_index
from inq_ray.data.folder.source import FolderReader, FolderSource, is_image_folder
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.storage.address import locate
from inq_ray.storage.pattern import expand
from inq_ray.storage.retry import MissingError
from tests.data.folders import make_folder, make_stable
from tests.gcs import GoogleServer
from tests.proxy import BadProxy
from tests.s3 import S3Server

PREPROCESSING, AUGMENTATION = Preprocessing(crop_size=32, resize_size=40, is_sized=True), Augmentation()


def jpeg(number: int) -> bytes:
    """An image of its own, of some kB."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 255, (40 + number, 60 - number, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 3 classes to train on, 6 to validate on, and files that are none."""
    files = {f"train/n{number % 3}/{number:03d}.JPEG": jpeg(number) for number in range(24)}
    files |= {f"val/n{number % 3}/val {number:03d}.jpg": jpeg(30 - number) for number in range(6)}
    root = make_folder(tmp_path_factory.mktemp("folder") / "images", {**files, "train/n0/list.txt": b"-", "x.md": b"-"})
    make_stable(root)
    return root


@pytest.fixture(scope="session")
def uploaded(images: Path, s3_server: S3Server) -> str:
    return s3_server.upload(images, "folder/images")


@pytest.fixture
def address(uploaded: str, s3: S3Server) -> str:
    """The same on S3, and access to it."""
    return uploaded


def open_folder(place: str | Path, index: Path | None = None, fingerprint: str | None = None) -> FolderSource:
    return FolderSource(locate(str(place)), PREPROCESSING, AUGMENTATION, index, fingerprint=fingerprint)


def reader_of(images: EncodedSet) -> FolderReader:
    assert isinstance(images.reader, FolderReader)
    return images.reader


def everything(images: EncodedSet) -> list[tuple[bytes | None, int]]:
    """Bytes and label of every image, read in an order of no system."""
    order = np.random.default_rng(0).permutation(len(images))
    read = dict(zip(order.tolist(), images.reader.read(order), strict=True))
    assert not any(encoded.error for encoded in read.values())
    return [(read[sample].data, read[sample].label) for sample in range(len(images))]


def test_facts(images: Path) -> None:
    source = open_folder(images)
    info = source.info
    assert info.name == str(images)
    assert (info.num_classes, info.class_names) == (3, ("n0", "n1", "n2"))
    assert (info.num_train, info.num_test) == (24, 6)
    assert (info.channels, info.height, info.width, info.mean, info.std) == (
        3,
        32,
        32,
        PREPROCESSING.mean,
        PREPROCESSING.std,
    )
    assert info.is_streamed
    other = "--crop-size and --resize-size change this"
    assert source.notes == (
        f"{images}: ignored 1 file, not images of a class by their names",
        f"{images}: images of 30x70 to 50x50 pixels are resized to 40 (shorter side) and cropped to 32x32; {other}",
    )


def test_images_are_those_of_torchvision(images: Path) -> None:
    source = open_folder(images)
    for split, folder in (("train", "train"), ("test", "val")):
        theirs = [(Path(path).read_bytes(), label) for path, label in ImageFolder(images / folder).samples]
        assert everything(source.split(split)) == theirs


def test_pixels(images: Path) -> None:
    split = open_folder(images).split("train")
    assert split.groups is None
    samples = split.fetch(torch.tensor([5, 0, 23]), (1, 2))
    assert samples.images.shape == (3, 3, 32, 32)
    assert samples.labels.tolist() == [0, 0, 2]
    assert samples.bad == ()
    alone = split.fetch(torch.tensor([23]), (1, 2))
    assert torch.equal(alone.images[0], samples.images[2])


def test_from_s3_the_same(images: Path, address: str, tmp_path: Path) -> None:
    here, there = open_folder(images, tmp_path), open_folder(address, tmp_path)
    assert here.info.fingerprint == there.info.fingerprint
    for split in ("train", "test"):
        assert everything(here.split(split)) == everything(there.split(split))
    name = there.split("train").reader.read(np.array([0]))[0].name
    assert name == "s3://folder/images/train/n0/000.JPEG"


def test_from_google_the_same(images: Path, gcs: GoogleServer, tmp_path: Path) -> None:
    """There no folder is listed that holds only folders."""
    address = gcs.upload(images, "bucket", "some/images")
    assert is_image_folder(locate(address))
    assert not is_image_folder(locate(f"{address}/train/n0"))
    here, there = open_folder(images, tmp_path), open_folder(address, tmp_path)
    assert here.info.fingerprint == there.info.fingerprint
    assert everything(here.split("train")) == everything(there.split("train"))
    root = locate(address)
    for recursive in (False, True):
        found = [
            [(place.relative(info), info.type) for info in place.list(recursive=recursive)]
            for place in (root, locate(str(images)))
        ]
        assert found[0] == found[1]
    assert [place.name for place in expand(f"{address}/*/n1/*02?.JPEG")] == [f"{address}/train/n1/022.JPEG"]
    for call in (root.join("nothing").list, root.join("nothing").read, locate("gs://anonymous@nobody/a").list):
        with pytest.raises(MissingError, match=r"there is nothing at gs://.*nothing|there is no bucket 'nobody'"):
            call()


@pytest.mark.usefixtures("short_pauses")
def test_through_a_bad_connection_the_same(images: Path, address: str, proxy: BadProxy, tmp_path: Path) -> None:
    proxy.num_drops = 2
    proxy.drop_after_bytes = 300
    train = open_folder(address, tmp_path).split("train")
    proxy.num_drops = 12
    proxy.drop_after_bytes = 1500
    assert everything(train) == everything(open_folder(images).split("train"))
    assert proxy.num_drops == 0


def test_a_far_storage_is_asked_for_many_at_once(images: Path, address: str, proxy: BadProxy, tmp_path: Path) -> None:
    train = open_folder(address, tmp_path).split("train")
    proxy.delay_seconds = 0.2
    assert everything(train) == everything(open_folder(images).split("train"))
    assert proxy.most_delayed >= 8


@pytest.mark.usefixtures("short_pauses")
def test_a_storage_that_is_gone_ends_in_one_line(address: str, proxy: BadProxy, tmp_path: Path) -> None:
    train = open_folder(address, tmp_path).split("train")
    proxy.num_drops = 10**9
    proxy.drop_after_bytes = 1000
    with pytest.raises(ValueError, match=r"cannot read s3://folder/images/train/n\d/\d+.JPEG: failed 6 times") as error:
        train.reader.read(np.arange(24))
    assert "\n" not in str(error.value)


def test_wrong_bucket_and_key(address: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (is_image_folder, lambda place: FolderSource(place, PREPROCESSING, AUGMENTATION)):
        with pytest.raises(ValueError, match="there is no such bucket"):
            call(locate("s3://no-bucket/images"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    for call in (is_image_folder, lambda place: FolderSource(place, PREPROCESSING, AUGMENTATION)):
        with pytest.raises(ValueError, match="the secret does not belong to the key"):
            call(locate(address))


def test_single_files_that_cannot_be_read(images: Path, s3: S3Server, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(images, copy)
    (copy / "train/n0/003.JPEG").write_bytes(b"")
    places = (copy, s3.upload(images, "holes/images"))
    readers = [reader_of(open_folder(place, tmp_path / "index").split("train")) for place in places]
    (copy / "train/n0/000.JPEG").unlink()
    s3.file_system().delete_file("holes/images/train/n0/000.JPEG")
    for reader in readers:
        gone, good = reader.read(np.array([0, 23]))
        assert (gone.data, gone.label, gone.error) == (None, 0, "the file does not exist")
        assert gone.name.endswith("train/n0/000.JPEG")
        assert good.error is None
    assert readers[0].read(np.array([1]))[0].error == "the file is empty"
    samples = open_folder(images).split("train").fetch(torch.tensor([0, 1]), None)
    assert samples.bad == ()
    (copy / "train/n0/006.JPEG").chmod(0)
    (copy / "train/n0/009.JPEG").unlink()
    (copy / "train/n0/009.JPEG").mkdir()
    closed, folder = readers[0].read(np.array([2, 3]))
    assert os.getuid() == 0 or closed.error == "Permission denied"
    assert folder.error == "Is a directory"
    bad = EncodedSet(readers[0], open_folder(images).split("train").transform).fetch(torch.tensor([0, 1, 4]), None)
    assert [(image.sample, image.reason) for image in bad.bad] == [
        (0, "the file does not exist"),
        (1, "the file is empty"),
    ]
    assert len(bad.images) == 1


def test_a_folder_that_is_gone_is_not_many_bad_images(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "copy")
    reader = open_folder(tmp_path / "copy", tmp_path / "index").split("train").reader
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(ValueError, match=r"copy/train existed when it was listed, but does not any more"):
        reader.read(np.array([0]))


def test_names_that_are_not_utf8(images: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"train/\xff/\xfe.jpg")
    make_folder(tmp_path / "odd", {name: jpeg(1)})
    source = open_folder(tmp_path / "odd", tmp_path)
    assert source.info.class_names == ("\\xff",)
    encoded = source.split("train").reader.read(np.array([0]))[0]
    assert encoded.data == jpeg(1)
    assert encoded.name == f"{tmp_path}/odd/train/\\xff/\\xfe.jpg"


def test_without_a_split(images: Path, tmp_path: Path) -> None:
    train = open_folder(make_folder(tmp_path / "a", {"train/n0/1.jpg": jpeg(1)}), tmp_path)
    assert (train.info.num_train, train.info.num_test) == (1, 0)
    with pytest.raises(ValueError, match=r"has no test split: no folder val/ or validation/ or test/ there; hold out"):
        train.split("test")
    test = open_folder(make_folder(tmp_path / "b", {"validation/n0/1.jpg": jpeg(1)}), tmp_path)
    assert (test.info.num_train, test.info.num_test) == (0, 1)
    with pytest.raises(ValueError, match=r"has no train split: no folder train/ or training/ there$"):
        test.split("train")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train/n0/1.jpg": b""}, True),
        ({"val/n0/1.jpg": b""}, True),
        ({"train/1.jpg": b""}, True),
        ({"n0/1.jpg": b""}, True),  # to be told what is missing
        ({"train": None}, True),
        ({"train-00000.parquet": b""}, False),
        ({"data/train-00000.parquet": b""}, False),
        ({".git/1.jpg": b""}, False),
        ({}, False),
    ],
)
def test_what_looks_like_a_folder_of_images(files: dict[str, bytes | None], expected: bool, tmp_path: Path) -> None:
    assert is_image_folder(locate(str(make_folder(tmp_path, files)))) == expected
    assert not is_image_folder(locate(str(tmp_path / "nothing")))
    (tmp_path / "file.parquet").write_bytes(b"")
    assert not is_image_folder(locate(str(tmp_path / "file.parquet")))


def test_sent_to_another_process(address: str, tmp_path: Path) -> None:
    reader = open_folder(address, tmp_path).split("train").reader
    data = pickle.dumps(reader)
    assert len(data) < 600
    open_index.cache_clear()
    assert pickle.loads(data).read(np.arange(24)) == reader.read(np.arange(24))  # noqa: S301, our own


def test_workers_open_what_the_run_was_started_with(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "copy")
    started = open_folder(images, tmp_path / "index").info.fingerprint
    assert open_folder(tmp_path / "copy", tmp_path / "index", started).info.fingerprint == started
    (tmp_path / "copy/train/n0/more.jpg").write_bytes(jpeg(1))
    with pytest.raises(ValueError, match=r"copy has other images on this machine \(25 of train and 6 of test\)"):
        open_folder(tmp_path / "copy", tmp_path / "index", started)
