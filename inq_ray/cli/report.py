"""`inq-ray report RUN_OR_SWEEP [OUT]`: writes one HTML page about a run or sweep, from the files in its folder.

Exit status 0: written. 2: there is no run or sweep, or the page cannot be written.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from inq_ray.cli.status import exit_status
from inq_ray.report.chart import can_draw
from inq_ray.report.written import write_report
from inq_ray.training.flags.words import is_flag

_HELP = """\
usage: {program} RUN_OR_SWEEP [OUT]

Write one HTML page about a run or sweep: accuracy, training, layers, sizes, incidents, configuration, digests. The page
needs no network. RUN_OR_SWEEP is a folder, or an address such as s3://bucket/runs/first; failed and unfinished runs
are shown, too. OUT is a file, a folder or an address; by default report.html in RUN_OR_SWEEP."""


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """
    if {"-h", "--help", "--help-all"} & {*arguments}:
        print(_HELP.format(program=program))
        return 0
    return exit_status(program, lambda: _execute(list(arguments)))


def _execute(words: list[str]) -> int:
    if not 1 <= len(words) <= 2 or not all(words) or any(map(is_flag, words)):
        raise ValueError("name the folder of a run or sweep, and optionally the file to write: RUN_OR_SWEEP [OUT]")
    print(write_report(words[0], words[1] if len(words) > 1 else None))
    return 0


def leave_report(folder: Path, say: Callable[[str], None]) -> None:
    """Write the page of a run or sweep that has ended, if matplotlib is installed; a failure is reported in a line.

    Args:
        folder: Folder of the run or sweep.
        say: Prints a line.
    """
    if not can_draw():
        return
    try:
        say(f"report    {write_report(folder, remote=False)}")
    except (ValueError, OSError, MemoryError) as error:
        say(f"warning: the report cannot be written: {error}")
