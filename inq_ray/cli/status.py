"""Exit status of a command, and the message if it is not 0."""

import signal
import sys
from collections.abc import Callable

from inq_ray.files.shown import one_line


def exit_status(program: str, command: Callable[[], int], goes_on: str = "") -> int:
    """Return a command's exit status: its own, 2 if it could not start, 128 + signal if a signal ended it.

    Args:
        program: Program name for messages.
        command: Runs the command line.
        goes_on: Text appended to the message after a signal.
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
        if end.code != signal.SIGTERM:  # the exit status of Ray's own handler, if ours is not installed
            raise
        complain(program, f"ended by SIGTERM{goes_on}")
        return 128 + signal.SIGTERM


def complain(program: str, message: str, most: int = 300) -> None:
    """Print one line to stderr.

    Args:
        program: Program name, which it begins with.
        message: Message, which may contain a library's message.
        most: Maximum number of characters.
    """
    print(one_line(f"{program}: {message}", most), file=sys.stderr)
