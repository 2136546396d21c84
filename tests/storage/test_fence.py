"""Links in a folder of data lead nowhere else, unless that is asked for."""

import os
from pathlib import Path

import numpy as np
import pytest

from inq_ray.data.image_set import Source
from inq_ray.data.parquet.writer import plan_folder
from inq_ray.data.source import open_source
from inq_ray.storage.fence import Fence
from tests.data.folders import make_folder, make_stable
from tests.data.parquet_files import write_dataset

TREE = {
    "train/cat/1.jpg": b"a",
    "train/cat/deep/2.jpg": b"bc",
    "train/dog/3.jpg": b"def",
    "val/cat/4.jpg": b"ghij",
}
SECRET = b"what nobody asked for"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of images; beside it lie other files."""
    make_folder(tmp_path / "else", {"secret.jpg": SECRET, "class/5.jpg": SECRET, "split/cat/6.jpg": SECRET})
    return make_folder(tmp_path / "images", TREE)


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def refusal(data: Path | str) -> str:
    with pytest.raises(ValueError, match="--follow-links") as error:
        open_source(str(data))
    line = str(error.value)
    assert "\n" not in line
    return line


def read_all(source: Source) -> list[bytes | None]:
    images = source.split("train")
    reader = images.reader  # type: ignore[attr-defined]
    return [encoded.data for encoded in reader.read(np.arange(len(reader)))]


LINKS = {
    "file": ("train/cat/x.jpg", "{root}/else/secret.jpg"),
    "relative file": ("train/cat/x.jpg", "../../../else/secret.jpg"),
    "file further down": ("train/cat/deep/x.JPEG", "../../../../else/secret.jpg"),
    "nothing": ("train/cat/x.jpg", "/nothing/at/all.jpg"),
    "folder": ("train/cat/more", "{root}/else/class"),
    "class": ("train/owl", "{root}/else/class"),
    "class to test on": ("val/dog", "../../else/class"),
    "split": ("test", "../else/split"),
    "folder above": ("train/cat/up", "../../.."),
    "folder of a name that begins alike": ("train/cat/like", "../../../images2"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_out_of_a_folder_of_images(kind: str, tree: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "images2", {"7.jpg": SECRET})
    name, target = LINKS[kind]
    if kind == "split":
        (tree / "val").rename(tree / "unused")
    link(tree / name, target.format(root=tmp_path))
    line = refusal(tree)
    real = os.path.realpath(tree / name)
    assert line.startswith(f"{tree / name} is a link to {real}, outside of the data folder {tree}:")
    assert open_source(str(tree), follow_links=True).info.num_classes in (2, 3)


def test_chains_of_links_are_followed_to_their_end(tree: Path, tmp_path: Path) -> None:
    link(tree / ".pool/one", "two")
    link(tree / ".pool/two", "../train/dog/3.jpg")
    link(tree / "train/cat/x.jpg", "../../.pool/one")
    assert read_all(open_source(str(tree))).count(b"def") == 2
    (tree / ".pool/two").unlink()
    link(tree / ".pool/two", tmp_path / "else/secret.jpg")
    (tree / "train/cat/new.jpg").write_bytes(b"new")  # so that the index is made anew
    assert f"train/cat/x.jpg is a link to {tmp_path}/else/secret.jpg" in refusal(tree)


def test_links_within_the_folder_are_followed(tree: Path) -> None:
    link(tree / "train/owl", "cat")
    link(tree / "train/dog/x.jpg", tree / "train/cat/1.jpg")
    link(tree / "train/dog/loop", "../dog")
    source = open_source(str(tree))
    assert source.info.class_names == ("cat", "dog", "owl")
    assert b"a" in read_all(source)


def test_the_folder_itself_may_be_a_link(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    link(tmp_path / "a/link", "../b")
    link(tmp_path / "b", tree)
    link(tree / "train/dog/x.jpg", "../cat/1.jpg")
    assert read_all(open_source("a/link")) == read_all(open_source(str(tree)))
    link(tree / "train/dog/y.jpg", "../../../else/secret.jpg")
    assert refusal("a/link").startswith(f"{tmp_path}/a/link/train/dog/y.jpg is a link to {tmp_path}/else/")


def test_what_is_not_read_may_be_any_link(tree: Path, tmp_path: Path) -> None:
    link(tree / "raw", tmp_path / "else")
    link(tree / "train/cat/notes.txt", tmp_path / "else/secret.jpg")
    link(tree / "train/cat/.hidden.jpg", tmp_path / "else/secret.jpg")
    assert SECRET not in read_all(open_source(str(tree)))


def test_an_index_made_with_links_followed_serves_no_run_without(tree: Path, tmp_path: Path) -> None:
    link(tree / "train/cat/deep/x.jpg", "../../../../else/secret.jpg")
    make_stable(tree)
    for _ in range(2):
        followed = open_source(str(tree), index_folder=tmp_path / "index", follow_links=True)
        assert SECRET in read_all(followed)
        with pytest.raises(ValueError, match="--follow-links"):
            open_source(str(tree), index_folder=tmp_path / "index")
        with pytest.raises(ValueError, match="--follow-links"):
            open_source(str(tree), index_folder=tmp_path / "index", fingerprint=followed.info.fingerprint)


def test_a_file_that_has_become_a_link_since_is_not_read(tree: Path, tmp_path: Path) -> None:
    source = open_source(str(tree))
    (tree / "train/cat/1.jpg").unlink()
    link(tree / "train/cat/1.jpg", tmp_path / "else/secret.jpg")
    (tree / "train/dog").rename(tree / "gone")
    link(tree / "train/dog", tmp_path / "else/dogs")
    make_folder(tmp_path / "else", {"dogs/3.jpg": SECRET})
    reader = source.split("train").reader  # type: ignore[attr-defined]
    found = reader.read(np.arange(len(reader)))
    assert [encoded.data for encoded in found] == [None, b"bc", None]
    assert found[0].error == "a link leads out of the data folder"


def test_writing_parquet_follows_no_links_out_either(tree: Path, tmp_path: Path) -> None:
    link(tree / "train/cat/x.jpg", tmp_path / "else/secret.jpg")
    with pytest.raises(ValueError, match="--follow-links"):
        plan_folder(str(tree), seed=0, shard_bytes=10**6)
    assert len(plan_folder(str(tree), seed=0, shard_bytes=10**6, follow_links=True)[-1].order) == 4


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A snapshot as the hub's cache lays it out: links to files that are named by their contents."""
    (tmp_path / "made").mkdir()
    write_dataset(tmp_path / "made")
    snapshot = tmp_path / "datasets--a--b/snapshots/0123"
    (tmp_path / "datasets--a--b/blobs").mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "made").iterdir())):
        file.rename(tmp_path / f"datasets--a--b/blobs/{number}")
        link(snapshot / "data" / file.name, f"../../../blobs/{number}")
    link(snapshot / "README.md", "../../blobs/9")
    return snapshot


