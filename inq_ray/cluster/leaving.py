"""How the process of a job ends."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End this process with a status, once what was printed is out.

    At once, and not by way of the interpreter's end: there, threads of Ray's C++ may still run while the objects that
    they use are destroyed. On busy cores a job that had ended well died of SIGSEGV so, one in four (Ray 2.60). What has
    to end in order, the connection, trackers and files, has ended before.

    Args:
        status: 0 to 255.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    logging.shutdown()
    os._exit(status)
