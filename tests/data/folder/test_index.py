"""The index of an image folder says what torchvision's ImageFolder finds, and is made once while nothing changes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from inq_ray.data.decode.pillow import EXTENSIONS
from inq_ray.data.folder import cache as folder_cache
from inq_ray.data.folder.cache import find_index
from inq_ray.data.folder.index import FolderIndex, open_index
from inq_ray.storage.address import locate
from tests.data.folders import make_folder, make_stable
from tests.s3 import S3Server

TREE = {
    "train/cat/1.jpg": b"a",
    "train/cat/deep/0.PNG": b"bc",
    "train/dog/x.JPEG": b"def",
    "train/dog/notes.txt": b"not an image",
    "train/owl/.hidden.jpg": b"hidden",
    "train/owl/y.webp": b"",
    "train/.cache/z.jpg": b"hidden",
    "val/cat/2.jpg": b"ghij",
    "val/owl/3.tiff": b"k",
    "val/dog": None,
    "README.md": b"",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "images", TREE)


def samples(index: FolderIndex, split: str) -> list[tuple[bytes, int, int]]:
    return list(zip(*index.rows[split].to_pydict().values(), strict=True))


def listed(*_: object) -> None:
    raise AssertionError("must not be listed again")


def test_extensions_are_those_of_torchvision() -> None:
    assert set(EXTENSIONS) == set(IMG_EXTENSIONS)


def test_what_is_in_it(tree: Path, tmp_path: Path) -> None:
    index = find_index(locate(str(tree)), tmp_path / "index")
    assert samples(index, "train") == [
        (b"cat/1.jpg", 1, 0),
        (b"cat/deep/0.PNG", 2, 0),
        (b"dog/x.JPEG", 3, 1),
        (b"owl/y.webp", 0, 2),
    ]
    assert samples(index, "test") == [(b"cat/2.jpg", 4, 0), (b"owl/3.tiff", 1, 2)]
    facts = index.facts
    assert facts.class_names == ("cat", "dog", "owl")
    assert facts.folders == {"train": "train", "test": "val"}
    assert facts.num_images == {"train": 4, "test": 2}
    assert (facts.num_ignored, facts.num_untested) == (1, 1)
    assert [path.suffix for path in (tmp_path / "index").iterdir()] == [".arrow"]


NAMES = st.text("ab-_A1. ü", min_size=1, max_size=4).filter(lambda name: name[0] != "." and name != "..")
FILES = st.builds("{}{}".format, NAMES, st.sampled_from((".jpg", ".JPEG", ".Png", ".txt", "", ".tar.gz", ".webp")))
BELOW = st.builds("/".join, st.tuples(NAMES, FILES) | st.tuples(FILES))


@settings(max_examples=40)
@given(st.dictionaries(NAMES, st.dictionaries(BELOW, st.binary(max_size=3), max_size=5), min_size=1, max_size=4))
def test_same_as_torchvision_and_walking(classes: dict[str, dict[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, places = Path(name, "images"), Path(name, "index")
        files = {f"train/{klass}/{path}": data for klass, files in classes.items() for path, data in files.items()}
        # A name cannot be a file and a folder.
        files = {path: data for path, data in files.items() if not any(other.startswith(f"{path}/") for other in files)}
        make_folder(root, {**{f"train/{klass}/0.jpg": b"0" for klass in classes}, **files})
        index = find_index(locate(str(root)), places)
        theirs = ImageFolder(root / "train")
        ours = [(f"{root}/train/{path.decode()}", label) for path, _, label in samples(index, "train")]
        assert ours == theirs.samples
        assert list(index.facts.class_names) == theirs.classes
        walked = {
            os.path.join(folder, file): os.path.getsize(os.path.join(folder, file))
            for folder, _, found in os.walk(root)
            for file in found
        }
        images = {path: size for path, size in walked.items() if path.lower().endswith(IMG_EXTENSIONS)}
        assert {f"{root}/train/{path.decode()}": size for path, size, _ in samples(index, "train")} == images
        assert index.facts.num_ignored == len(walked) - len(images)


def test_names_that_are_not_utf8_and_links(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / os.fsdecode(b"\xffclass")).mkdir()
    (tree / "train" / os.fsdecode(b"\xffclass/\xfe.jpg")).write_bytes(b"x")
    (tree / "train" / "dog" / "link").symlink_to(tree / "train" / "cat")
    (tree / "train" / "dog" / "loop").symlink_to(tree / "train" / "dog")
    (tree / "train" / "dog" / "nowhere.jpg").symlink_to(tree / "nothing")
    index = find_index(locate(str(tree)), tmp_path / "index")
    assert index.facts.class_names == ("cat", "dog", "owl", "\\xffclass")
    found = samples(index, "train")
    assert (b"\xffclass/\xfe.jpg", 1, 3) in found
    assert (b"dog/link/deep/0.PNG", 2, 1) in found
    assert (b"dog/nowhere.jpg", -1, 1) in found
    assert (b"dog/loop/x.JPEG", 3, 1) in found
    assert not any(path.startswith(b"dog/loop/loop/") for path, _, _ in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, r"train has no classes, it has no folders: put the images of each class into a folder"),
        (
            {"train/a.jpg": b"", "train/b.png": b""},
            r"train has no classes, only 2 images directly in it \(a.jpg, b.png\)",
        ),
        ({"train/a/1.jpg": b"", "val/1.jpg": b""}, r"val has no classes, only 1 image directly in it \(1.jpg\)"),
        ({"train/a/1.jpg": b"", "val": None}, r"val has no classes, it has no folders"),
        ({"train/a/1.jpg": b"", "train/b": None}, r"train has 1 class without images \(b\): add images \(\.jpg,"),
        ({"train/a/1.jpg": b"", "train/b/x.txt": b""}, r"train has 1 class without images \(b\)"),
        ({"train/a/1.jpg": b"", "val/a": None}, r"val has 1 class without images \(a\)"),
        (
            {"train/a/1.jpg": b"", **{f"val/{name}/1.jpg": b"" for name in "abcdef"}},
            r"val has 5 classes that train does not have \(b, c, d, \.\.\.\): a class must",
        ),
        (
            {"n01/a.jpg": b""},
            r"has no folder train, val, validation or test \(its folders: n01\): pass the folder that",
        ),
        ({".train/n01/a.jpg": b""}, r"has no folder train, val.*: none\)"),
    ],
)
def test_folders_that_are_none(changes: dict[str, bytes | None], message: str, tmp_path: Path, s3: S3Server) -> None:
    root = make_folder(tmp_path / "images", changes)
    with pytest.raises(ValueError, match=message) as error:
        find_index(locate(str(root)), tmp_path / "index")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "index").exists()


def test_the_first_folder_to_test_on(tree: Path, tmp_path: Path) -> None:
    make_folder(tree, {"test/cat/9.jpg": b"", "validation/cat/8.jpg": b""})
    assert find_index(locate(str(tree)), tmp_path).facts.folders["test"] == "val"
    (tree / "val").rename(tree / "unused")
    assert find_index(locate(str(tree)), tmp_path).facts.folders["test"] == "validation"


def test_without_one_of_the_splits(tmp_path: Path) -> None:
    train = find_index(locate(str(make_folder(tmp_path / "a", {"train/cat/1.jpg": b"1"}))), tmp_path)
    assert (train.facts.num_images, train.facts.num_untested) == ({"train": 1, "test": 0}, 0)
    test = find_index(locate(str(make_folder(tmp_path / "b", {"test/cat/1.jpg": b"1"}))), tmp_path)
    assert test.facts.num_images == {"train": 0, "test": 1}
    assert test.facts.class_names == ("cat",)
    assert train.facts.fingerprint != test.facts.fingerprint


def test_used_again_while_nothing_changes(tree: Path, tmp_path: Path) -> None:
    make_stable(tree)
    place, root = tmp_path / "index", locate(str(tree))
    first = find_index(root, place)
    with patch.object(folder_cache, "list_folder", listed):
        assert find_index(root, place) is first
        assert find_index(locate(str(tree)), place, first.facts.fingerprint) is first
    assert len(list(place.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "train/cat/new.jpg").write_bytes(b"new"),
        lambda tree: (tree / "train/cat/deep/new.jpg").write_bytes(b"new"),
        lambda tree: (tree / "train/dog/x.JPEG").unlink() or (tree / "train/dog/z.jpg").write_bytes(b"z"),
        lambda tree: (tree / "val/owl/3.tiff").rename(tree / "val/owl/4.tiff"),
        lambda tree: make_folder(tree, {"train/new/1.jpg": b"1"}),
        lambda tree: (tree / "val").rename(tree / "test"),
    ],
)
def test_listed_again_when_something_changes(tree: Path, tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    make_stable(tree)
    place, root = tmp_path / "index", locate(str(tree))
    first = find_index(root, place)
    change(tree)
    second = find_index(root, place)
    assert [samples(second, split) for split in ("train", "test")] == [
        samples(find_index(root, tmp_path / "another"), split) for split in ("train", "test")
    ]
    assert second.facts.folders != first.facts.folders or second.facts.fingerprint != first.facts.fingerprint


def test_fresh_folders_are_listed_again(tree: Path, tmp_path: Path) -> None:
    """Within a tick of the clock a file can come without a sign."""
    root = locate(str(tree))
    first = find_index(root, tmp_path / "index")
    path = tree / "train/cat/new.jpg"
    facts = path.parent.stat()
    path.write_bytes(b"new")
    os.utime(path.parent, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert find_index(root, tmp_path / "index").facts.num_images["train"] == first.facts.num_images["train"] + 1


def test_times_that_are_made_up_are_not_trusted(tree: Path, tmp_path: Path) -> None:
    for then in (0, 10**9):
        for folder, _, _ in os.walk(tree):
            os.utime(folder, (then, then))
        first = find_index(locate(str(tree)), tmp_path / "index")
        with patch.object(folder_cache, "list_folder", listed), pytest.raises(AssertionError):
            find_index(locate(str(tree)), tmp_path / "index")
        assert find_index(locate(str(tree)), tmp_path / "index") is first  # listed again, and not written again


def test_a_damaged_index_is_made_anew(tree: Path, tmp_path: Path) -> None:
    make_stable(tree)
    place, root = tmp_path / "index", locate(str(tree))
    find_index(root, place)
    (path,) = place.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 100):
        open_index.cache_clear()
        path.unlink()  # what is mapped is not to be written over
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} is not a usable index of images.*; remove it"):
            open_index(path)
        find_index(root, place)
        assert path.read_bytes() == whole


def test_no_room_for_the_index(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot write the index of images to .*file: .*; use a writable folder"):
        find_index(locate(str(tree)), tmp_path / "file")


def test_same_files_same_fingerprint_wherever(tree: Path, tmp_path: Path, s3: S3Server) -> None:
    other = make_folder(tmp_path / "elsewhere", dict(reversed(TREE.items())))
    (other / "val").rename(other / "validation")
    s3.upload(tree, "wherever/images")
    found = [find_index(locate(place), tmp_path / "index") for place in (str(tree), str(other), "s3://wherever/images")]
    assert len({index.facts.fingerprint for index in found}) == 1
    assert samples(found[0], "train") == samples(found[2], "train")
    assert samples(found[0], "test") == samples(found[2], "test")
    (other / "train/cat/1.jpg").write_bytes(b"longer")
    assert find_index(locate(str(other)), tmp_path).facts.fingerprint != found[0].facts.fingerprint


def test_another_node_has_other_files(tree: Path, tmp_path: Path) -> None:
    fingerprint = find_index(locate(str(tree))).facts.fingerprint
    (tree / "train/cat/more.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has other images on this machine \(5 of train and 2 of test\) than where"):
        find_index(locate(str(tree)), fingerprint=fingerprint)


def test_a_storage_is_listed_once_for_a_fingerprint(tree: Path, tmp_path: Path, s3: S3Server) -> None:
    root = locate(s3.upload(tree, "once/images"))
    first = find_index(root, tmp_path)
    with patch.object(folder_cache, "list_folder", listed):
        assert find_index(root, tmp_path, first.facts.fingerprint) is first
        with pytest.raises(AssertionError):
            find_index(root, tmp_path)
        with pytest.raises(AssertionError):
            find_index(root, tmp_path, "0" * 64)
    with pytest.raises(ValueError, match="has other images"):
        find_index(root, tmp_path, "0" * 64)


# Another process, which says when it is about to list the folder, and does so when it is told.
ANOTHER = """
import sys
from pathlib import Path
from inq_ray.data.decode.pillow import EXTENSIONS
from inq_ray.data.folder import cache as folder_cache
from inq_ray.storage.address import locate

