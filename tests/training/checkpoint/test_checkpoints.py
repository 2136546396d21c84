"""When a run's checkpoints are taken, and what is said of them."""

from pathlib import Path
from typing import Any

import pytest

from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.writer import CheckpointWriter
from inq_ray.training.report.events import Saved
from tests.training.runs import needs_digits, run_here, tiny_config

pytestmark = needs_digits


def test_what_is_put_off_is_not_told_and_ranks_wait_less_than_their_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage is slow: only what has to be written is, and every other one of that."""
    taken: list[str] = []
    waited: list[float] = []
    write = CheckpointWriter.write

    def write_some(self: CheckpointWriter, snapshot: Snapshot, *, wait_seconds: float = 0.0, **options: Any) -> bool:
        waited.append(wait_seconds)
        if wait_seconds == 0 or len(waited) % 2:
            return False
        taken.append(snapshot.position.name)
        return write(self, snapshot, wait_seconds=30, **options)

    monkeypatch.setattr(CheckpointWriter, "write", write_some)
    sections: dict[str, Any] = {"cluster": {"collective_timeout": "40s"}, "output": {"checkpoint_every": "5"}}
    told = run_here(tiny_config(tmp_path).replace(**sections)).told
    assert [event.name for event in told.events if isinstance(event, Saved)] == taken
    assert taken
    assert set(waited) == {0.0, 20.0}
