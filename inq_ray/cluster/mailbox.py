"""Mailbox between rank 0 and the driver on any nodes: events go one way, the request to stop the other.

The actor passes events on without reading them: for that it would have to import torch, seconds of every start.
"""

import asyncio
import contextlib
import itertools
import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from inq_ray.tracking.fault import warn
from inq_ray.tracking.together import Together
from inq_ray.training.report.events import Event, Reporter

_POLL_SECONDS = 0.3
_ANSWER_SECONDS = 30.0


def _actor_class() -> type:
    """Return the class, defined in a function so that Ray sends its code instead of importing its module."""

    class Mailbox:
        """Keeps pickled events until they are taken; runs as a Ray actor without resources.

        Ray runs calls that await something, like asked_to_stop(), in any order: so senders number their events, and
        early ones are held back.
        """

        def __init__(self) -> None:
            self._events: list[bytes] = []
            self._due: dict[str, int] = {}
            self._early: dict[str, dict[int, bytes]] = {}
            self._stop = asyncio.Event()

        async def put(self, sender: str, number: int, event: bytes) -> None:
            """Add an event; a sender numbers its events from 0."""
            early = self._early.setdefault(sender, {})
            early[number] = event
            while (due := self._due.get(sender, 0)) in early:
                self._events.append(early.pop(due))
                self._due[sender] = due + 1

        async def take(self) -> list[bytes]:
            """Return the events since the last call, in order for each sender."""
            events, self._events = self._events, []
            return events

        async def ask_to_stop(self) -> None:
            """Make :meth:`asked_to_stop` return."""
            self._stop.set()

        async def asked_to_stop(self) -> None:
            """Return once the run is asked to stop, so that callers need not poll."""
            await self._stop.wait()

    return Mailbox


class Sender:
    """Sends events for a reporter of the driver, which receives them in this order.

    Args:
        mailbox: Handle of the actor.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count()

    def send(self, event: object) -> Any:
        """Send an event without waiting.

        Returns:
            A reference that is ready once the event has arrived.
        """
        return self._mailbox.put.remote(self._name, next(self._numbers), pickle.dumps(event))


class MailboxReporter:
    """The reporter of rank 0: sends without waiting.

    Attributes:
        is_lost: Whether :meth:`is_asked_to_stop` found the mailbox lost.
    """

    def __init__(self, mailbox: Any) -> None:
        self.is_lost = False
        self._mailbox = mailbox
        self._sender = Sender(mailbox)
        self._stop = mailbox.asked_to_stop.remote().future()
        self._sent: list[Any] = []
        self._lock = threading.Lock()

    def report(self, event: Event) -> None:
        """Send an event; thread-safe, because the thread that writes checkpoints reports too."""
        with self._lock:
            _, under_way = ray.wait(self._sent, num_returns=len(self._sent), timeout=0) if self._sent else ([], [])
            self._sent = [*under_way, self._sender.send(event)]

    def close(self) -> None:
        """Wait until all events have arrived, with a time limit: those on their way would be lost with this process."""
        if self._sent:
            ray.wait(self._sent, num_returns=len(self._sent), timeout=_ANSWER_SECONDS)

    def is_asked_to_stop(self) -> bool:
        """Return whether the driver has asked to stop, or no longer can because the mailbox is lost."""
        if not self._stop.done():
            return False
        error = self._stop.exception()
        if isinstance(error, ray.exceptions.ActorUnavailableError):  # it may recover, or be dead next time
            self._stop = self._mailbox.asked_to_stop.remote().future()
            return False
        self.is_lost = error is not None
        return True


@contextlib.contextmanager
def deliver(to: Reporter) -> Iterator[Any]:
    """Create a mailbox, and pass its events to a reporter until the block ends, including the last ones.

    Neither the reporter's errors nor a lost mailbox end the block: there is one warning on stderr.

    Yields:
        The handle of the mailbox actor.
    """
    # On the driver's node, so that the loss of another node does not end all reports. With soft=True, Ray 2.60
    # sometimes uses another.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox: Any = ray.remote(num_cpus=0)(_actor_class()).options(scheduling_strategy=here).remote()
    stop = threading.Event()
    thread = threading.Thread(target=_forward, args=(mailbox, Together(to), stop), name="inq_ray-mailbox", daemon=True)
    thread.start()
    try:
        yield mailbox
    finally:
        stop.set()
        thread.join(_ANSWER_SECONDS)
        if thread.is_alive():
            warn("the run's last reports may be missing", f"they took longer than {_ANSWER_SECONDS:g} s")
        ray.kill(mailbox)  # asked_to_stop() may wait forever, and an actor ends itself only when nothing waits


def _forward(mailbox: Any, to: Reporter, stop: threading.Event) -> None:
    """Pass events on until the stop event is set, or the mailbox is lost."""
    while True:
        is_last = stop.wait(_POLL_SECONDS)
        try:
            # Without a timeout: an actor starts late on a busy node, and events taken after a timeout would be lost.
            events = ray.get(mailbox.take.remote())
        except ray.exceptions.ActorUnavailableError:  # it may recover; else Ray will report that it is dead
            time.sleep(_POLL_SECONDS)
            continue
        except ray.exceptions.RayError as error:
            if not stop.is_set():  # else the caller that waits for the run gets the reason
                warn("the mailbox of the run is lost, and reports with it", error)
            return
        for event in events:
            to.report(pickle.loads(event))  # noqa: S301, of our own worker: as Ray itself would have sent it
        if is_last:
            return
