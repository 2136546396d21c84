"""Incidents in a file: one line each, kept where the disk is full, read where it was damaged."""

import errno
import json
import os
from pathlib import Path

import pytest

from inq_ray.training.report.incident import Incident, IncidentLog


def incident(text: str, seconds_lost: float | None = None) -> Incident:
    return Incident(kind="resumed", text=text, seconds_lost=seconds_lost)


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_a_line_each_and_a_sum(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path / "events.jsonl")
    assert log.summary() == {"counts": {}, "seconds_lost": 0.0}
    log.add(incident("a", 1.5))
    log.add(Incident(kind="stopped", text="b"))
    IncidentLog(log.path).add(incident("c", 2.0))
    assert texts(log.path) == ["a", "b", "c"]
    assert log.summary() == {"counts": {"resumed": 2, "stopped": 1}, "seconds_lost": 3.5}


def test_a_full_disk_ends_nothing_and_nothing_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = IncidentLog(tmp_path / "events.jsonl")
    log.add(incident("a"))
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "write", full)
        log.add(incident("b"))
        log.add(incident("c"))
        assert texts(log.path) == ["a"]
        assert log.summary()["counts"] == {"resumed": 3}
    log.add(incident("d"))
    assert texts(log.path) == ["a", "b", "c", "d"]
    assert log.summary()["counts"] == {"resumed": 4}


@pytest.mark.parametrize(
    "damage", [b'{"kind": "res', b"\xff\xfe", b"[1]", b'{"kind": 1, "seconds_lost": "x"}', b"[" * 9999]
)
def test_lines_that_are_damaged_are_passed_over(tmp_path: Path, damage: bytes) -> None:
    log = IncidentLog(tmp_path / "events.jsonl")
    log.add(incident("a", 1.0))
    with log.path.open("ab") as file:
        file.write(damage)  # without an end: a process was killed
    log.add(incident("b", 1.0))
    assert log.summary() == {"counts": {"resumed": 2}, "seconds_lost": 2.0}
