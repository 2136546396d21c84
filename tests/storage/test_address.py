"""Addresses: what stands for which place, and what a real S3 server's faults become."""

import os
import pickle
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from inq_ray.storage import file_system
from inq_ray.storage.address import Location, locate
from inq_ray.storage.pattern import expand
from inq_ray.storage.retry import MissingError, StorageError, UnreadableError, retry
from tests.proxy import BadProxy
from tests.s3 import S3Server

BODY = bytes(range(256)) * 800


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path) -> str:
    """A bucket with some files: its address."""
    folder = tmp_path / "upload"
    for name in ("a/x.bin", "a/b/y.bin", "train-00000.parquet", "train-00001.parquet", "test.parquet", "a b%20ü.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(BODY)
    return s3.upload(folder, "bucket/p")


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    """The message, which is one line without a key in it."""
    text = str(error.value)
    assert "\n" not in text
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in text
    return text


@pytest.mark.parametrize(
    ("data", "root", "path"),
    [
        ("/a/b", "", "/a/b"),
        ("/a/b/", "", "/a/b"),
        ("~/a", "", f"{Path.home()}/a"),
        ("file:///a/b", "", "/a/b"),
        ("a/../b", "", f"{Path.cwd()}/b"),
        ("a%20b", "", f"{Path.cwd()}/a%20b"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("s3://bucket/", "s3://bucket", "bucket"),
        ("s3://bucket/a b/c%20d/", "s3://bucket", "bucket/a b/c%20d"),
        ("s3://anonymous@bucket/a", "s3://anonymous@bucket", "bucket/a"),
        ("gs://bucket/a", "gs://bucket", "bucket/a"),
        ("hdfs://host:8020/a/b", "hdfs://host:8020", "/a/b"),
        ("hdfs:///a", "hdfs://", "/a"),
        ("hdfs://me@host/a", "hdfs://me@host", "/a"),
    ],
)
def test_what_an_address_means(data: str, root: str, path: str) -> None:
    assert locate(data) == Location(root, path, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("ftp://host/a", r"--data 'ftp://host/a' is not a supported address.* file://, gs://, hdfs://, s3://"),
        ("s3:///a", r"has no bucket: use an address such as s3://bucket/folder"),
        ("s3://minio:9000/a", "minio:9000 is a host, not a bucket: set AWS_ENDPOINT_URL, and use s3://bucket/folder"),
        ("gs://host:9000/a", "host:9000 is a host, not a bucket: use gs://bucket/folder"),
        ("s3://bucket/a?region=x", "options in addresses are not supported"),
        ("hdfs://host:port/a", "'host:port' is not host:port, as in hdfs://host:8020/folder"),
        ("s3:/bucket/a", r"--data s3:/bucket/a: did you mean s3://bucket/a\? For a folder, put \./ before"),
        ("file://", "is not a path"),
        ("", "is not a path"),
    ],
)
def test_addresses_that_mean_nothing(data: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        locate(data)


@pytest.mark.parametrize(
    "data",
    [
        "s3://AKIA:HUSH@bucket/a",
        "s3://AKIA:HUSH/HUSH@bucket/a",
        "gs://HUSH@bucket/a",
        "hdfs://me:HUSH@host/a",
        "hdfs://me:HUSH/HUSH@host/a",
        "s3a://AKIA:HUSH@bucket/a",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_repeated(data: str) -> None:
    with pytest.raises(ValueError, match="must not contain keys") as error:
        locate(data)
    assert "HUSH" not in str(error.value)


@pytest.mark.parametrize(
    "data", ["s3:/AKIA:HUSH@bucket/a", "s3:///AKIA:HUSH@bucket/a", "https://host/a?X-Amz-Signature=HUSH"]
)
def test_a_key_in_a_misspelled_address_is_not_repeated(data: str) -> None:
    with pytest.raises(ValueError, match="--data") as error:
        locate(data)
    assert "HUSH" not in str(error.value)


def test_what_a_storage_answers_is_printable() -> None:
    def fail() -> None:
        raise OSError("AWS Error UNKNOWN (HTTP status 418) during PutObject: \x1b[31mteapot\nand more")

    with pytest.raises(StorageError, match=r"^cannot write x: AWS Error .*: \\x1b\[31mteapot$"):
        retry(fail, "x", verb="write")


def test_here_and_on_s3_the_same_is_found(bucket: str, tmp_path: Path) -> None:
    here, there = locate(str(tmp_path / "upload")), locate(bucket)
    found = [[(place.relative(info), info.type) for info in place.list(recursive=True)] for place in (here, there)]
    assert found[0] == found[1]
    assert len(found[0]) == 8
    for place in (here, there):
        assert place.join("a/b").join("y.bin").read() == BODY
        assert place.join("a b%20ü.bin").read(len(BODY)) == BODY
        assert place.join("a/x.bin").read_at(255, 3) == b"\xff\x00\x01"
        assert place.join("a/x.bin").read_at(len(BODY) - 1, 3) == b"\xff"
        assert place.join("a/x.bin").info().size == len(BODY)
        assert place.join("a").info().type == pafs.FileType.Directory
        assert place.join("a").exists()
        assert not place.join("c").exists()
        with place.join("a/x.bin").open() as file:
            file.seek(255)
            assert file.read(2) == b"\xff\x00"
    assert there.join("a/x.bin").name == "s3://bucket/p/a/x.bin"


def test_a_pickle_is_small_and_holds_no_key(bucket: str, s3: S3Server) -> None:
    location = locate(bucket).join("a/x.bin")
    data = pickle.dumps(location)
    assert len(data) < 300
    assert s3.environment["AWS_SECRET_ACCESS_KEY"].encode() not in data
    assert pickle.loads(data).read() == BODY  # noqa: S301


def test_globs(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "upload")
    for start in (bucket, str(tmp_path / "upload"), "."):
        for pattern, names in {
            "train-*.parquet": ["train-00000.parquet", "train-00001.parquet"],
            "train-0000[1-9].parquet": ["train-00001.parquet"],
            "*/x.bin": ["a/x.bin"],
            "*/?/y.bin": ["a/b/y.bin"],
            "a/?/*": ["a/b/y.bin"],
            "test.parquet": ["test.parquet"],
        }.items():
            found = expand(f"{start}/{pattern}")
            assert [location.name for location in found] == [f"{start}/{name}" for name in names], (start, pattern)
            assert all(location.read() == BODY for location in found)
        with pytest.raises(ValueError, match=r"nothing matches .*no\*thing"):
            expand(f"{start}/no*thing")
        with pytest.raises(ValueError, match="nothing matches"):
            expand(f"{start}/nowhere/*")


def test_a_file_whose_name_has_a_bracket_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].parquet").write_bytes(b"")
    assert [location.path for location in expand(f"{tmp_path}/a[1].parquet")] == [f"{tmp_path}/a[1].parquet"]


def test_nothing_there(bucket: str, tmp_path: Path) -> None:
    for place in (locate(f"{bucket}/nothing"), locate(str(tmp_path / "nothing"))):
        for call in (place.read, place.open, place.list, place.info):
            with pytest.raises(MissingError, match=r"there is nothing at .*nothing") as error:
                call()
            one_line(error)


def test_a_file_that_is_a_folder_and_the_other_way(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=f"cannot read {tmp_path}: Is a directory"):
        locate(str(tmp_path)).read()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnreadableError, match="Not a directory"):
        locate(f"{tmp_path}/file").list()


@pytest.mark.parametrize("kind", ["endless", "pipe"])
def test_a_link_to_what_is_no_file_is_neither_waited_for_nor_read(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.jpg").symlink_to({"endless": Path("/dev/zero"), "pipe": tmp_path / "pipe"}[kind])
    place = locate(f"{tmp_path}/x.jpg")
    for call in (place.read, place.open):
        with pytest.raises(UnreadableError, match=r"cannot read .*x\.jpg: a device or a pipe, not a file"):
            call()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.bin")
    (tmp_path / name).write_bytes(b"abc")
    assert locate(str(tmp_path)).join(name).read() == b"abc"
    with pytest.raises(ValueError, match="is not UTF-8; rename the file"):
        locate(str(tmp_path)).list()


def test_no_such_bucket(s3: S3Server) -> None:
    place = locate("s3://no-bucket/p")
    for call in (place.read, place.open, place.list, place.info, locate("s3://no-bucket").info):
        with pytest.raises(ValueError, match=r"s3://no-bucket.*correct its name") as error:
            call()
        assert "bucket" in one_line(error)


def test_wrong_keys_and_missing_rights(bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place = locate(f"{bucket}/a")
    wrong = {
        "does not know this key": {"AWS_ACCESS_KEY_ID": "AKIANOBODY"},
        "the secret does not belong to the key": {"AWS_SECRET_ACCESS_KEY": "x" * 40},
        "access denied": s3.powerless,
    }
    for reason, settings in wrong.items():
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            for call, message in ((place.list, reason), (place.join("x.bin").read, "access denied")):
                with pytest.raises(ValueError, match=message) as error:
                    call()
                assert "cannot read s3://bucket/p/a" in one_line(error)
    assert place.join("x.bin").read() == BODY


@pytest.mark.usefixtures("short_pauses")
def test_connections_that_break_are_tried_again(bucket: str, proxy: BadProxy) -> None:
    place = locate(f"{bucket}/a/x.bin")
    file = place.open()
    proxy.num_drops = 3
    assert place.read(len(BODY)) == BODY
    assert proxy.num_drops == 0
    proxy.num_drops = 1
    assert retry(lambda: file.read_at(1000, 5000), place.name) == BODY[5000:6000]


@pytest.mark.usefixtures("short_pauses")
def test_headers_that_break_off_are_no_empty_file(bucket: str, proxy: BadProxy) -> None:
    """The SDK takes half a header for an answer, and a file without a length for an empty one."""
    proxy.drop_after_bytes, proxy.num_drops = 0, 2
    assert locate(f"{bucket}/a/x.bin").read(len(BODY)) == BODY


@pytest.mark.usefixtures("short_pauses")
def test_a_storage_that_always_breaks_ends_in_one_line(bucket: str, proxy: BadProxy) -> None:
    proxy.num_drops = 10**9
    with pytest.raises(
        ValueError, match=r"cannot read s3://bucket/p/a/x.bin: failed 6 times in .* partial file"
    ) as error:
        locate(f"{bucket}/a/x.bin").read()
    assert not isinstance(error.value, UnreadableError)
    assert one_line(error).endswith("check that this machine can reach the storage, then start again")


@pytest.mark.usefixtures("short_pauses")
def test_nobody_listens(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"failed 6 times in .* Could not connect to server"):
        locate("s3://bucket/p").list()


def test_a_slow_storage_works(bucket: str, proxy: BadProxy) -> None:
    proxy.delay_seconds = 0.05
    assert locate(f"{bucket}/a/x.bin").read() == BODY


@pytest.mark.usefixtures("short_pauses")
def test_silence_has_an_end(bucket: str, proxy: BadProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr("inq_ray.storage.retry.NUM_TRIES", 1)
    proxy.delay_seconds = 30.0
    with pytest.raises(ValueError, match=r"failed 1 time in .* too slow"):
        locate(f"{bucket}/a/x.bin").read()


def test_hadoop_is_not_here() -> None:
    if "HADOOP_HOME" in os.environ or "CLASSPATH" in os.environ:
        pytest.skip("Hadoop may be here")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot open hdfs://host: .*libhdfs and Java: set HADOOP_HOME") as error:
            locate("hdfs://host/a").list()
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("short_pauses")
def test_google_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inq_ray.storage.retry.NUM_TRIES", 2)
    monkeypatch.setattr(file_system, "GOOGLE_SECONDS", 1)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"cannot read gs://anonymous@bucket/a: failed 2 times .*UNAVAILABLE"):
        locate("gs://anonymous@bucket/a").list()
