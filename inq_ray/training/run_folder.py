"""Folder of a run: the only place that knows the names of its files."""

import csv
import dataclasses
import io
import json
import math
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inq_ray.files.folder import delete_folder, leftovers, try_writing, write_folder
from inq_ray.files.shown import shown
from inq_ray.files.whole import append_text, remove_partial, write_text
from inq_ray.training.attempt import Attempt
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row

# Longest network name within the name of its run.
_LONGEST_NETWORK = 80


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Files of one run.

    Attributes:
        path: Absolute path.
        attempt: Attempt of this writer; None = there are no other writers, and the folder stays where it is.
    """

    path: Path
    attempt: Attempt | None = None

    def check_writer(self) -> None:
        """Refuse to write for an old attempt, or without the storage; called before each change.

        Raises:
            StaleAttemptError: Another attempt of the run has begun.
            ConnectionError: The storage cannot be reached.
        """
        if self.attempt is not None:
            self.attempt.check()

    @property
    def config(self) -> Path:
        """The configuration; ``--config`` starts the same run again."""
        return self.path / "config.json"

    @property
    def metrics_jsonl(self) -> Path:
        """Metrics, a line for each :class:`Row`."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        """The metrics as a table."""
        return self.path / "metrics.csv"

    @property
    def events(self) -> Path:
        """Incidents, a line for each :class:`inq_ray.training.report.incident.Incident`."""
        return self.path / "events.jsonl"

    @property
    def summary(self) -> Path:
        """The summary; exists only when the run is finished and verified."""
        return self.path / "summary.json"

    def read_summary(self) -> dict[str, Any] | None:
        """Return the summary if it is valid, else None; the run's last step rewrites a damaged one."""
        try:
            found = json.loads(self.summary.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def is_finished(self) -> bool:
        """Return whether there is a valid summary."""
        return self.read_summary() is not None

    @property
    def result(self) -> Path:
        """Folder of the result's files, see :mod:`inq_ray.export.formats`."""
        return self.path

    @property
    def lock(self) -> Path:
        """Lock of a running run; outside its folder, which --overwrite deletes."""
        return self.path.with_name(f".{self.path.name}.lock")

    @property
    def ray(self) -> Path:
        """Ray Train's own files."""
        return self.path / ".ray"

    @classmethod
    def create(cls, config: RunConfig) -> "RunFolder":
        """Create the folder of a new run, with its configuration.

        Raises:
            ValueError: A run of that name exists, or the folder cannot be created.
        """
        folder = cls.planned(config)
        folder.check_usable()
        folder.check_free(config.output.overwrite)
        # --overwrite is not saved: starting from the file alone must never delete a run.
        saved = config.replace(output={"overwrite": False})
        try:
            for left in leftovers(folder.path.parent, folder.path.name):  # of a killed start
                shutil.rmtree(left)
            if config.output.overwrite and folder.config.is_file():
                delete_folder(folder.path)
            write_folder(folder.path, {folder.config.name: f"{saved.to_json()}\n".encode()})
        except OSError as error:
            raise ValueError(f"--storage-path {config.output.storage_path}: cannot write there ({error})") from None
        return folder

    @classmethod
    def planned(cls, config: RunConfig, attempt: Attempt | None = None) -> "RunFolder":
        """Return the folder that a run will have; creates nothing."""
        assert config.output.name is not None
        return cls(Path(config.output.storage_path).expanduser().absolute() / config.output.name, attempt)

    def check_free(self, overwrite: bool) -> None:
        """Refuse a name that is in use; creates nothing.

        Raises:
            ValueError: The name is in use and not to be overwritten.
        """
        if os.path.lexists(self.path) and not overwrite:
            raise ValueError(self.taken())

    def check_usable(self) -> None:
        """Refuse a name used by anything but a run, and a folder that is not writable; creates nothing.

        Raises:
            ValueError: The existing folder is not a run, or the folder of runs is not a folder or not writable.
        """
        try:
            if os.path.lexists(self.path) and (not self.config.is_file() or self.path.is_symlink()):
                raise ValueError(self.taken())
        except OSError as error:
            raise ValueError(
                f"--storage-path {shown(self.path.parent)}: cannot be accessed ({error.strerror})"
            ) from None
        _check_folder("--storage-path", self.path.parent)

    def taken(self) -> str:
        """Return the message for an existing folder."""
        if not self.config.is_file() or self.path.is_symlink():
            return f"--name {self.path.name}: {self.path} exists and is not a run: use another --name"
        state = "a finished run" if self.is_finished else "an unfinished run"
        return f"--name {self.path.name}: {self.path} has {state}: use another --name, or delete it with --overwrite"

    def append(self, row: Row) -> None:
        """Append a line to both metrics files.

        Raises:
            OSError: One cannot be written; then both have to be rewritten.
        """
        self.check_writer()
        append_text(self.metrics_jsonl, _as_json([row]))
        append_text(self.metrics_csv, _as_csv([row], has_header=not self.metrics_csv.exists()))

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Rewrite both metrics files with these lines, when a run continues from a checkpoint.

        Raises:
            OSError: One cannot be written.
        """
        self.check_writer()
        if not rows:
            self.metrics_jsonl.unlink(missing_ok=True)
            self.metrics_csv.unlink(missing_ok=True)
            return
        write_text(self.metrics_jsonl, _as_json(rows))
        write_text(self.metrics_csv, _as_csv(rows, has_header=True))

    def clean(self) -> None:
        """Remove Ray Train's files, and temporary files of killed writers, including those on other machines.

        Only the holder of the lock may call it, while no worker is running.
        """
        shutil.rmtree(self.ray, ignore_errors=True)
        remove_partial(self.path)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, the last file of a run.

        Raises:
            ValueError: It cannot be written; the run can then be continued from its end.
        """
        try:
            self.check_writer()
            write_text(self.summary, json.dumps(summary, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise ValueError(
                f"cannot write {self.summary}: {error.strerror or error}; free some space, and run the same command "
                "again: the run continues from its end"
            ) from error


def check_writable(flag: str, folder: Path) -> None:
    """Refuse a folder that cannot be created or written to, by trying; leaves nothing.

    Raises:
        ValueError: It cannot; names the flag and the cause.
    """
    above = _check_folder(flag, folder)
    try:
        try_writing(folder)
    except OSError as error:
        raise ValueError(
            f"{flag} {shown(folder)}: {shown(above)} is not writable ({error.strerror}): use another"
        ) from None


def _check_folder(flag: str, folder: Path) -> Path:
    """Refuse a folder that evidently cannot be created or written to; return its first existing parent."""
    above = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not above.is_dir():
        raise ValueError(f"{flag} {shown(folder)}: {shown(above)} is not a folder: use another")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{flag} {shown(folder)}: {shown(above)} is not writable: use another")
    return above


def _as_json(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(_values(row), allow_nan=False) + "\n" for row in rows)


def _as_csv(rows: Sequence[Row], *, has_header: bool) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in dataclasses.fields(Row)])
    if has_header:
        writer.writeheader()
    writer.writerows(map(_values, rows))
    return table.getvalue()


def _values(row: Row) -> dict[str, Any]:
    return {name: _finite(value) for name, value in dataclasses.asdict(row).items()}


def _finite(value: float | None) -> float | None:
    """Return the value, or None if it is infinite or NaN, which JSON does not have."""
    return value if value is None or math.isfinite(value) else None


def default_name(arch: str, num_bits: int | None) -> str:
    """Return network, bits (or "float") and time; dashes replace characters unsuitable for file names."""
    kind = "float" if num_bits is None else f"{num_bits}bit"
    network = re.sub(r"[^A-Za-z0-9._-]+", "-", arch)[:_LONGEST_NETWORK]
    return f"{network}-{kind}-{time.strftime('%Y%m%d-%H%M%S')}".lstrip("._-")
