"""Store of one run's checkpoints: a local or shared folder, or an object store.

On a file system a checkpoint is written under a temporary name and renamed: it is complete or missing. An object store
has no rename: there the manifest is written last, and deleted first. Leftovers of a killed writer are deleted by
:meth:`CheckpointStore.clean`. Only one process at a time writes to a store: no two runs share a folder.
"""

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs

from inq_ray.files.folder import PARTIAL, delete_folder, leftovers, rename_folder, write_folder
from inq_ray.storage.address import Location
from inq_ray.storage.retry import MissingError, retry
from inq_ray.training.checkpoint.files import (
    MANIFEST,
    DamagedError,
    encode,
    is_checkpoint,
    open_checkpoint,
    read_manifest,
)
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry, kept
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.stored import whole


class Damaged(NamedTuple):
    """A checkpoint that cannot be used, and why."""

    position: TrainingPosition
    reason: str


class Found(NamedTuple):
    """The newest valid checkpoint.

    Attributes:
        entry: Its entry; None if there is none.
        snapshot: Its snapshot, whose tensors are read when they are used; None if there is none.
        damaged: Newer damaged ones, the newest first.
    """

    entry: Entry | None
    snapshot: Snapshot | None
    damaged: tuple[Damaged, ...]


class CheckpointStore:
    """Checkpoints in a folder.

    Args:
        location: The folder, which need not exist.
        keep_last: Number of newest checkpoints to keep; see :func:`inq_ray.training.checkpoint.retention.kept`.
        check_writer: Called before each change; an OSError that it raises counts as one of the storage.
    """

    def __init__(
        self, location: Location, *, keep_last: int = 2, check_writer: Callable[[], None] = lambda: None
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"at least 1 checkpoint must be kept, got {keep_last}")
        self.location = location
        self.keep_last = keep_last
        self._check_writer = check_writer

    def positions(self) -> list[TrainingPosition]:
        """Return the positions of all checkpoints, valid or damaged, the newest first.

        Raises:
            ValueError: The storage fails.
        """
        found = map(TrainingPosition.parse, self._names())
        return sorted((position for position in found if position is not None), reverse=True)

    def entries(self) -> list[Entry]:
        """Return the checkpoints with a valid manifest, the newest first; their other files are not read.

        Raises:
            ValueError: The storage fails.
        """
        found = []
        for position in self.positions():
            try:
                found.append(_of_name(read_manifest(self.location.join(position.name)).entry, position))
            except DamagedError:
                continue  # reported by its digests or its name when it is loaded
        return found

    def open(self, position: TrainingPosition) -> tuple[Entry, Snapshot]:
        """Check a checkpoint; its tensors are read when they are used.

        Raises:
            DamagedError: It differs from what was written.
            ValueError: The storage fails.
        """
        entry, snapshot = open_checkpoint(self.location.join(position.name))
        return _of_name(entry, position), snapshot

    def load(self, position: TrainingPosition) -> tuple[Entry, Snapshot]:
        """Read a checkpoint into memory, expanded.

        Raises:
            DamagedError: It differs from what was written.
            ValueError: The storage fails.
        """
        entry, snapshot = self.open(position)
        return entry, Snapshot(whole(snapshot), snapshot.facts)

    def newest_good(self) -> Found:
        """Open the newest checkpoint with correct digests.

        Raises:
            ValueError: The storage fails; this does not count as damage, so no older one is used instead.
        """
        damaged: list[Damaged] = []
        for position in self.positions():
            try:
                return Found(*self.open(position), tuple(damaged))
            except DamagedError as error:
                damaged.append(Damaged(position, str(error)))
        return Found(None, None, tuple(damaged))

    def save(self, snapshot: Snapshot, *, is_stage_end: bool = False, top1: float | None = None) -> Entry:
        """Write a checkpoint, replacing one at the same position.

        Args:
            snapshot: Expanded snapshot, on the CPU, no two tensors in the same memory.
            is_stage_end: Whether its stage ends there, so that it is kept.
            top1: Accuracy in percent measured there.

        Raises:
            ValueError: The storage fails, after retries if they may help. Other checkpoints are unchanged.
        """
        entry, files = encode(snapshot, is_stage_end=is_stage_end, top1=top1)
        location = self.location.join(entry.position.name)
        self._check("write")
        if location.is_local:
            retry(lambda: write_folder(Path(location.path), files), location.name, verb="write")
        else:
            _write_there(location, files)
        return entry

    def prune(self, newest: TrainingPosition) -> list[TrainingPosition]:
        """Delete checkpoints that need not be kept, damaged ones too, and return their positions.

        Args:
            newest: The one just written, which is therefore valid and always kept.

        Raises:
            ValueError: The storage fails.
        """
        stay = kept(self.entries(), self.keep_last) | {newest}
        return self._delete(position for position in self.positions() if position not in stay)

    def discard_after(self, position: TrainingPosition) -> list[TrainingPosition]:
        """Delete checkpoints later than the position from which a run continues: they are damaged, or discarded.

        Raises:
            ValueError: The storage fails.
        """
        return self._delete(each for each in self.positions() if each > position)

    def clean(self) -> list[str]:
        """Delete leftovers of killed writers, but give a complete checkpoint its name; return all their names.

        Only the one process that writes may call it, before it writes.

        Raises:
            ValueError: The storage fails.
        """
        self._check("read")
        if self.location.is_local:
            left = [path.name for path in retry(lambda: leftovers(Path(self.location.path)), self.location.name)]
            for name in left:
                self._recover_or_delete(name)
            return left
        names = [name for name in self._names() if TrainingPosition.parse(name) is not None]
        left = [name for name in names if not is_checkpoint(self.location.join(name))]
        for name in left:
            _delete_there(self.location.join(name))
        return left

    def _check(self, verb: str) -> None:
        """Refuse to change anything for a writer whose time is over, and wait for a storage that is away."""
        retry(self._check_writer, self.location.name, verb=verb)

    def _names(self) -> list[str]:
        try:
            infos = self.location.list()
        except MissingError:
            return []
        return [self.location.relative(info) for info in infos if info.type == pafs.FileType.Directory]

    def _delete(self, positions: Iterable[TrainingPosition]) -> list[TrainingPosition]:
        """Delete checkpoints, the oldest first."""
        ordered = sorted(positions)
        self._check("delete")
        for position in ordered:
            location = self.location.join(position.name)
            if location.is_local:
                retry(functools.partial(delete_folder, Path(location.path)), location.name, verb="delete")
            else:
                _delete_there(location)
        return ordered

    def _recover_or_delete(self, leftover: str) -> None:
        """Rename a leftover on a file system if it is a complete checkpoint whose name is free."""
        location = self.location.join(leftover)
        path, name = Path(location.path), None
        if leftover.endswith(PARTIAL):
            with contextlib.suppress(DamagedError):
                name = open_checkpoint(location)[0].position.name
        if name is None or path.with_name(name).exists():
            retry(lambda: shutil.rmtree(path), location.name, verb="delete")
        else:
            retry(lambda: rename_folder(path, path.with_name(name)), location.name, verb="rename")


def _of_name(entry: Entry, position: TrainingPosition) -> Entry:
    """Return a checkpoint whose name is correct.

    Raises:
        DamagedError: It was renamed.
    """
    if entry.position != position:
        raise DamagedError(f"it was taken at {entry.position.name}, but is named {position.name}")
    return entry


def _write_there(location: Location, files: Mapping[str, bytes]) -> None:
    """Write a checkpoint to an object store."""
    if is_checkpoint(location):
        _delete_there(location)
    for name, data in files.items():
        file = location.join(name)
        retry(_writing(file, data), file.name, verb="write")


def _delete_there(location: Location) -> None:
    """Delete a checkpoint from an object store."""

    def delete() -> None:
        if is_checkpoint(location):
            location.fs.delete_file(location.join(MANIFEST).path)
        location.fs.delete_dir(location.path)

    retry(delete, location.name, verb="delete")


def _writing(location: Location, data: bytes) -> Callable[[], None]:
    def write() -> None:
        with location.fs.open_output_stream(location.path) as stream:
            stream.write(data)

    return write
