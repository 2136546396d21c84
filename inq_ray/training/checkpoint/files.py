"""Files of a checkpoint: tensors, facts, and a manifest with their digests.

    tensors.safetensors    all tensors, compact
    facts.json             everything else
    manifest.json          {"content": {...}, "sha256": of the content}, where the content is a :class:`Manifest`

The manifest is written last: a folder without one is not a checkpoint.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any

import pyarrow.fs as pafs
import safetensors.torch
import xxhash
from torch import Tensor

from inq_ray.distributed.wire import bytes_to_tensor
from inq_ray.files.shown import one_line
from inq_ray.storage.address import Location
from inq_ray.storage.retry import MissingError, StorageError
from inq_ray.training.checkpoint.compact import compact
from inq_ray.training.checkpoint.facts import Facts
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.stored import BLOCK_BYTES, stored_snapshot
from inq_ray.training.checkpoint.validate import check_tensors
from inq_ray.training.config.json_values import from_dict

TENSORS = "tensors.safetensors"
FACTS = "facts.json"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1
# Larger files are refused unread: metrics of a million epochs are smaller, and a network of 10^12 weights.
LARGEST_JSON_BYTES = 2**29
LARGEST_BYTES = 2**44


class DamagedError(ValueError):
    """A checkpoint differs from what was written; the message names the difference."""


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """Size and digest of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of a manifest.

    Attributes:
        place: Position at which the checkpoint was taken.
        is_stage_end: Whether its stage ends there.
        top1: Accuracy in percent measured there; None if none was.
        files: Digests of the other files, by name.
    """

    format_version: int
    place: TrainingPosition
    is_stage_end: bool
    top1: float | None
    files: dict[str, FileDigest]

    @property
    def entry(self) -> Entry:
        """The checkpoint's entry."""
        num_bytes = sum(file.bytes for file in self.files.values())
        return Entry(position=self.place, is_stage_end=self.is_stage_end, top1=self.top1, num_bytes=num_bytes)


def encode(snapshot: Snapshot, *, is_stage_end: bool, top1: float | None) -> tuple[Entry, dict[str, bytes]]:
    """Return a checkpoint's entry and files; the same snapshot gives the same bytes.

    Args:
        snapshot: Snapshot with tensors on the CPU, no two in the same memory.
        is_stage_end: Whether its stage ends there.
        top1: Accuracy in percent measured there; None if none was.

    Returns:
        The entry; contents by file name, in the order in which they are to be written.
    """
    packed = compact(snapshot)
    files = {TENSORS: safetensors.torch.save(dict(packed.tensors)), FACTS: _json(packed.facts.to_json())}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        place=snapshot.position,
        is_stage_end=is_stage_end,
        top1=top1,
        files={name: FileDigest(bytes=len(data), sha256=_sha256(data)) for name, data in files.items()},
    )
    content = dataclasses.asdict(manifest)
    return manifest.entry, {**files, MANIFEST: _json({"content": content, "sha256": _sha256(_json(content))})}


def is_checkpoint(folder: Location) -> bool:
    """Return whether there is a manifest, and so a checkpoint, valid or damaged.

    Raises:
        ValueError: The storage fails.
    """
    return folder.join(MANIFEST).exists()


