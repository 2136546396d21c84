"""Folders of checkpoints, damaged in any way: the newest whole one is found, or one line says what is wrong.

What is damaged behind its digests is refused by them. Where the digests are made to match, as only a program that is
wrong would do, the contents are asked whether a run can have written them: what is loaded then fits the network, bit
for bit as it stands in the file, or is refused.

    pytest tests/training/checkpoint/test_fuzz.py --hypothesis-profile=search      # a thousand examples of each
"""

import copy
import functools
import hashlib
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.files import FACTS, MANIFEST, TENSORS, encode
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore
from inq_ray.training.checkpoint.resume import Resume, Standing, decide
from inq_ray.training.checkpoint.store import CheckpointStore, Found
from inq_ray.training.loop.ema import Ema
from tests.training.checkpoint.networks import make_network, make_parts, make_snapshot, snapshot_bits, snapshot_of

pytestmark = pytest.mark.system

OLDER, NEWER = TrainingPosition(stage=1, epoch=0, step=2), TrainingPosition(stage=2, epoch=0, step=1)
FILES = (MANIFEST, FACTS, TENSORS)
# More memory than this is none that a checkpoint of 10 kB may take.
MOST_BYTES = 2**30


def examples(num: int) -> settings:
    """So many in every run of the tests, and as many as the profile says where one searches."""
    num = num if settings.default is None or settings.default.derandomize else settings.default.max_examples
    return settings(max_examples=num, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@functools.cache
def written() -> dict[TrainingPosition, dict[str, bytes]]:
    """The files of two checkpoints of one run."""
    snapshots = {OLDER: make_snapshot(OLDER), NEWER: make_snapshot(NEWER, stages=2)}
    return {position: encode(each, is_stage_end=False, top1=51.5)[1] for position, each in snapshots.items()}


@functools.cache
def bits() -> dict[TrainingPosition, Any]:
    """What they hold."""
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(locate(str(write(Path(folder) / "run", written()))))
        return {position: snapshot_bits(store.load(position)[1]) for position in written()}


def write(folder: Path, checkpoints: dict[TrainingPosition, dict[str, bytes]]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for position, files in checkpoints.items():
        (folder / position.name).mkdir(parents=True)
        for name, data in files.items():
            (folder / position.name / name).write_bytes(data)
    return folder


@contextmanager
def little_memory() -> Iterator[None]:
    """A huge allocation fails here, and does not end the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as facts:
        now = int(facts.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def find(folder: Path) -> Found | None:
    """What is found there; None where it is refused in one line."""
    with little_memory():
        try:
            found = CheckpointStore(locate(str(folder))).newest_good()
        except ValueError as error:
            assert_line(error)
            return None
    for damaged in found.damaged:
        assert "\n" not in damaged.reason
        assert len(damaged.reason) < 500
    return found


def assert_line(error: ValueError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 500


# Damage to files.

spans = st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40))


def spliced(data: bytes, span: tuple[float, int, bytes]) -> bytes:
    """Some bytes replaced by others: flipped, inserted, left out, or cut off."""
    start = int(span[0] * len(data))
    return data[:start] + span[2] + data[start + span[1] :]


def link(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        remove(path)
        path.symlink_to(target)

    return make


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def to_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def to_file(path: Path) -> None:
    remove(path)
    path.write_bytes(b"x")


def to_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


def to_hole(path: Path) -> None:
    """A file of a terabyte that takes no room."""
    remove(path)
    path.touch()
    os.truncate(path, 2**40)


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    for source, target in ((one, aside), (other, one), (aside, other)):
        if os.path.lexists(source):
            source.rename(target)


REPOSITIOND: dict[str, Callable[[Path], None]] = {
    "removed": remove,
    "empty": lambda path: os.truncate(path, 0),
    "folder": to_folder,
    "pipe": to_pipe,
    "hole": to_hole,
    "loop": lambda path: link(path.name)(path),
    "nowhere": link("nowhere"),
    "zeros": link("/dev/zero"),
    "outside": link("/etc/passwd"),
    "twin": lambda path: swap(path, path.parent.parent / OLDER.name / path.name),
    "other": lambda path: swap(path, path.with_name(FACTS if path.name != FACTS else TENSORS)),
    "renamed": lambda path: os.rename(path, f"{path}.bak"),
    "locked": lambda path: path.chmod(0),
}
FOLDERS: dict[str, Callable[[Path], None]] = {
    "removed": remove,
    "file": to_file,
    "pipe": to_pipe,
    "loop": lambda path: link(path.name)(path),
    "nowhere": link("nowhere"),
    "to the older one": link(OLDER.name),
    "up": link(".."),
    "swapped": lambda path: swap(path, path.with_name(OLDER.name)),
    "renamed": lambda path: os.rename(path, path.with_name("checkpoint-09-0000-00000000")),
    "hidden": lambda path: os.rename(path, path.with_name(f".{path.name}.host-1-2.partial")),
}


@given(file=st.sampled_from(FILES), cuts=st.lists(spans, min_size=1, max_size=3))
@examples(40)
def test_bytes(
    file: str,
    cuts: list[tuple[float, int, bytes]],
    tmp_path: Path,
) -> None:
    data = written()[NEWER][file]
    for cut in cuts:
        data = spliced(data, cut)
    folder = write(tmp_path / "run", written())
    (folder / NEWER.name / file).write_bytes(data)
    found = find(folder)
    assert found is not None
    assert found.entry is not None
    assert found.snapshot is not None
    assert snapshot_bits(found.snapshot) == bits()[found.entry.position]
    is_same = data == written()[NEWER][file] or (file == MANIFEST and says_the_same(data, written()[NEWER][file]))
    assert found.entry.position == (NEWER if is_same else OLDER)
    assert [position for position, _ in found.damaged] == ([] if is_same else [NEWER])


def says_the_same(data: bytes, as_written: bytes) -> bool:
    """White space in the manifest is not in its digest."""
    try:
        return bool(json.loads(data) == json.loads(as_written))
    except ValueError:
        return False


@given(
    files=st.dictionaries(st.sampled_from(FILES), st.sampled_from(sorted(REPOSITIOND)), max_size=3),
    folder_is=st.none() | st.sampled_from(sorted(FOLDERS)),
    beside=st.sampled_from(["", "x", "checkpoint-03-0000-00000000", "checkpoint-02-0000-00000001.bak", "..."]),
)
@examples(40)
def test_files_and_folders(
    files: dict[str, str],
    folder_is: str | None,
    beside: str,
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "run", written())
    for file in sorted(files):
        if os.path.lexists(folder / NEWER.name / file):
            REPOSITIOND[files[file]](folder / NEWER.name / file)
    if folder_is is not None:
        FOLDERS[folder_is](folder / NEWER.name)
    if beside:
        (folder / beside).mkdir()
    found = find(folder)
    if found is not None and found.entry is not None:
        assert found.snapshot is not None
        assert snapshot_bits(found.snapshot) == bits()[found.entry.position]
    elif found is not None:
        assert found.damaged or folder_is is not None
    with little_memory():  # tidying, as a run does before it writes
        try:
            CheckpointStore(locate(str(folder))).clean()
        except ValueError as error:
            assert_line(error)


# Damage behind digests that match.

names = st.sampled_from(["stage", "epoch", "lr", "n_1", "..", "../../x", "/etc/passwd", "tensors", ""]) | st.text(
    max_size=3
)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**400)
leaves = st.none() | st.booleans() | numbers | names
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there are values in JSON."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places_in(item, (*path, key))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """JSON of which something is another value, gone, twice there, or new."""
    positions = list(places_in(value))[1:]
    value = copy.deepcopy(value)
    for *above, key in draw(st.lists(st.sampled_from(positions), min_size=1, max_size=2)):
        holder = value
        try:
            for step in above:
                holder = holder[step]
            match draw(st.sampled_from(["replace", "nudge", "remove", "add"])):
                case "replace":
                    holder[key] = draw(values)
                case "nudge" if isinstance(holder[key], int | float):
                    holder[key] += draw(st.sampled_from([-1, 1, 2**31, 1e300]))
                case "remove":
                    del holder[key]
                case "add" if isinstance(holder, dict):
                    holder[draw(names)] = draw(values)
                case _:
                    holder.append(holder[key])
        except (KeyError, IndexError, TypeError, AttributeError, OverflowError):
            continue  # what the first change left has no such position
    return value


def sealed(files: dict[str, bytes], **manifest: Any) -> dict[str, bytes]:
    """The files with a manifest whose digests are theirs."""
    content = json.loads(files[MANIFEST])["content"]
    content["files"] = {
        name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        for name in (FACTS, TENSORS)
    }
    return {**files, MANIFEST: signed({**content, **manifest})}


def signed(content: Any) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({"content": content, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def take_up(found: Found | None) -> None:
    """Does with what was found what a run does: it fits and holds the bits of the file, or is refused in one line."""
    if found is None or found.snapshot is None:
        return
    assert found.entry is not None
    snapshot = found.snapshot
    try:
        config = snapshot.facts.config
        decision = decide("auto", Standing(name="x", config=config, found=found), config)
        assert isinstance(decision, Resume)
        parts = make_parts(make_network(seed=8), ema_decay=None)
        restore(snapshot, parts)
        if snapshot.facts.has_ema:
            parts = make_parts(parts.model, ema_decay=None)
            restore(snapshot, parts)
            for name, param in parts.inq.quantized().items():  # type: ignore[union-attr]
                param.requires_grad_(not bool(parts.inq.state[name].frozen.all()))  # type: ignore[union-attr]
            parts = type(parts)(**{**vars(parts), "ema": Ema(parts.model, 0.9)})
            restore(snapshot, parts)
    except ValueError as error:
        assert_line(error)
        return
    again = snapshot_bits(snapshot_of(parts, snapshot.position))
    there = snapshot_bits(snapshot)
    del again["sums"], there["sums"]
    assert again.keys() == there.keys()
    for name, value in again.items():
        assert value == there[name], name


@pytest.mark.long
@given(data=st.data())
@examples(60)
def test_facts(data: st.DataObject, tmp_path: Path) -> None:
    facts = data.draw(changed(json.loads(written()[NEWER][FACTS])))
    files = {**written()[NEWER], FACTS: json.dumps(facts).encode()}
    take_up(find(write(tmp_path / "run", {OLDER: written()[OLDER], NEWER: sealed(files)})))


@given(data=st.data())
@examples(40)
def test_manifest(data: st.DataObject, tmp_path: Path) -> None:
    content = data.draw(changed(json.loads(written()[NEWER][MANIFEST])["content"]))
    folder = write(tmp_path / "run", {OLDER: written()[OLDER], NEWER: {**written()[NEWER], MANIFEST: signed(content)}})
    found = find(folder)
    assert found is not None
    assert found.entry is not None
    assert found.snapshot is not None
    assert snapshot_bits(found.snapshot) == bits()[found.entry.position]
    store = CheckpointStore(locate(str(folder)))
    assert store.entries()
    store.prune(OLDER)


@pytest.mark.long
@given(data=st.data())
@examples(60)
def test_header_of_tensors(data: st.DataObject, tmp_path: Path) -> None:
    whole = written()[NEWER][TENSORS]
    length = int.from_bytes(whole[:8], "little")
    header = json.dumps(data.draw(changed(json.loads(whole[8 : 8 + length])))).encode()
    size = data.draw(st.just(len(header)) | st.sampled_from([0, 1, len(header) + 1, 2**31, 2**63, 2**64 - 1]))
    files = {**written()[NEWER], TENSORS: size.to_bytes(8, "little") + header + whole[8 + length :]}
    take_up(find(write(tmp_path / "run", {OLDER: written()[OLDER], NEWER: sealed(files)})))


@pytest.mark.long
@given(cuts=st.lists(spans, min_size=1, max_size=2), file=st.sampled_from([FACTS, TENSORS]))
@examples(40)
def test_bytes_behind_digests(cuts: list[tuple[float, int, bytes]], file: str, tmp_path: Path) -> None:
    files = dict(written()[NEWER])
    for cut in cuts:
        files[file] = spliced(files[file], cut)
    take_up(find(write(tmp_path / "run", {OLDER: written()[OLDER], NEWER: sealed(files)})))


@pytest.mark.long
@given(data=st.data())
@examples(40)
def test_tensors(data: st.DataObject, tmp_path: Path) -> None:
    """Tensors left out, added, exchanged, of another shape, type or value."""
    tensors: dict[str, torch.Tensor] = safetensors.torch.load(written()[NEWER][TENSORS])
    name, other = (data.draw(st.sampled_from(sorted(tensors))) for _ in range(2))
    match data.draw(st.sampled_from(["remove", "add", "exchange", "shape", "type", "value"])):
        case "remove":
            del tensors[name]
        case "add":
            tensors[data.draw(names | st.just(f"momentum/{name}"))] = torch.ones(data.draw(st.integers(0, 4)))
        case "exchange":
            tensors[name], tensors[other] = tensors[other], tensors[name]
        case "shape":
            tensors[name] = data.draw(st.sampled_from([tensors[name].reshape(-1)[:1], tensors[name][None]])).clone()
        case "type":
            tensors[name] = tensors[name].to(data.draw(st.sampled_from([torch.float64, torch.uint8, torch.bool])))
        case "value":
            tensors[name] = torch.full_like(tensors[name], data.draw(st.sampled_from([0, 1, 127])))
    files = {**written()[NEWER], TENSORS: safetensors.torch.save({key: each.clone() for key, each in tensors.items()})}
    take_up(find(write(tmp_path / "run", {OLDER: written()[OLDER], NEWER: sealed(files)})))


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "tensors.safetensors/../facts.json", "a/b", ""])
def test_no_file_is_read_that_is_not_the_checkpoints(tmp_path: Path, name: str) -> None:
    content = json.loads(written()[NEWER][MANIFEST])["content"]
    content["files"][name] = content["files"][FACTS]
    folder = write(tmp_path / "run", {NEWER: {**written()[NEWER], MANIFEST: signed(content)}})
    found = find(folder)
    assert found is not None
    assert found.entry is None
    assert "its files are" in found.damaged[0].reason


def test_sizes_are_looked_at_before_room_is_made(tmp_path: Path) -> None:
    """10^12 weights that facts speak of and no tensor holds take no memory."""
    facts = json.loads(written()[NEWER][FACTS])
    for shape, num_frozen in (([10**6, 10**6], 0), ([10**6, 10**6], 10**12), ([10**12], 8 * 10**11)):
        facts["inq"]["tensors"]["0.weight"] |= {"shape": shape, "num_frozen": num_frozen}
        files = sealed({**written()[NEWER], FACTS: json.dumps(facts).encode()})
        found = find(write(tmp_path / "run", {NEWER: files}))
        assert found is not None
        assert "0.weight" in found.damaged[0].reason
