"""Runner of a trial, in any process: it starts from stages that others trained, and stores ends for others.

The run itself is not involved: it continues from a checkpoint, and takes checkpoints at its stages' ends.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inq_ray.files.shown import shown
from inq_ray.storage.retry import retry
from inq_ray.sweep.reuse.stages import REUSED, StageStore, discard_checkpoints, end_of, seed_from_stage
from inq_ray.sweep.trials.report import Begun, Done, End, Ended, Report, Stored, ends_of
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.files import DamagedError
from inq_ray.training.checkpoint.resume import check_own
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Event, Row
from inq_ray.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Specification of a trial.

    Attributes:
        config: Configuration of its run.
        keys: Keys of its stage ends, by stage.
        starts: Stored ends that it could start from, the deepest first.
        wanted: Keys of the ends to store for others.
        stages: Folder of the stored ends.
        fingerprint: Fingerprint of the data.
    """

    config: RunConfig
    keys: Mapping[int, str]
    starts: Mapping[int, str]
    wanted: frozenset[str]
    stages: str
    fingerprint: str

    def to_json(self) -> str:
        """Return the spec as text, for another process."""
        values = {**vars(self), "config": self.config.to_json(), "wanted": sorted(self.wanted)}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "TrialSpec":
        """Parse the text of :meth:`to_json`."""
        values = json.loads(text)
        return cls(
            config=RunConfig.from_json(values["config"]),
            keys={int(stage): key for stage, key in values["keys"].items()},
            starts={int(stage): key for stage, key in values["starts"].items()},
            wanted=frozenset(values["wanted"]),
            stages=values["stages"],
            fingerprint=values["fingerprint"],
        )


class TrialRunner:
    """One attempt to run a trial; also the reporter of its run.

    Args:
        spec: Specification of the trial.
        tell: Called with reports for the sweep; its exceptions are passed on by every method, to end the trial.
    """

    def __init__(self, spec: TrialSpec, tell: Callable[[Report], None]) -> None:
        self._config = spec.config
        self._spec = spec
        self._tell = tell
        self._store = StageStore(Path(spec.stages))
        self._rows: list[Row] = []
        self._told: set[int] = set()
        self._pending: dict[int, str] = {}

    def begin(self) -> dict[str, Any] | None:
        """Start the run from a stage that others have trained, and report what it has passed.

        Returns:
            The run's summary if it is finished.

        Raises:
            ValueError: The storage fails.
        """
        retry(self._store.check_there, shown(self._store.folder.parent), verb="write to")
        folder = RunFolder.planned(self._config)
        damaged: list[str] = []
        found = self._newest(folder)
        if found is None and not folder.is_finished:
            shutil.rmtree(folder.path, ignore_errors=True)  # it stopped before its first checkpoint
            damaged = self._seed()
            found = self._newest(folder)
        self._rows = [] if found is None else list(found.facts.rows)
        ends = self._ends(folder)
        self._tell(Begun(ends=tuple(ends), damaged=tuple(damaged)))
        for end in ends:
            self._note(end)
        self._store_pending()
        return folder.read_summary()

    def report(self, event: Event) -> None:
        """Handle an event of the run."""
        if isinstance(event, Row):
            self._rows.append(event)
            for end in ends_of(self._config, self._rows, "trained"):
                if end.stage not in self._told:
                    self._note(end)
                    self._tell(Ended(end))
        self._store_pending()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Report the result, and delete the run's checkpoints."""
        self._store_pending()
        discard_checkpoints(self._config)
        self._tell(Done(top1=summary["top1"], digest=summary["digest"]))

    def _newest(self, folder: RunFolder) -> Snapshot | None:
        if not folder.config.is_file():
            return None
        store = store_of(self._config)
        snapshot = store.newest_good().snapshot
        if snapshot is not None:
            check_own(snapshot, self._config, self._spec.fingerprint, store.location.name)
        return snapshot

    def _seed(self) -> list[str]:
        """Start from the deepest valid end; delete damaged ones, and return their keys."""
        damaged = []
        for key in self._spec.starts.values():
            try:
                end = self._store.get(key)
            except DamagedError:
                self._store.delete(key)
                damaged.append(key)
                continue
            seed_from_stage(end, self._config)
            break
        return damaged

    def _ends(self, folder: RunFolder) -> list[End]:
        path = folder.path / REUSED
        last = json.loads(path.read_text(encoding="utf-8"))["stage"] if path.is_file() else -1
        reused, trained = (ends_of(self._config, self._rows, how) for how in ("reused", "trained"))
        return [end for end in reused if end.stage <= last] + [end for end in trained if end.stage > last]

    def _note(self, end: End) -> None:
        """Record an end, and mark it for storing if another trial needs it."""
        self._told.add(end.stage)
        key = self._spec.keys.get(end.stage)
        if key is None or key not in self._spec.wanted:
            return
        try:
            is_stored = key in self._store
        except ValueError as error:  # the storage fails
            self._tell(Stored(key, str(error)))
            return
        if is_stored:
            self._tell(Stored(key))
        else:
            self._pending[end.stage] = key

    def _store_pending(self) -> None:
        """Store the ends that have been written by now: the run writes them in a thread."""
        for stage, key in list(self._pending.items()):
            try:
                end = end_of(self._config, stage)
                if end is None:
                    continue
                self._store.put(key, end)
            except ValueError as error:  # a full disk, or a damaged checkpoint: others train the stage themselves
                self._tell(Stored(key, str(error)))
            else:
                self._tell(Stored(key))
            del self._pending[stage]