class FileBlocks:
    """Blocks of a file whose SHA-256 is right; each is compared again when it is read.

    A file of a storage is downloaded once: its blocks are kept in an unnamed file on this machine (TMPDIR). If there is
    no space for it, they are downloaded again when they are read.

    Args:
        file: The file.
        expected: Its size and digest. All of it is read once, a block at a time.
        block_bytes: Size of a block.

    Raises:
        DamagedError: The file is another one.
        ValueError: The storage fails.
    """

    def __init__(self, file: Location, expected: FileDigest, block_bytes: int = BLOCK_BYTES) -> None:
        self.num_bytes, self.block_bytes = expected.bytes, block_bytes
        self._file = file
        self._copy: FileIO | None = None
        _check_file(file, expected.bytes)
        sha256, self._digests = hashlib.sha256(), []
        copy = None if file.is_local else _unnamed_file()
        if copy is not None:
            weakref.finalize(self, copy.close)
        for index in range(-(-self.num_bytes // block_bytes)):
            data = self._block(index)
            sha256.update(data)
            self._digests.append(xxhash.xxh3_64_intdigest(data))
            if copy is not None and not _appended(copy, data):
                copy.close()
                copy = None
        if sha256.hexdigest() != expected.sha256:
            raise DamagedError(f"{_name(file)} is damaged: its SHA-256 differs")
        self._copy = copy

    def read(self, index: int) -> Tensor:
        """Return a block: uint8 [n].

        Raises:
            DamagedError: It is no longer the one that was checked.
            ValueError: The storage fails.
        """
        data = self._block(index)
        if xxhash.xxh3_64_intdigest(data) != self._digests[index]:
            raise DamagedError(f"{self._file.name} has changed since it was checked")
        return bytes_to_tensor(data)

    def _block(self, index: int) -> bytes:
        start = index * self.block_bytes
        size = min(self.block_bytes, self.num_bytes - start)
        if self._copy is not None:
            return os.pread(self._copy.fileno(), size, start)
        try:
            data = self._file.read_at(start, size)
        except MissingError:
            raise DamagedError(f"{_name(self._file)} is missing") from None
        if len(data) < size:
            raise DamagedError(f"{_name(self._file)} has {start + len(data)} bytes of {self.num_bytes}")
        return data


def _unnamed_file() -> FileIO | None:
    """Return a new file without a name, which is gone when it is closed; None if this machine has no place for it."""
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError:
        return None


def _appended(file: FileIO, data: bytes) -> bool:
    """Return whether all data could be written at the end of a file: not if the disk is full."""
    try:
        return file.write(data) == len(data)
    except OSError:
        return False


def open_checkpoint(folder: Location) -> tuple[Entry, Snapshot]:
    """Check a checkpoint at any location and of any name, completely.

    Returns:
        The entry, and the snapshot, whose tensors (a StoredTensors) are read when they are used.

    Raises:
        DamagedError: It differs from what was written, or cannot have been written by a run.
        ValueError: The storage fails.
    """
    manifest = read_manifest(folder)
    blocks = FileBlocks(folder.join(TENSORS), manifest.files[TENSORS])
    facts_file = manifest.files[FACTS]
    content = _read_file(folder, FACTS, facts_file.bytes)
    if _sha256(content) != facts_file.sha256:
        raise DamagedError(f"{FACTS} is damaged: its SHA-256 differs")
    try:
        facts = Facts.from_json(_read_json(content))
        if facts.position != manifest.place:
            raise ValueError(f"its facts are for {facts.position.name}, its manifest for {manifest.place.name}")
        snapshot = stored_snapshot(blocks, facts)
        check_tensors(snapshot)
    except (DamagedError, StorageError):
        raise
    # RuntimeError, OverflowError: by torch, for impossible sizes in facts.
    except (KeyError, OverflowError, RuntimeError, ValueError) as error:
        raise DamagedError(f"its digests match, but it cannot be read ({one_line(str(error), 200)})") from error
    return manifest.entry, snapshot


def read_manifest(folder: Location) -> Manifest:
    """Read the manifest of a checkpoint.

    Raises:
        DamagedError: It differs from what was written, or is of another version of this program.
        ValueError: The storage fails.
    """
    try:
        manifest = _read_json(_read_file(folder, MANIFEST))
        content, sha256 = manifest["content"], manifest["sha256"]
        differs = not isinstance(content, dict) or _sha256(_json(content)) != sha256
    except DamagedError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamagedError(f"{MANIFEST} is damaged") from None
    if differs:
        raise DamagedError(f"{MANIFEST} is damaged: its SHA-256 differs")
    # The digest is right, so anything unexpected was written by another version.
    version = content.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise DamagedError(f"its format version is {version!r:.80}, but this program reads {FORMAT_VERSION}")
    try:
        return _manifest(content)
    except ValueError as error:
        raise DamagedError(f"{MANIFEST} is not valid: {one_line(str(error), 200)}") from error


def _manifest(content: dict[str, Any]) -> Manifest:
    position = TrainingPosition.from_json(content.get("place"))
    manifest = from_dict(Manifest, {**content, "place": position}, where="")
    assert isinstance(manifest, Manifest)
    if manifest.top1 is not None and not 0 <= manifest.top1 <= 100:
        raise ValueError(f"top1 is {manifest.top1}")
    if manifest.files.keys() != {TENSORS, FACTS}:
        raise ValueError(f"its files are {list(manifest.files)!r:.80}")
    for name, file in manifest.files.items():
        if not 0 <= file.bytes <= (LARGEST_JSON_BYTES if name == FACTS else LARGEST_BYTES):
            raise ValueError(f"{name} has {file.bytes!r:.80} bytes")
    return manifest


def _read_file(folder: Location, name: str, size: int | None = None) -> bytes:
    """Return a file's contents; files of a wrong size are not read."""
    file = folder.join(name)
    found = _check_file(file, size)
    if found > LARGEST_JSON_BYTES:
        raise DamagedError(f"{name} has {found} bytes, more than is possible")
    try:
        data = file.read(found)
    except MissingError:
        raise DamagedError(f"{name} is missing") from None
    if size is not None and len(data) != size:
        raise DamagedError(f"{name} has {len(data)} bytes of {size}")
    return data


def _check_file(file: Location, size: int | None) -> int:
    """Return the size of a file, which must be `size` unless that is None.

    Raises:
        DamagedError: It is missing, no file, or of another size.
        ValueError: The storage fails.
    """
    try:
        info = file.info()
    except MissingError:
        raise DamagedError(f"{_name(file)} is missing") from None
    if info.type != pafs.FileType.File:
        raise DamagedError(f"{_name(file)} is not a file")
    if size not in (None, info.size):
        raise DamagedError(f"{_name(file)} has {info.size} bytes of {size}")
    return int(info.size)


def _name(file: Location) -> str:
    return file.path.rpartition("/")[2]


def _read_json(data: bytes) -> Any:
    """Return a value from JSON, which has no NaN.

    Raises:
        ValueError: It is not JSON.
    """
    return json.loads(data, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
