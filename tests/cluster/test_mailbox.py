"""What rank 0 tells arrives: however late the actor starts, and whatever a reporter does with it."""

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from inq_ray.cluster import mailbox as mailbox_module
from inq_ray.cluster.mailbox import MailboxReporter, Sender, deliver
from inq_ray.training.report.events import Event, Note
from tests.conftest import RayCluster
from tests.training.runs import Recorder

NOTES = [Note(str(number)) for number in range(4)]


class _Actor:
    """A mailbox in a thread, which calls reach in order once it has started, and none after its death."""

    def __init__(self, kept: Any) -> None:
        self.started = threading.Event()
        self.is_dead = False
        self.errors: list[Exception] = []
        self._kept = kept
        self._pool = ThreadPoolExecutor(1)
        self._pool.submit(self.started.wait)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._call(name, *arguments))

    def _call(self, name: str, *arguments: Any) -> "Future[Any]":
        if self.is_dead:
            return _failed(CancelledError())
        if name == "take" and self.errors:
            return _failed(self.errors.pop(0))
        return self._pool.submit(lambda: asyncio.run(getattr(self._kept, name)(*arguments)))

    def die(self) -> None:
        self.is_dead = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.started.set()


def _failed(error: BaseException) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


class _Ray:
    """As much of Ray as a mailbox needs."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.actor = _Actor(mailbox_module._actor_class()())

    def remote(self, **_: Any) -> Callable[[type], Any]:
        made = SimpleNamespace(remote=lambda: self.actor)
        return lambda _: SimpleNamespace(options=lambda **_: made)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "ab" * 28)

    def get(self, future: "Future[Any]", timeout: float | None = None) -> Any:
        try:
            return future.result(timeout)
        except TimeoutError:
            raise ray.exceptions.GetTimeoutError from None
        except CancelledError:
            raise ray.exceptions.ActorDiedError from None

    def wait(
        self, futures: "list[Future[Any]]", num_returns: int, timeout: float
    ) -> "tuple[list[Future[Any]], list[Future[Any]]]":
        assert num_returns == len(futures)
        done, under_way = concurrent.futures.wait(futures, timeout)
        return list(done), list(under_way)

    def kill(self, actor: _Actor) -> None:
        actor.die()


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Actor]:
    fake = _Ray()
    monkeypatch.setattr(mailbox_module, "ray", fake)
    monkeypatch.setattr(mailbox_module, "_POLL_SECONDS", 0.01)
    yield fake.actor
    fake.actor.die()


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_told_arrives_in_order_and_the_last_too(actor: _Actor, capsys: pytest.CaptureFixture[str]) -> None:
    actor.started.set()
    told = Recorder()
    with deliver(told) as mailbox:
        sender = Sender(mailbox)
        for note in NOTES:
            sender.send(note)
    assert told.events == NOTES
    assert actor.is_dead
    assert capsys.readouterr() == ("", "")


@given(st.permutations([(sender, number) for sender in "ab" for number in range(4)]))
def test_events_of_a_sender_are_handed_out_in_its_order(calls: list[tuple[str, int]]) -> None:
    """However Ray orders the calls, and whenever they are taken."""

    async def taken() -> list[bytes]:
        mailbox, events = mailbox_module._actor_class()(), []
        for sender, number in calls:
            await mailbox.put(sender, number, f"{sender}{number}".encode())
            events += await mailbox.take()
        return events

    events = asyncio.run(taken())
    for sender in b"ab":
        assert [event[1:] for event in events if event[0] == sender] == [b"0", b"1", b"2", b"3"]


def test_an_actor_that_starts_late_is_waited_for_and_nothing_is_lost(
    actor: _Actor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it hands out to a call that nobody waits for any more would be."""
    monkeypatch.setattr(mailbox_module, "_ANSWER_SECONDS", 0.05)
    told = Recorder()
    with deliver(told) as mailbox:
        sender = Sender(mailbox)
        for note in NOTES[:2]:
            sender.send(note)
        time.sleep(0.3)
        actor.started.set()
        for note in NOTES[2:]:
            sender.send(note)
        wait_for(lambda: told.events == NOTES)
        monkeypatch.setattr(mailbox_module, "_ANSWER_SECONDS", 300.0)
    assert capsys.readouterr() == ("", "")


def test_an_actor_that_never_starts_holds_nothing_up_for_ever(
    actor: _Actor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mailbox_module, "_ANSWER_SECONDS", 0.05)
    with deliver(Recorder()) as mailbox:
        Sender(mailbox).send(NOTES[0])
    assert actor.is_dead
    assert capsys.readouterr().err == "warning: the run's last reports may be missing: they took longer than 0.05 s\n"


def test_an_actor_out_of_reach_may_come_back(actor: _Actor, capsys: pytest.CaptureFixture[str]) -> None:
    actor.started.set()
    actor.errors = [ray.exceptions.ActorUnavailableError("no route to it", None)] * 2
    told = Recorder()
    with deliver(told) as mailbox:
        Sender(mailbox).send(NOTES[0])
    assert told.events == NOTES[:1]
    assert capsys.readouterr() == ("", "")


