"""Folder of a sweep: the only place that knows the names of its files."""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inq_ray.files.name_lock import name_held
from inq_ray.files.shown import quoted, shown
from inq_ray.files.whole import write_text
from inq_ray.sweep.trials.trial import Trial, describe
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import check_writable

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SweepFolder:
    """Files of one sweep; each trial's run has its own folder next to them, by its name.

    Attributes:
        path: Absolute path.
    """

    path: Path

    @classmethod
    def planned(cls, config: RunConfig) -> "SweepFolder":
        """Return the folder that a sweep will have; creates nothing.

        Args:
            config: Configuration common to all trials; its output names storage and sweep.
        """
        assert config.output.name is not None
        return cls(Path(config.output.storage_path).expanduser().absolute() / config.output.name)

    @property
    def state(self) -> Path:
        """State of the sweep, from which it continues."""
        return self.path / "sweep.json"

    @property
    def table(self) -> Path:
        """Table with a line for each trial."""
        return self.path / "sweep.csv"

    @property
    def incidents(self) -> Path:
        """Incidents in the runs of trials; the same lines as in the trials' own folders."""
        return self.path / "events.jsonl"

    @property
    def recipe(self) -> Path:
        """Configuration of the best trial; ``--config`` runs it."""
        return self.path / "best.json"

    @property
    def picture(self) -> Path:
        """Picture: accuracy over portion, and parallel coordinates."""
        return self.path / "sweep.png"

    @property
    def stages(self) -> Path:
        """Stage ends that trials share."""
        return self.path / "stages"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files."""
        return self.path / ".tune"

    @property
    def lock(self) -> Path:
        """Lock of the running sweep."""
        return self.path / ".lock"

    def stop_of(self, name: str) -> Path:
        """File that exists while a trial is to stop."""
        return self.path / f".{name}.stop"

    def check_usable(self) -> None:
        """Refuse a name used by anything but a sweep, and a folder that is not writable; leaves nothing.

        Raises:
            ValueError: Names flag and path.
        """
        # A sweep that stopped before it wrote anything left only hidden files.
        try:
            is_begun = self.path.is_dir() and all(path.name.startswith(".") for path in self.path.iterdir())
            is_sweep = is_begun or self.state.is_file()
        except OSError as error:
            raise ValueError(
                f"--storage-path {shown(self.path.parent)}: cannot be accessed ({error.strerror})"
            ) from None
        if os.path.lexists(self.path) and not is_sweep:
            raise ValueError(
                f"--name {self.path.name}: {shown(self.path)} exists and is not a sweep: use another --name"
            )
        check_writable("--storage-path", self.path.parent)

    def held(self, tell: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Create the folder, and keep other sweeps out of it during a block.

        Args:
            tell: Called with a line if the storage has no locks.

        Raises:
            ValueError: Another sweep of this name is running, or the folder cannot be created.
        """
        return name_held(self.path, self.lock, "sweep", tell)

    def clear(self) -> None:
        """Delete an earlier sweep with all its trials, keeping the lock."""
        for path in self.path.iterdir():
            if path == self.lock:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def read(self) -> dict[str, Any] | None:
        """Return the contents of the state file; None if there is none.

        Raises:
            ValueError: It is damaged, or has another format.
        """
        if not self.state.is_file():
            return None
        try:
            state: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
            version = state["format_version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{shown(self.state)} is damaged: delete the sweep with --overwrite") from None
        if version != FORMAT_VERSION:
            raise ValueError(f"{shown(self.state)} has format {quoted(version)}, this program reads {FORMAT_VERSION}")
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Write the state file, whole or not at all.

        Raises:
            OSError: It cannot be written; the file stays as it was.
        """
        write_text(self.state, json.dumps({"format_version": FORMAT_VERSION, **state}, indent=1) + "\n")

    def write_table(self, trials: Sequence[Trial]) -> None:
        """Write the table of trials.

        Raises:
            OSError: It cannot be written.
        """
        names = list(dict.fromkeys(name for trial in trials for name in describe(trial.point)))
        own = ("trial", "status", "top1", "weight_bits", "stages_trained", "stages_reused", "seconds", "seconds_saved")
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys([*own, *names, "curve", "digest", "reason"]), lineterminator="\n")
        writer.writeheader()
        for trial in trials:
            row = {
                **describe(trial.point),
                "trial": trial.name,
                "status": trial.status,
                "top1": trial.top1,
                "weight_bits": trial.bits,
                "stages_trained": trial.count("trained"),
                "stages_reused": trial.count("reused"),
                "seconds": round(trial.seconds("trained"), 3),
                "seconds_saved": round(trial.seconds("reused"), 3),
                "curve": " ".join(f"{portion:g}:{top1:g}" for portion, top1 in trial.curve),
                "digest": trial.digest,
                "reason": trial.reason,
            }
            writer.writerow(row)
        write_text(self.table, text.getvalue())
