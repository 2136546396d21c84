"""Between rank 0 and the driver, wherever the two run: events go one way, the wish to stop the other.

The actor between them keeps what it does not read: it would have to import torch for it, seconds of every start.
"""

import asyncio
import contextlib
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import ray

from inq_ray.training.reporter import Event, Reporter

_POLL_SECONDS = 0.3
_ANSWER_SECONDS = 30.0


def _actor_class() -> type:
    """A class of a function: Ray sends such a one as it stands, where for another the actor would import its module."""

    class Mailbox:
        """Keeps pickled events until they are taken; runs as a Ray actor without resources of its own."""

        def __init__(self) -> None:
            self._events: list[bytes] = []
            self._stop = asyncio.Event()

        async def put(self, event: bytes) -> None:
            """Adds an event."""
            self._events.append(event)

        async def take(self) -> list[bytes]:
            """Hands out the events that came since the last call."""
            events, self._events = self._events, []
            return events

        async def ask_to_stop(self) -> None:
            """Lets :meth:`asked_to_stop` answer."""
            self._stop.set()

        async def asked_to_stop(self) -> None:
            """Answers once the run is asked to stop, and not before: whoever waits need not poll."""
            await self._stop.wait()

    return Mailbox


def send(mailbox: Any, event: object) -> None:
    """Sends what a reporter of the driver takes, and does not wait."""
    mailbox.put.remote(pickle.dumps(event))


class MailboxReporter:
    """The reporter of rank 0: sends and does not wait."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._stop = mailbox.asked_to_stop.remote().future()

    def report(self, event: Event) -> None:
        """Sends an event."""
        send(self._mailbox, event)

    def is_asked_to_stop(self) -> bool:
        """Whether the driver has asked for it."""
        return bool(self._stop.done())


@contextlib.contextmanager
def deliver(to: Reporter) -> Iterator[Any]:
    """Makes a mailbox, and hands its events to a reporter until the block ends, the last ones too.

    Yields:
        The handle of the mailbox actor.
    """
    mailbox: Any = ray.remote(num_cpus=0)(_actor_class()).remote()
    stop = threading.Event()
    thread = threading.Thread(target=_forward, args=(mailbox, to, stop), name="inq_ray-mailbox", daemon=True)
    thread.start()
    try:
        yield mailbox
    finally:
        stop.set()
        thread.join(_ANSWER_SECONDS)
        ray.kill(mailbox)  # asked_to_stop() may wait for ever, and an actor ends by itself only when nothing waits


def _forward(mailbox: Any, to: Reporter, stop: threading.Event) -> None:
    try:
        while not stop.wait(_POLL_SECONDS):
            _take(mailbox, to)
        _take(mailbox, to)
    except (ray.exceptions.RayError, TimeoutError):
        return  # the cluster is gone: whoever waits for the run learns why


def _take(mailbox: Any, to: Reporter) -> None:
    for event in ray.get(mailbox.take.remote(), timeout=_ANSWER_SECONDS):
        to.report(pickle.loads(event))  # noqa: S301, of our own worker: as Ray itself would have sent it
