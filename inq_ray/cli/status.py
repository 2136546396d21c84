"""The exit status of a command, and the line that says why it is not 0."""

import signal
import sys
from collections.abc import Callable

from inq_ray.files.shown import one_line


def exit_status(program: str, command: Callable[[], int], goes_on: str = "") -> int:
    """Return the exit status of a command: its own, 2 if it could not start as asked, 128 + signal if it was ended.

    Args:
        program: Name that messages begin with.
        command: Does what the flags ask for.
        goes_on: What follows the message that it was ended.
    """
    try:
        return command()
    except (ValueError, ConnectionError, TimeoutError) as error:
        complain(program, str(error))
        return 2
    except KeyboardInterrupt:
        complain(program, f"interrupted{goes_on}")
        return 128 + signal.SIGINT
    except SystemExit as end:
        if end.code != signal.SIGTERM:  # the status with which Ray's own handler exits, where ours is not set
            raise
        complain(program, f"ended by SIGTERM{goes_on}")
        return 128 + signal.SIGTERM


def complain(program: str, message: str, most: int = 300) -> None:
    """Print one line to stderr.

    Args:
        program: Name that it begins with.
        message: What follows; it may hold a library's words.
        most: Characters.
    """
    print(one_line(f"{program}: {message}", most), file=sys.stderr)
