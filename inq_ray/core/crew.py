"""Threads that divide a loop over memory among themselves; its code must let go of Python's lock."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

# Bounds the waiting for a share, which is the work of milliseconds.
_SECONDS = 600.0


class Piece(NamedTuple):
    """Elements ``start`` to ``stop`` of tensor number ``which``."""

    which: int
    start: int
    stop: int


def shares(counts: Sequence[int], num_shares: int) -> list[list[Piece]]:
    """Divides tensors of so many elements into shares alike, the last ones of which may be smaller or empty."""
    size = -(-sum(counts) // num_shares)
    divided: list[list[Piece]] = [[] for _ in range(num_shares)]
    share, room = 0, size
    for which, count in enumerate(counts):
        start = 0
        while start < count:
            stop = min(count, start + room)
            divided[share].append(Piece(which, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                share, room = share + 1, size
    return divided


def run_on_threads(tasks: Sequence[Callable[[], None]]) -> None:
    """Runs all of them at once, the first on this thread, and returns when all are done."""
    first, *others = tasks
    futures = [_CREW.executor(len(others)).submit(task) for task in others]
    try:
        first()
    finally:
        for future in futures:
            future.result(timeout=_SECONDS)


class _Crew:
    """Threads that wait for work: to wake one takes half as long as to start one. They start when first needed."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._threads: list[threading.Thread] = []
        self._size = 0

    def executor(self, size: int) -> ThreadPoolExecutor:
        """One of at least so many threads."""
        # In a process that was forked off, the threads of its parent are missing.
        are_there = all(thread.is_alive() for thread in self._threads)
        if self._executor is None or self._size < size or not are_there:
            threads: list[threading.Thread] = []
            self._executor = ThreadPoolExecutor(
                size, "inq_ray-step", initializer=lambda: threads.append(threading.current_thread())
            )
            self._threads, self._size = threads, size
        return self._executor


_CREW = _Crew()
