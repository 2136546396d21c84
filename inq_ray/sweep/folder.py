"""The folder of a sweep: the one place that knows the names of its files."""

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
    """Files of one sweep; each trial's run has a folder of its own beside them, by its name.

    Attributes:
        path: absolute.
    """

    path: Path

    @classmethod
    def planned(cls, config: RunConfig) -> "SweepFolder":
        """The folder that a sweep will have; nothing is made.

        Args:
            config: what trials have in common; its output names storage and sweep.
        """
        assert config.output.name is not None
        return cls(Path(config.output.storage_path).expanduser().absolute() / config.output.name)

    @property
    def state(self) -> Path:
        """All that is known of the sweep; with it the sweep goes on."""
        return self.path / "sweep.json"

    @property
    def table(self) -> Path:
        """A line for each trial."""
        return self.path / "sweep.csv"

    @property
    def incidents(self) -> Path:
        """What went wrong in the runs of trials; the same lines as in the trials' own folders."""
        return self.path / "events.jsonl"

    @property
    def recipe(self) -> Path:
        """The configuration of the best trial; ``--config`` starts it."""
        return self.path / "best.json"

    @property
    def picture(self) -> Path:
        """Accuracy over portion, and parallel coordinates."""
        return self.path / "sweep.png"

    @property
    def stages(self) -> Path:
        """Ends of stages that trials share."""
        return self.path / "stages"

    @property
    def tune(self) -> Path:
        """What Ray Tune keeps for itself."""
        return self.path / ".tune"

    @property
    def lock(self) -> Path:
        """Held while the sweep runs."""
        return self.path / ".lock"

    def stop_of(self, name: str) -> Path:
        """There while a trial is to stop."""
        return self.path / f".{name}.stop"

    def check_usable(self) -> None:
        """Refuses a name that something else has than a sweep, and a place that cannot be written to; leaves nothing.

        Raises:
            ValueError: names flag and path.
        """
        # Hidden files alone are those of a sweep that was ended before it wrote anything.
        try:
            is_begun = self.path.is_dir() and all(path.name.startswith(".") for path in self.path.iterdir())
            is_sweep = is_begun or self.state.is_file()
        except OSError as error:
            raise ValueError(
                f"--storage-path {shown(self.path.parent)}: cannot be looked at ({error.strerror})"
            ) from None
        if os.path.lexists(self.path) and not is_sweep:
            raise ValueError(f"--name {self.path.name}: {shown(self.path)} exists and is no sweep: take another --name")
        check_writable("--storage-path", self.path.parent)

    def held(self, tell: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Makes the folder, and keeps every other sweep out of it during a block.

        Args:
            tell: takes a line, where the storage knows no locks.

        Raises:
            ValueError: another sweep of this name is running, or the folder cannot be made.
        """
        return name_held(self.path, self.lock, "sweep", tell)

    def clear(self) -> None:
        """Deletes an earlier sweep with all its trials, and keeps the lock."""
        for path in self.path.iterdir():
            if path == self.lock:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def read(self) -> dict[str, Any] | None:
        """What the state file says; None where there is none.

        Raises:
            ValueError: it is not as it was written.
        """
        if not self.state.is_file():
            return None
        try:
            state: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
            version = state["format_version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{shown(self.state)} is broken: delete the sweep by --overwrite") from None
        if version != FORMAT_VERSION:
            raise ValueError(f"{shown(self.state)} has format {quoted(version)}, this program reads {FORMAT_VERSION}")
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Writes the state file, whole or not at all.

        Raises:
            OSError: it cannot be written; the file stays as it was.
        """
        write_text(self.state, json.dumps({"format_version": FORMAT_VERSION, **state}, indent=1) + "\n")

    def write_table(self, trials: Sequence[Trial]) -> None:
        """Writes the table of trials.

        Raises:
            OSError: it cannot be written.
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
