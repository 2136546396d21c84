"""The exit status of a job is its own, whatever its libraries do at the interpreter's end."""

import os
import subprocess
import sys

_CRASHES_AT_THE_END = """
import atexit, os
from inq_ray.cluster.leaving import leave
atexit.register(os.abort)
print("x" * 100_000)
leave(3)
"""


def test_a_library_that_crashes_at_the_end_changes_nothing() -> None:
    ended = subprocess.run([sys.executable, "-c", _CRASHES_AT_THE_END], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (3, "")
    assert ended.stdout == "x" * 100_000 + "\n"


def test_a_pipe_that_nobody_reads_changes_nothing() -> None:
    command = [sys.executable, "-c", _CRASHES_AT_THE_END.replace("100_000", "10")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # so leave() writes it
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 3
