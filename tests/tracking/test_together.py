"""Several reporters are one, and none ends anything by what it raises."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from inq_ray.tracking.together import Together
from inq_ray.training.report.events import Event
from tests.tracking.test_trackers import REPO, ROWS, STARTED


def test_several_reporters_are_one() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def report(self, event: Event) -> None:
            self.events.append(event)

    first, second = Recorder(), Recorder()
    both = Together(first, second)
    for event in (STARTED, *ROWS):
        both.report(event)
    assert first.events == second.events == [STARTED, *ROWS]


def test_a_reporter_that_fails_keeps_nothing_from_the_others_and_is_named_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def report(self, event: Event) -> None:
            self.events.append(event)

    class Failing(Recorder):
        def report(self, event: Event) -> None:
            super().report(event)
            raise ValueError("no place at s3://key:canary@host/bucket")

    first, second, last = Failing(), Failing(), Recorder()
    together = Together(first, second, last)
    for event in (STARTED, *ROWS):
        together.report(event)
    assert first.events == second.events == last.events == [STARTED, *ROWS]
    line = "warning: the run continues, but Failing misses reports: ValueError: no place at s3://***@host/bucket\n"
    assert capsys.readouterr() == ("", 2 * line), "once for each"


@pytest.mark.parametrize("reporter", ["console.Console(CONFIG)", "json_log.JsonLog(CONFIG.output.name)"])
@pytest.mark.parametrize("closed", ["stdout", pytest.param("both", marks=pytest.mark.long)])
def test_a_closed_pipe_keeps_nothing_from_the_others(reporter: str, closed: str, tmp_path: Path) -> None:
    """As `| head` leaves one; with 2>&1 there is nobody to tell it to either."""
    module, _, made = reporter.partition(".")
    name, _, _ = made.partition("(")
    script = f"""
        import os
        from pathlib import Path
        from inq_ray.tracking.together import Together
        from inq_ray.training.report.{module} import {name}
        from tests.tracking.test_trackers import CONFIG, ROWS

        class Last:
            def report(self, event):
                with open({str(tmp_path / "heard")!r}, "a") as file:
                    file.write("heard\\n")

        together = Together({made}, Last())
        for event in ROWS:
            together.report(event)
        os._exit(0)  # else Python itself may say that it cannot flush
    """
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=True,
        stdout=writing,
        stderr=subprocess.PIPE if closed == "stdout" else writing,
        text=True,
        cwd=REPO,
    )
    os.close(writing)
    assert (tmp_path / "heard").read_text().count("heard") == len(ROWS)
    if name == "JsonLog":
        assert not ended.stderr, "whoever read it has gone"
    elif closed == "stdout":
        assert ended.stderr.startswith(f"warning: the run continues, but {name} misses reports: ")
        assert ended.stderr.count("\n") == 1