def test_the_hubs_cache_is_read_as_it_is(hub: Path, tmp_path: Path) -> None:
    repository = hub.parent.parent
    for data in (hub, hub / "data", f"{hub}/data/t*.parquet", repository):
        assert open_source(str(data)).info.num_test == 7
    assert f"outside of the data folder {hub.parent}:" in refusal(f"{hub.parent}/0*/data/t*")
    # One file is as given, and by this pattern all lies where it begins.
    assert open_source(f"{hub}/data/test-00000-of-00001.parquet").info.num_test == 7
    assert open_source(f"{hub.parent.parent}/*/0*/data/t*").info.num_test == 7


@pytest.mark.parametrize("is_linked", [True, False])
def test_other_links_of_a_hubs_cache_are_refused(hub: Path, tmp_path: Path, is_linked: bool) -> None:
    blobs = hub.parent.parent / "blobs"
    if is_linked:
        blobs.rename(tmp_path / "elsewhere")
        link(blobs, tmp_path / "elsewhere")
    else:
        (blobs / "0").rename(tmp_path / "elsewhere")
        link(blobs / "0", tmp_path / "elsewhere")
    assert f"is a link to {tmp_path}/elsewhere" in refusal(hub)
    assert open_source(str(hub), follow_links=True).info.num_train == 20


def test_links_of_parquet_within_and_to_a_folder(hub: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    link(flat / "data", hub / "data")
    assert refusal(flat).startswith(f"{flat}/data is a link to {hub}/data, outside of")
    inside = tmp_path / "inside"
    (inside / "pool").mkdir(parents=True)
    (tmp_path / "datasets--a--b/blobs/0").rename(inside / "pool/0")
    link(inside / "test.parquet", "pool/0")
    link(tmp_path / "to inside", inside)
    assert open_source(str(tmp_path / "to inside")).info.num_test == 7


def test_the_root_of_the_machine_holds_everything() -> None:
    assert Fence("/", "/").holds("/etc/passwd")
    assert not Fence("/a", "/a").holds("/ab")


def test_names_that_are_not_utf8(tree: Path) -> None:
    link(tree / "train/cat" / os.fsdecode(b"\xff.jpg"), os.fsdecode(b"/nothing/\xfe"))
    assert "train/cat/\\xff.jpg is a link to /nothing/\\xfe, outside" in refusal(tree)
