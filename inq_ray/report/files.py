"""Files of a run or sweep, here or in an object store; any of them may be missing, damaged or made by someone else."""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.fs as pafs

from inq_ray.export.packed.reader import SUFFIX, PackedFile, read
from inq_ray.files.shown import one_line, shown
from inq_ray.storage.address import Location
from inq_ray.storage.retry import MissingError

REPORT = "report.html"
# Larger files are not read: metrics of a million epochs are smaller.
_MOST_JSON_BYTES = 2**29
_Result = TypeVar("_Result")


@dataclass
class Files:
    """Files in one folder.

    Attributes:
        location: The folder.
        problems: What is missing or damaged, a line each, in the order in which it was found.
    """

    location: Location
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        """Add a problem, once."""
        if (line := one_line(problem)) not in self.problems:
            self.problems.append(line)

    def attempt(self, what: str, call: Callable[[], _Result]) -> _Result | None:
        """Return the result of a call; if it raises ValueError, note the problem and return None.

        Args:
            what: What is missing then.
            call: The call.
        """
        try:
            return call()
        except ValueError as error:
            self.note(f"{what}: {error}")
            return None

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file by name, without the report; empty if the folder cannot be listed."""
        listed = self.attempt("files", self.location.list) or []
        names = {self.location.relative(info): info for info in listed if info.type == pafs.FileType.File}
        return {name: info.size for name, info in names.items() if not name.startswith(".") and name != REPORT}

    def object_of(self, name: str, *, why_missing: str | None) -> dict[str, Any] | None:
        """Return a JSON object; None if the file is missing or damaged.

        Args:
            name: Name of the file.
            why_missing: What a missing file means, for the note; None = nothing is noted.
        """
        data = self._read(name, why_missing)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.note(f"{name} is damaged: it is not a JSON object")
            return None
        return found

    def lines_of(self, name: str, *, why_missing: str | None) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a file with one in each line; damaged lines are counted, and noted at the end."""
        num_damaged = 0
        for line in (self._read(name, why_missing) or b"").splitlines():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                yield found
            else:
                num_damaged += 1
        if num_damaged:
            self.note(f"{name} has {num_damaged} damaged line(s), which are left out")

    def packed(self, names: list[str]) -> PackedFile | None:
        """Return the contents of the packed file among these names, all checked; None if there is not exactly one."""
        found = [name for name in names if name.endswith(SUFFIX)]
        if len(found) != 1:
            self.note(f"there is {'more than one' if found else 'no'} packed file (*{SUFFIX})")
            return None
        file = self.location.join(found[0])
        return self.attempt("the packed file cannot be used", lambda: _packed(file))

    def _read(self, name: str, why_missing: str | None) -> bytes | None:
        file = self.location.join(name)
        try:
            if file.info().size > _MOST_JSON_BYTES:
                raise ValueError(f"it has more than {_MOST_JSON_BYTES:,} bytes")
            return file.read()
        except MissingError:
            if why_missing is not None:
                self.note(f"{name} is missing: {why_missing}")
        except ValueError as error:
            self.note(f"{shown(name)} cannot be read: {error}")
        return None


def _packed(file: Location) -> PackedFile:
    if file.is_local:
        return read(file.path)
    with tempfile.TemporaryDirectory(prefix="inq_ray-") as folder:
        copy = Path(folder) / f"result{SUFFIX}"
        copy.write_bytes(file.read())
        return read(copy)