whole = folder_cache.list_folder

def slow(*arguments):
    print("listing", flush=True)
    sys.stdin.read()
    return whole(*arguments)

folder_cache.list_folder = slow
print(folder_cache.find_index(locate(sys.argv[1]), Path(sys.argv[2])).facts.fingerprint)
"""


def test_processes_of_a_node_list_a_storage_once(tree: Path, tmp_path: Path, s3: S3Server) -> None:
    address = s3.upload(tree, "node/images")
    command = [sys.executable, "-c", ANOTHER, address, str(tmp_path / "index")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as another:
        assert another.stdin is not None
        assert another.stdout is not None
        assert another.stdout.readline() == "listing\n"
        tell, locked = another.stdin.close, folder_cache.locked
        with (
            patch.object(folder_cache, "locked", lambda *words: (tell(), locked(*words))[1]),  # asked, and waits now
            patch.object(folder_cache, "list_folder", listed),
        ):
            index = find_index(locate(address), tmp_path / "index")
        assert another.stdout.read() == f"{index.facts.fingerprint}\n"
    with patch.object(folder_cache, "list_folder", listed), pytest.raises(AssertionError):
        find_index(locate(address), tmp_path / "index")  # asked later: something may have changed


def test_the_metadata_are_plain(tree: Path, tmp_path: Path) -> None:
    """Readable without us: Arrow and JSON."""
    import pyarrow as pa

    path = find_index(locate(str(tree)), tmp_path / "index").path
    with pa.memory_map(str(path)) as file:
        stated = json.loads(pa.ipc.open_file(file).schema.metadata[b"inq_ray.folder_index"])
    assert stated["class_names"] == ["cat", "dog", "owl"]
