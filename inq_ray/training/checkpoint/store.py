"""Where the checkpoints of one run lie: a folder on this machine or one that all share, or an object store.

On a file system a checkpoint is written beside, reaches the disk, and is renamed: it is whole or not there. An object
store has no rename: there the manifest is written last, and deleted first. Hidden names ending in .partial are being
written, those ending in .deleted are being deleted; what a killed writer leaves, :meth:`CheckpointStore.clean` settles.
One process at a time writes to a store: no two runs share a folder.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs

from inq_ray.files.whole import sync, unique
from inq_ray.storage.address import Location
from inq_ray.storage.retry import MissingError, retry
from inq_ray.training.checkpoint.compact import expand
from inq_ray.training.checkpoint.files import (
    LARGEST_JSON_BYTES,
    MANIFEST,
    DamagedError,
    Manifest,
    encode,
    not_meant,
    read_manifest,
    read_snapshot,
)
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import Entry, kept
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.validate import check_facts, check_tensors

_PARTIAL = ".partial"
_DELETED = ".deleted"


class Damaged(NamedTuple):
    """A checkpoint that cannot be used, and why."""

    position: TrainingPosition
    reason: str


class Found(NamedTuple):
    """The newest whole checkpoint.

    Attributes:
        entry: in short; None where there is none.
        snapshot: expanded; None where there is none.
        damaged: newer ones, the newest first.
    """

    entry: Entry | None
    snapshot: Snapshot | None
    damaged: tuple[Damaged, ...]


class CheckpointStore:
    """Checkpoints in a folder.

    Args:
        location: the folder, there or not.
        keep_last: how many of the newest stay; see :func:`inq_ray.training.checkpoint.retention.kept`.
    """

    def __init__(self, location: Location, *, keep_last: int = 2) -> None:
        if keep_last < 1:
            raise ValueError(f"at least 1 checkpoint has to stay, got {keep_last}")
        self.location = location
        self.keep_last = keep_last

    def positions(self) -> list[TrainingPosition]:
        """Places of all checkpoints, whole ones or not, the newest first.

        Raises:
            ValueError: the storage fails.
        """
        found = map(TrainingPosition.parse, self._names())
        return sorted((position for position in found if position is not None), reverse=True)

    def entries(self) -> list[Entry]:
        """Checkpoints with a whole manifest, the newest first; their other files are not looked at.

        Raises:
            ValueError: the storage fails.
        """
        found = []
        for position in self.positions():
            try:
                found.append(self._manifest(position).entry)
            except DamagedError:
                continue  # found by its digests or its name, when it is to be loaded
        return found

    def load(self, position: TrainingPosition) -> tuple[Entry, Snapshot]:
        """Reads a checkpoint, all of it; the snapshot is expanded.

        Raises:
            DamagedError: it is not what was written.
            ValueError: the storage fails.
        """
        manifest = self._manifest(position)
        return manifest.entry, _expanded(_read(self.location.join(position.name), manifest), manifest.entry)

    def newest_good(self) -> Found:
        """Reads the newest checkpoint whose digests hold.

        Raises:
            ValueError: the storage fails. That damages nothing: an older one is not taken for it.
        """
        damaged: list[Damaged] = []
        for position in self.positions():
            try:
                entry, snapshot = self.load(position)
            except DamagedError as error:
                damaged.append(Damaged(position, str(error)))
                continue
            return Found(entry, snapshot, tuple(damaged))
        return Found(None, None, tuple(damaged))

    def save(self, snapshot: Snapshot, *, is_stage_end: bool = False, top1: float | None = None) -> Entry:
        """Writes a checkpoint; one at the same place is replaced.

        Args:
            snapshot: compact; see :func:`inq_ray.training.checkpoint.files.encode`.
            is_stage_end: whether its stage ends there: it stays then.
            top1: accuracy in percent that was measured there.

        Raises:
            ValueError: the storage fails, after several tries where that may help. Other checkpoints stand as before.
        """
        files = encode(snapshot, is_stage_end=is_stage_end, top1=top1)
        write = self._write_here if self.location.is_local else self._write_there
        write(snapshot.position.name, files)
        return read_manifest(files[MANIFEST]).entry

    def prune(self, newest: TrainingPosition) -> list[TrainingPosition]:
        """Deletes the checkpoints that need not stay, damaged ones too, and returns their positions.

        Args:
            newest: the one that was just written, and so is whole: it stays whatever else there is.

        Raises:
            ValueError: the storage fails.
        """
        stay = kept(self.entries(), self.keep_last) | {newest}
        return self._delete(position for position in self.positions() if position not in stay)

    def discard_after(self, position: TrainingPosition) -> list[TrainingPosition]:
        """Deletes what is later than the position from which a run goes on: damaged, or of a course that was given up.

        Raises:
            ValueError: the storage fails.
        """
        return self._delete(each for each in self.positions() if each > position)

    def clean(self) -> list[str]:
        """Settles what killed writers have left: a whole one gets its name, the rest is deleted; returns its names.

        Only the one process that writes may call it, before it writes.

        Raises:
            ValueError: the storage fails.
        """
        names = self._names()
        if self.location.is_local:
            leftovers = [name for name in names if name.startswith(".") and name.endswith((_PARTIAL, _DELETED))]
            for name in leftovers:
                self._settle(name)
            return leftovers
        leftovers = [
            name for name in names if TrainingPosition.parse(name) is not None and not self._has_manifest(name)
        ]
        for name in leftovers:
            self._delete_there(name)
        return leftovers

    def _names(self) -> list[str]:
        try:
            infos = self.location.list()
        except MissingError:
            return []
        return [self.location.relative(info) for info in infos if info.type == pafs.FileType.Directory]

    def _manifest(self, position: TrainingPosition) -> Manifest:
        manifest = _read_manifest(self.location.join(position.name))
        if manifest.entry.position != position:
            raise DamagedError(f"it was taken at {manifest.entry.position.name}, and is named {position.name}")
        return manifest

    def _delete(self, positions: Iterable[TrainingPosition]) -> list[TrainingPosition]:
        """Deletes checkpoints, the oldest first."""
        ordered = sorted(positions)
        for position in ordered:
            if self.location.is_local:
                self._delete_here(position.name)
            else:
                self._delete_there(position.name)
        return ordered

    # On a file system with an atomic rename.

    def _write_here(self, name: str, files: Mapping[str, bytes]) -> None:
        folder = Path(self.location.path)
        partial = folder / f".{name}.{unique()}{_PARTIAL}"

        def write() -> None:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                for file, data in files.items():
                    _write_file(partial / file, data)
                sync(partial)
                self._rename(partial, folder / name)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
                raise

        retry(write, self.location.join(name).name, verb="write")

    def _rename(self, partial: Path, target: Path) -> None:
        """Gives a whole checkpoint its name. Killed in between, it keeps the name of a partial one, and is found."""
        aside = target.with_name(f".{target.name}.{unique()}{_DELETED}")
        is_there = target.exists()
        if is_there:
            target.rename(aside)
        try:
            partial.rename(target)
        except OSError:
            if is_there:
                aside.rename(target)
            raise
        sync(target.parent)
        if is_there:
            shutil.rmtree(aside, ignore_errors=True)

    def _delete_here(self, name: str) -> None:
        folder = Path(self.location.path)
        aside = folder / f".{name}.{unique()}{_DELETED}"

        def delete() -> None:
            if (folder / name).exists():
                (folder / name).rename(aside)  # at once: half a checkpoint never has a checkpoint's name
            if aside.exists():
                shutil.rmtree(aside)

        retry(delete, self.location.join(name).name, verb="delete")

    def _settle(self, name: str) -> None:
        folder = Path(self.location.path)
        target = self._target_of(name)
        if target is not None:
            retry(lambda: self._rename(folder / name, folder / target), self.location.join(name).name, verb="rename")
        else:
            retry(lambda: shutil.rmtree(folder / name), self.location.join(name).name, verb="delete")

    def _target_of(self, leftover: str) -> str | None:
        """The free name of a partial checkpoint that is whole after all; None of all else."""
        if not leftover.endswith(_PARTIAL):
            return None
        try:
            location = self.location.join(leftover)
            manifest = _read_manifest(location)
            _read(location, manifest)
        except DamagedError:
            return None
        name = manifest.entry.position.name
        return None if Path(self.location.path, name).exists() else name

    # On an object store.

    def _write_there(self, name: str, files: Mapping[str, bytes]) -> None:
        if self._has_manifest(name):
            self._delete_there(name)
        for file, data in files.items():
            location = self.location.join(name).join(file)
            retry(_writing(location, data), location.name, verb="write")

    def _delete_there(self, name: str) -> None:
        location = self.location.join(name)

        def delete() -> None:
            if self._has_manifest(name):
                location.fs.delete_file(location.join(MANIFEST).path)
            location.fs.delete_dir(location.path)

        retry(delete, location.name, verb="delete")

    def _has_manifest(self, name: str) -> bool:
        return self.location.join(name).join(MANIFEST).exists()


def read_checkpoint(location: Location) -> tuple[Entry, Snapshot]:
    """Reads a checkpoint wherever it lies and whatever it is called.

    Raises:
        DamagedError: it is not what was written.
        ValueError: the storage fails.
    """
    manifest = _read_manifest(location)
    return manifest.entry, _expanded(_read(location, manifest), manifest.entry)


def is_checkpoint(location: Location) -> bool:
    """Whether there is a manifest, and so a checkpoint, damaged or not.

    Raises:
        ValueError: the storage fails.
    """
    return location.join(MANIFEST).exists()


def _read_manifest(location: Location) -> Manifest:
    return read_manifest(_read_file(location, MANIFEST))


def _read(location: Location, manifest: Manifest) -> Snapshot:
    return read_snapshot(manifest, lambda name, size: _read_file(location, name, size))


def _expanded(compact: Snapshot, entry: Entry) -> Snapshot:
    """The snapshot, which is believed from here on.

    Raises:
        DamagedError: it is none that a run can have taken, or not the one of the manifest.
    """
    try:
        check_facts(compact.facts)
        if compact.position != entry.position:
            raise ValueError(f"its facts are of {compact.position.name}, its manifest of {entry.position.name}")
        snapshot = expand(compact)
        check_tensors(snapshot)
    except (RuntimeError, ValueError) as error:  # RuntimeError: torch, of shapes that do not go together
        raise not_meant(error) from error
    return snapshot


def _read_file(location: Location, name: str, size: int | None = None) -> bytes:
    """A file's contents; what differs in size is not even read."""
    file = location.join(name)
    try:
        info = file.info()
        if info.type != pafs.FileType.File:
            raise DamagedError(f"{name} is no file")
        if size is not None and info.size != size:
            raise DamagedError(f"{name} has {info.size} bytes of {size}")
        if size is None and info.size > LARGEST_JSON_BYTES:
            raise DamagedError(f"{name} has {info.size} bytes, more than any that was written")
        return file.read(info.size)
    except MissingError:
        raise DamagedError(f"{name} is missing") from None


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _writing(location: Location, data: bytes) -> Callable[[], None]:
    def write() -> None:
        with location.fs.open_output_stream(location.path) as stream:
            stream.write(data)

    return write
