"""What happens around the run of a trial, wherever it runs: it begins with what others have trained, and leaves ends.

The run itself knows nothing of it: it goes on from a checkpoint, and takes checkpoints at its stages' ends.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inq_ray.files.whole import write_text
from inq_ray.sweep.reuse.stages import StageStore, discard_checkpoints, end_of, seed_from_stage
from inq_ray.sweep.trials.report import Begun, Done, End, Ended, Report, Stored, ends_of
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.files import DamagedError
from inq_ray.training.checkpoint.resume import check_own
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Event, Row
from inq_ray.training.run_folder import RunFolder

# In the folder of a trial's run: with which stage's end it began.
_REUSED = "reused.json"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What a trial is to do.

    Attributes:
        config: of its run.
        keys: of its stages' ends by stage.
        starts: stored ends with which it could begin, the deepest first.
        wanted: keys of the ends that are to be stored for others.
        stages: folder of the stored ends.
        fingerprint: of the data.
    """

    config: RunConfig
    keys: Mapping[int, str]
    starts: Mapping[int, str]
    wanted: frozenset[str]
    stages: str
    fingerprint: str

    def to_json(self) -> str:
        """The spec as text, for another process."""
        values = {**vars(self), "config": self.config.to_json(), "wanted": sorted(self.wanted)}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "TrialSpec":
        """Reads what :meth:`to_json` gave."""
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
    """One try to run a trial; also the reporter of its run.

    Args:
        spec: what is to be done.
        tell: takes what the sweep has to know; what it raises comes out of every method, to end the trial.
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
        """Puts the run where others have come to already, and tells what lies behind it.

        Returns:
            The run's summary where it is finished.

        Raises:
            ValueError: the storage fails.
        """
        folder = RunFolder.planned(self._config)
        damaged: list[str] = []
        found = self._newest(folder)
        if found is None and not folder.is_finished:
            shutil.rmtree(folder.path, ignore_errors=True)  # it was ended before its first checkpoint
            damaged = self._seed(folder)
            found = self._newest(folder)
        self._rows = [] if found is None else list(found.facts.rows)
        ends = self._ends(folder)
        self._tell(Begun(ends=tuple(ends), damaged=tuple(damaged)))
        for end in ends:
            self._note(end)
        self._store_pending()
        return folder.read_summary()

    def report(self, event: Event) -> None:
        """Takes an event of the run."""
        if isinstance(event, Row):
            self._rows.append(event)
            for end in ends_of(self._config, self._rows, "trained"):
                if end.stage not in self._told:
                    self._note(end)
                    self._tell(Ended(end))
        self._store_pending()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Tells the result; of the run's checkpoints none is needed any more."""
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

    def _seed(self, folder: RunFolder) -> list[str]:
        """Begins with the deepest end that is whole; returns the keys of those that are not, and deletes them."""
        damaged = []
        for stage, key in self._spec.starts.items():
            try:
                end = self._store.get(key)
            except DamagedError:
                self._store.delete(key)
                damaged.append(key)
                continue
            seed_from_stage(end, self._config)
            write_text(folder.path / _REUSED, json.dumps({"stage": stage}) + "\n")
            break
        return damaged

    def _ends(self, folder: RunFolder) -> list[End]:
        path = folder.path / _REUSED
        last = json.loads(path.read_text(encoding="utf-8"))["stage"] if path.is_file() else -1
        reused, trained = (ends_of(self._config, self._rows, how) for how in ("reused", "trained"))
        return [end for end in reused if end.stage <= last] + [end for end in trained if end.stage > last]

    def _note(self, end: End) -> None:
        """Remembers an end, and that it is to be stored where another trial needs it."""
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
        """Stores the ends that are written by now: the run writes them in a thread."""
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