def test_an_actor_that_is_gone_is_said_once(actor: _Actor, capsys: pytest.CaptureFixture[str]) -> None:
    actor.started.set()
    said = ""
    with deliver(Recorder()) as mailbox:
        actor.die()
        Sender(mailbox).send(NOTES[0])
        deadline = time.monotonic() + 300
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
            said += capsys.readouterr().err
    said += capsys.readouterr().err
    assert said.startswith("warning: the mailbox of the run is lost, and reports with it: ActorDiedError: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("the storage fails"), SystemExit(1)])
def test_a_reporter_that_raises_still_gets_what_comes_later(
    error: BaseException, actor: _Actor, capsys: pytest.CaptureFixture[str]
) -> None:
    """SystemExit is what rich makes of a closed pipe."""
    actor.started.set()
    told: list[Event] = []

    class Broken:
        def report(self, event: Event) -> None:
            told.append(event)
            raise error

    with deliver(Broken()) as mailbox:
        sender = Sender(mailbox)
        for note in NOTES:
            sender.send(note)
    assert told == NOTES
    err = capsys.readouterr().err
    assert err.startswith(f"warning: the run continues, but Broken misses reports: {type(error).__name__}: ")
    assert err.count("\n") == 1


def test_rank_0_leaves_only_when_its_last_event_has_arrived(actor: _Actor) -> None:
    """What is still on its way goes with its process: Ray ends that soon after."""
    reporter = MailboxReporter(_WithoutStop(actor))
    reporter.close()
    reporter.report(NOTES[0])
    threading.Timer(0.2, actor.started.set).start()
    reporter.close()
    assert len(actor._kept._events) == 1


def test_events_of_two_threads_are_both_waited_for(actor: _Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that writes checkpoints reports as well."""
    reporter = MailboxReporter(_WithoutStop(actor))
    reporter.report(NOTES[0])
    both, wait = threading.Barrier(2), mailbox_module.ray.wait

    def wait_for_the_other(*arguments: Any, **named: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return wait(*arguments, **named)

    monkeypatch.setattr(mailbox_module.ray, "wait", wait_for_the_other)
    threads = [threading.Thread(target=reporter.report, args=(note,)) for note in NOTES[1:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reporter._sent) == 3


class _WithoutStop:
    """The same mailbox; nobody asks to stop."""

    def __init__(self, actor: _Actor) -> None:
        self.put = actor.put
        self.asked_to_stop = SimpleNamespace(remote=lambda: SimpleNamespace(future=Future))


@pytest.mark.ray
def test_a_mailbox_of_ray_carries_events_one_way_and_the_wish_to_stop_the_other(ray_cluster: RayCluster) -> None:
    told = Recorder()
    with deliver(told) as mailbox:
        reporter = MailboxReporter(mailbox)
        for note in NOTES:
            reporter.report(note)
        wait_for(lambda: told.events == NOTES)
        assert not reporter.is_asked_to_stop()
        mailbox.ask_to_stop.remote()
        wait_for(reporter.is_asked_to_stop)
        reporter.report(NOTES[0])
        reporter.close()  # as a worker does at its end
    assert told.events == [*NOTES, NOTES[0]]


def test_a_mailbox_out_of_reach_is_asked_again(actor: _Actor) -> None:
    actor.started.set()
    away: Future[Any] = _failed(ray.exceptions.ActorUnavailableError("no route to it", None))
    asked = [away, Future()]
    reporter = MailboxReporter(SimpleNamespace(asked_to_stop=SimpleNamespace(remote=lambda: _Call(asked.pop(0)))))
    assert not reporter.is_asked_to_stop()
    assert not reporter.is_asked_to_stop()
    assert not asked
    assert not reporter.is_lost


class _Call(NamedTuple):
    """What a call of an actor returns."""

    answer: "Future[Any]"

    def future(self) -> "Future[Any]":
        return self.answer


@pytest.mark.ray
def test_a_mailbox_of_ray_that_is_gone_stops_the_run(ray_cluster: RayCluster) -> None:
    """A bug once: no wish to stop could reach the run any more, and it went on. The driver starts it again."""
    with deliver(Recorder()) as mailbox:
        reporter = MailboxReporter(mailbox)
        assert not reporter.is_lost
        ray.kill(mailbox)
        wait_for(reporter.is_asked_to_stop)
        assert reporter.is_lost
        reporter.report(NOTES[0])  # goes nowhere, and holds nothing up
        reporter.close()


@pytest.mark.ray
def test_a_mailbox_of_ray_that_is_gone_is_said_once(
    ray_cluster: RayCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    told, said = Recorder(), ""
    with deliver(told) as mailbox:
        Sender(mailbox).send(NOTES[0])
        wait_for(lambda: told.events == NOTES[:1])
        ray.kill(mailbox)
        deadline = time.monotonic() + 300
        while "the mailbox of the run is lost" not in said and time.monotonic() < deadline:
            time.sleep(0.1)
            said += capsys.readouterr().err
    said += capsys.readouterr().err
    assert said.count("warning: the mailbox of the run is lost, and reports with it: ActorDiedError: ") == 1
