"""Between rank 0 and the driver, wherever the two run: events go one way, the wish to stop the other.

The actor between them keeps what it does not read: it would have to import torch for it, seconds of every start.
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
    """Return the class: Ray sends that of a function as it stands, and would import the module of another."""

    class Mailbox:
        """Keeps pickled events until they are taken; runs as a Ray actor without resources of its own.

        Ray runs calls that wait for each other's answers, as asked_to_stop() does, in any order: so senders number
        what they put, and what comes early is kept back.
        """

        def __init__(self) -> None:
            self._events: list[bytes] = []
            self._due: dict[str, int] = {}
            self._early: dict[str, dict[int, bytes]] = {}
            self._stop = asyncio.Event()

        async def put(self, sender: str, number: int, event: bytes) -> None:
            """Add an event: the numbers of a sender go from 0 up."""
            early = self._early.setdefault(sender, {})
            early[number] = event
            while (due := self._due.get(sender, 0)) in early:
                self._events.append(early.pop(due))
                self._due[sender] = due + 1

        async def take(self) -> list[bytes]:
            """Hand out the events that came since the last call, those of a sender in order."""
            events, self._events = self._events, []
            return events

        async def ask_to_stop(self) -> None:
            """Let :meth:`asked_to_stop` answer."""
            self._stop.set()

        async def asked_to_stop(self) -> None:
            """Answer once the run is asked to stop, and not before: whoever waits need not poll."""
            await self._stop.wait()

    return Mailbox


class Sender:
    """Sends what a reporter of the driver takes, which gets it in this order.

    Args:
        mailbox: the actor's handle.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count()

    def send(self, event: object) -> Any:
        """Send an event, and does not wait.

        Returns:
            A reference that is ready once it is there.
        """
        return self._mailbox.put.remote(self._name, next(self._numbers), pickle.dumps(event))


class MailboxReporter:
    """The reporter of rank 0: sends and does not wait.

    Attributes:
        is_lost: whether the mailbox is gone, as far as :meth:`is_asked_to_stop` has seen.
    """

    def __init__(self, mailbox: Any) -> None:
        self.is_lost = False
        self._mailbox = mailbox
        self._sender = Sender(mailbox)
        self._stop = mailbox.asked_to_stop.remote().future()
        self._sent: list[Any] = []

    def report(self, event: Event) -> None:
        """Send an event."""
        _, under_way = ray.wait(self._sent, num_returns=len(self._sent), timeout=0) if self._sent else ([], [])
        self._sent = [*under_way, self._sender.send(event)]

    def close(self) -> None:
        """Wait until all events are there, with a bound: what is still on its way would go with this process."""
        if self._sent:
            ray.wait(self._sent, num_returns=len(self._sent), timeout=_ANSWER_SECONDS)

    def is_asked_to_stop(self) -> bool:
        """Return whether the driver has asked for it, or could not any more: the mailbox is gone."""
        if not self._stop.done():
            return False
        error = self._stop.exception()
        if isinstance(error, ray.exceptions.ActorUnavailableError):  # it may come back, or be dead then
            self._stop = self._mailbox.asked_to_stop.remote().future()
            return False
        self.is_lost = error is not None
        return True


@contextlib.contextmanager
def deliver(to: Reporter) -> Iterator[Any]:
    """Make a mailbox, and hands its events to a reporter until the block ends, the last ones too.

    Neither what the reporter raises nor a mailbox that is gone ends the block: that is said once, on stderr.

    Yields:
        The handle of the mailbox actor.
    """
    # On the node of the driver: the loss of another one would end all reports. Where it need not be there, Ray 2.60
    # takes another now and then.
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
        ray.kill(mailbox)  # asked_to_stop() may wait for ever, and an actor ends by itself only when nothing waits


def _forward(mailbox: Any, to: Reporter, stop: threading.Event) -> None:
    """Hand events on until the stop event is set, or the mailbox is gone."""
    while True:
        is_last = stop.wait(_POLL_SECONDS)
        try:
            # Without a bound: an actor starts late on a busy node, and what it hands out to nobody is lost.
            events = ray.get(mailbox.take.remote())
        except ray.exceptions.ActorUnavailableError:  # it may come back; else Ray will say that it is dead
            time.sleep(_POLL_SECONDS)
            continue
        except ray.exceptions.RayError as error:
            if not stop.is_set():  # else whoever waits for the run learns why
                warn("the mailbox of the run is gone, and reports with it", error)
            return
        for event in events:
            to.report(pickle.loads(event))  # noqa: S301, of our own worker: as Ray itself would have sent it
        if is_last:
            return
