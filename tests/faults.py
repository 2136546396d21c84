"""Faults for runs on a real Ray cluster: workers are killed, frozen, told to leave, drivers stopped, files damaged.

Each fault strikes when the run has come to a place that was planned: a plan drawn from a seed is the same again.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inq_ray.cluster.failure import RunStoppedError
from inq_ray.cluster.trainer import quantize
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Event, Note, Row
from inq_ray.training.report.incident import Incident
from inq_ray.training.run_folder import RunFolder

# Bound of a fault's wait, which the end of the run ends too; a machine may be slow.
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.005

# Waits for a condition; returns whether it was met before the run was over.
Wait = Callable[[Callable[[], Any]], bool]


@dataclass(frozen=True)
class Planned:
    """A fault, and when it strikes.

    Attributes:
        fault: a name of FAULTS.
        stage: it strikes once the run has told of this stage
        epoch: and epoch (0 = the stage's start), or of a later one.
        delay_seconds: after that.
        choice: which worker or file, modulo how many there are.
        num_resumed: how often the run has been resumed before: faults of one attempt may be one to the run.
    """

    fault: str
    stage: int
    epoch: int
    delay_seconds: float = 0.0
    choice: int = 0
    num_resumed: int = 0


def train_workers() -> list[int]:
    """Process ids of Ray Train's workers."""
    return processes_of_ray("RayTrainWorker")


def processes_of_ray(name: str) -> list[int]:
    """Process ids of Ray's workers of a name below this process: never those of another cluster."""
    return processes_below(os.getpid(), lambda command: command.startswith(f"ray::{name}".encode()))


def processes_below(ancestor: int, is_wanted: Callable[[bytes], bool]) -> list[int]:
    """Process ids below a process, of which the command line is wanted."""
    parents, workers = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if is_wanted((folder / "cmdline").read_bytes()):
                workers.append(int(folder.name))
        except OSError:
            continue  # it has ended

    def is_ours(process: int) -> bool:
        return process == ancestor or (process in parents and is_ours(parents[process]))

    return sorted(filter(is_ours, workers))


def send(number: signal.Signals, process: int) -> None:
    """Sends a signal, if the process is still there."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def _kill(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    workers = train_workers()
    if workers:
        send(signal.SIGKILL, workers[planned.choice % len(workers)])


def _kill_all(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    for worker in train_workers():
        send(signal.SIGKILL, worker)


def _kill_twice(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    """The second as soon as others have taken their place: while they import, load, or go on."""
    before = set(train_workers())
    _kill(run, planned, wait_for)
    if wait_for(lambda: set(train_workers()) - before):
        time.sleep((planned.choice % 50) / 10)
        _kill(run, planned, wait_for)


def _kill_in_checkpoint(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    if wait_for(lambda: list((run.path / "checkpoints").glob(".*.partial"))):
        _kill_all(run, planned, wait_for)


def _kill_in_stage_change(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    """Once the stage's last epoch is saved: while the next stage is chosen, sent and compared."""
    # A run of small epochs may be there before it has told of the planned one.
    if wait_for(lambda: any(place.stage >= planned.stage for place in _epoch_ends(run))):
        time.sleep((planned.choice % 10) / 100)
        _kill(run, planned, wait_for)


def _stop_driver_in_stage_change(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    if wait_for(lambda: any(place.stage >= planned.stage for place in _epoch_ends(run))):
        time.sleep((planned.choice % 10) / 100)
        _stop_driver(run, planned, wait_for)


def _freeze(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    workers = train_workers()
    if workers:
        send(signal.SIGSTOP, workers[planned.choice % len(workers)])


def _freeze_and_thaw(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    """All workers, which go on once others have taken their place and write."""
    frozen = train_workers()
    for worker in frozen:
        send(signal.SIGSTOP, worker)
    if wait_for(lambda: set(train_workers()) - set(frozen)):
        before = _num_rows(run)
        wait_for(lambda: _num_rows(run) > before)
    for worker in frozen:
        send(signal.SIGCONT, worker)


def _num_rows(run: RunFolder) -> int:
    try:
        return run.metrics_jsonl.read_bytes().count(b"\n")
    except OSError:
        return 0


def _notice(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    workers = train_workers()
    if workers:
        send(signal.SIGTERM, workers[planned.choice % len(workers)])


def _kill_actor(name: str) -> set[int]:
    processes = processes_of_ray(name)
    for process in processes:
        send(signal.SIGKILL, process)
    return set(processes)


def _kill_controller(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    """Ray Train's own process, which watches the workers."""
    _kill_actor("TrainController")


def _kill_mailbox(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    """The process by which rank 0 and the driver talk."""
    _kill_actor("Mailbox")


def _stop_driver_without_mailbox(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    killed = _kill_actor("Mailbox")
    if wait_for(lambda: killed.isdisjoint(processes_of_ray("Mailbox"))):  # the next attempt has one of its own
        _stop_driver(run, planned, wait_for)


def _stop_driver(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    send(signal.SIGINT if planned.choice % 2 else signal.SIGTERM, os.getpid())


def _damage(run: RunFolder, planned: Planned, wait_for: Wait) -> None:
    """A file of the newest checkpoint is not what it was, and the workers are gone."""
    _kill_all(run, planned, wait_for)
    if not wait_for(lambda: not train_workers()):
        return
    newest = sorted((run.path / "checkpoints").glob("checkpoint-*"))[-1:]
    files = sorted(file for folder in newest for file in folder.iterdir())
    if files:
        damage(files[planned.choice % len(files)], planned.choice)


def damage(file: Path, choice: int) -> None:
    """Flips a bit, cuts the file off, empties or deletes it."""
    data = bytearray(file.read_bytes())
    kind = choice % 4
    if kind == 0 and data:
        data[choice % len(data)] ^= 1 << (choice % 8)
    elif kind == 1:
        data = data[: len(data) // 2]
    elif kind == 2:
        data = bytearray()
    file.write_bytes(data)
    if kind == 3:
        file.unlink()


FAULTS: dict[str, Callable[[RunFolder, Planned, Wait], None]] = {
    "kill": _kill,
    "kill_all": _kill_all,
    "kill_twice": _kill_twice,
    "kill_in_checkpoint": _kill_in_checkpoint,
    "kill_in_stage_change": _kill_in_stage_change,
    "kill_controller": _kill_controller,
    "kill_mailbox": _kill_mailbox,
    "freeze": _freeze,
    "freeze_and_thaw": _freeze_and_thaw,
    "notice": _notice,
    "stop_driver": _stop_driver,
    "stop_driver_in_stage_change": _stop_driver_in_stage_change,
    "stop_driver_without_mailbox": _stop_driver_without_mailbox,
    "damage": _damage,
}


def _epoch_ends(run: RunFolder) -> list[TrainingPosition]:
    """Those that are saved: ends of stages, but where a checkpoint between them falls onto one."""
    places = [TrainingPosition.parse(path.name) for path in (run.path / "checkpoints").glob("checkpoint-*")]
    return [place for place in places if place is not None and place.epoch > 0 and place.step == 0]


@dataclass
class Saboteur:
    """A reporter that lets faults strike.

    Attributes:
        run: whose workers and files.
        plan: what strikes.
        texts: incidents and notes that the run has told.
        has_stopped_driver: whether this process is sent a signal, which has not ended the run yet.
        num_resumed: how often the run has been resumed.
    """

    run: RunFolder
    plan: list[Planned]
    texts: list[str] = field(default_factory=list)
    num_resumed: int = 0
    has_stopped_driver: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def report(self, event: Event) -> None:
        if isinstance(event, Note | Incident):
            self.texts.append(event.text)
            self.num_resumed += event.text.startswith("continuing from")
        if not isinstance(event, Row):
            return
        for planned in [each for each in self.plan if (each.stage, each.epoch) <= (event.stage, event.epoch)]:
            if planned.num_resumed > self.num_resumed:
                continue
            if planned.fault.startswith("stop_driver"):
                if self.has_stopped_driver:
                    continue  # a second signal ends the driver at once; this one is for the run that continues
                self.has_stopped_driver = True
            self.plan.remove(planned)
            thread = threading.Thread(target=self._strike, args=(planned,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _strike(self, planned: Planned) -> None:
        time.sleep(planned.delay_seconds)
        FAULTS[planned.fault](self.run, planned, self._wait_for)

    def _wait_for(self, condition: Callable[[], Any]) -> bool:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline and not self._is_over.wait(_POLL_SECONDS):
            if condition():
                return True
        return False

    def join(self) -> None:
        """Ends faults that wait for something, and waits for all that have begun."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


def quantize_under(config: RunConfig, plan: list[Planned]) -> tuple[dict[str, Any], list[str]]:
    """Runs to the end, started again as often as a driver is stopped; returns the summary, and what was told."""
    saboteur = Saboteur(RunFolder.planned(config), list(plan))
    try:
        for _ in range(1 + len(plan)):
            try:
                return quantize(config, saboteur), saboteur.texts
            except RunStoppedError:
                if not saboteur.has_stopped_driver:
                    raise  # somebody else has: Ctrl-C
                saboteur.has_stopped_driver = False
    finally:
        saboteur.join()
    raise AssertionError("it was stopped more often than was planned")


def draw(seed: int, places: list[tuple[int, int]]) -> list[Planned]:
    """One to three faults, a function of the seed.

    Args:
        seed: of the round.
        places: (stage, epoch) of each line of metrics that the run will tell.
    """
    generator = random.Random(seed)
    return [
        Planned(
            fault=generator.choice(sorted(FAULTS)),
            stage=stage,
            epoch=epoch,
            delay_seconds=round(generator.uniform(0.0, 0.6), 2),
            choice=generator.randrange(10_000),
        )
        for stage, epoch in sorted(generator.choices(places, k=generator.choice([1, 1, 2, 3])))
    ]


def places_of(config: RunConfig) -> Iterator[tuple[int, int]]:
    """(stage, epoch) of each line of metrics of a calm run."""
    yield from ((0, epoch + 1) for epoch in range(config.float_epochs))
    for stage, epochs in enumerate(config.stage_epochs, start=1):
        yield from ((stage, epoch) for epoch in range(epochs + 1))
