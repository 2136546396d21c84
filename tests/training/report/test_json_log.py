"""A run's log for programs: each line an object with time, run, rank and stage."""

import dataclasses
import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.report.events import Note, Saved, WorkersPlaced
from inq_ray.training.report.incident import Incident
from inq_ray.training.report.json_log import JsonLog
from tests.training.report.test_console import CONFIG, PROGRESS, ROW, STARTED, SUMMARY

NAMED = CONFIG.replace(output={"name": "r18"})


def printed(show: Callable[[JsonLog], None], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    show(JsonLog(NAMED.output.name))
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


def test_every_line_says_when_which_run_which_rank_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    def show(log: JsonLog) -> None:
        log.start()
        for event in (WorkersPlaced(("first", "second")), STARTED, PROGRESS, PROGRESS, ROW, Note("on it goes")):
            log.report(event)
        log.report(Saved(name="checkpoint-02", seconds=0.1))
        log.report(Incident(kind="workers_lost", text="rank 1 is gone", seconds_lost=2.0))
        log.close()
        log.show_summary(SUMMARY | {"seconds": 3.0}, "/runs/r18")

    lines = printed(show, capsys)
    assert [(line["event"], line["rank"], line["stage"]) for line in lines] == [
        ("note", 0, None),
        ("placed", 0, None),
        ("placed", 1, None),
        ("started", 0, None),
        ("progress", 0, 2),  # the second came within a minute
        ("row", 0, 2),
        ("note", 0, 2),
        ("checkpoint", 0, 2),
        ("incident", 0, 2),
        ("finished", 0, 2),
    ]
    assert {line["run"] for line in lines} == {"r18"}
    assert all(dt.datetime.fromisoformat(line["time"]).tzinfo is not None for line in lines)
    assert lines[2]["text"] == "second"
    assert dataclasses.asdict(ROW).items() <= lines[5].items()
    assert (lines[8]["kind"], lines[8]["seconds_lost"]) == ("workers_lost", 2.0)
    assert (lines[9]["digest"], lines[9]["result"]) == (SUMMARY["digest"], "/runs/r18")


def test_progress_that_was_asked_for_is_printed_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    asked = dataclasses.replace(PROGRESS, is_printed=True)
    assert len(printed(lambda log: [log.report(asked) for _ in range(3)] and None, capsys)) == 3


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = printed(lambda log: log.report(dataclasses.replace(ROW, loss=float("nan"))), capsys)
    assert line["loss"] is None


def test_what_is_for_the_driver_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = Accuracy(num_samples=1, num_top1=1, num_top5=1, loss=1.0)
    assert printed(lambda log: log.report(accuracy), capsys) == []


def test_a_reader_that_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    JsonLog(NAMED.output.name).say("to nobody")
