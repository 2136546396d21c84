import threading
from collections.abc import Mapping
from typing import Any

import pytest

from inq_ray.tracking.guarded import Guarded
from inq_ray.tracking.metrics import Scalar


class Memory:
    """A tracker that remembers, or fails at one of its calls."""

    def __init__(self, fails_at: str = "", error: BaseException | None = None) -> None:
        self.calls: list[Any] = []
        self.fails_at = fails_at
        self.error = error or OSError(28, "No space left on device")

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._fail("log")
        self.calls.append((dict(metrics), epoch))

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        self._fail("finish")
        self.calls.append(summary)

    def _fail(self, where: str) -> None:
        if where == self.fails_at:
            raise self.error


def run_through(tracker: Memory, fails_at_start: bool = False) -> None:
    def start() -> Memory:
        if fails_at_start:
            raise tracker.error
        return tracker

    guarded = Guarded("memory", start)
    for epoch in range(3):
        guarded.log({"a": float(epoch)}, epoch)
    guarded.finish({"top1": 90.0})
    guarded.join(10.0)


def test_calls_arrive_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Memory()
    run_through(tracker)
    assert tracker.calls == [({"a": 0.0}, 0), ({"a": 1.0}, 1), ({"a": 2.0}, 2), {"top1": 90.0}]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("fails_at", ["start", "log", "finish"])
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("two\nlines " + "x" * 500), SystemExit(1), KeyError()],
)
def test_a_failure_is_one_line_and_the_run_goes_on(
    fails_at: str, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    run_through(Memory(fails_at, error), fails_at == "start")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("warning: the run continues without the tracker memory: " + type(error).__name__)
    assert err.count("\n") == 1
    assert len(err) < 300


def test_nobody_waits_for_a_tracker_that_hangs(capsys: pytest.CaptureFixture[str]) -> None:
    release = threading.Event()

    def start() -> Memory:
        release.wait()
        return Memory("log")

    guarded = Guarded("slow", start)
    guarded.log({"a": 1.0}, 0)
    guarded.finish(None)
    guarded.join(0.1)
    release.set()
    guarded._thread.join()
    assert capsys.readouterr().err == "warning: the run continues without the tracker slow: it does not respond\n"
