"""Runs on digits that end in about a second, in this process or on ranks."""

import contextlib
import csv
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.phase import PhaseTraining
from inq_ray.training.report.events import Event, Row, Started
from inq_ray.training.report.incident import Incident
from inq_ray.training.report.progress import Epoch
from inq_ray.training.run import run
from inq_ray.training.run_folder import RunFolder

# Found and not imported: the package is only where the file of digits lies, and importing it takes seconds.
needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None,
    reason="the data 'digits' are part of scikit-learn, which is not installed",
)


# Of a row, what a watch says.
_TIMES = ("validation_seconds", "train_seconds", "data_seconds", "network_seconds", "images_per_second")


class Recorder:
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    @property
    def rows(self) -> list[Row]:
        return [event for event in self.events if isinstance(event, Row)]

    @property
    def started(self) -> list[Started]:
        return [event for event in self.events if isinstance(event, Started)]


class Finished(NamedTuple):
    """A run that is done: its folder, summary, and what it told."""

    folder: RunFolder
    summary: dict[str, Any]
    told: Recorder


def tiny_config(storage: Path, name: str = "tiny", **sections: dict[str, Any]) -> RunConfig:
    """An epoch of float training, and two stages of one epoch."""
    tiny = default_recipe("digits_cnn", 5).replace(
        training={"float_epochs": 1, "epochs": 1},
        quantization={"iterative_steps": (0.5, 1.0)},
        cluster={"num_workers": 1},
        output={"storage_path": str(storage), "name": name},
    )
    return tiny.replace(**sections)


def run_here(config: RunConfig, **options: Any) -> Finished:
    """Runs in this process, which may be a rank of several; rank 0 makes the folder."""
    folder = RunFolder.planned(config)
    is_first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if is_first and not folder.config.is_file():
        RunFolder.create(config)
    told = Recorder()
    return Finished(folder, run(config, device=torch.device("cpu"), reporter=told, folder=folder, **options), told)


class StoppedError(Exception):
    """A run ends here."""


@contextlib.contextmanager
def after_each_step(hook: Callable[[Epoch, EpochState], None]) -> Iterator[None]:
    """Calls a hook after each step of the runs in this process, once all checkpoints so far are written."""
    on_step = PhaseTraining.on_step

    def hooked(self: PhaseTraining, epoch: Epoch, state: EpochState) -> None:
        on_step(self, epoch, state)
        self.run.checkpoints.close()
        hook(epoch, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhaseTraining, "on_step", hooked)
        yield


@contextlib.contextmanager
def stopped_after(stop: tuple[int, int, int] | None) -> Iterator[None]:
    """Stops runs in this process by a StoppedError after a (stage, epoch, step); None never does."""

    def stop_there(epoch: Epoch, state: EpochState) -> None:
        if (epoch.stage, epoch.epoch, state.step) == stop:
            raise StoppedError

    with after_each_step(stop_there):
        yield


def configured(storage: Path, name: str, **sections: dict[str, Any]) -> RunConfig:
    """Six steps an epoch, two epochs a phase, a checkpoint after every second step."""
    training: dict[str, Any] = {"batch_size": 200, "float_epochs": 2, "epochs": 2, **sections.pop("training", {})}
    config = tiny_config(storage, name, training=training, **sections)
    return config.replace(output={"checkpoint_every": "2"})


def run_in_parts(config: RunConfig, stops: list[tuple[int, int, int]]) -> tuple[str, list[str]]:
    """Runs, and is stopped at these (stage, epoch, step), one start after the other; returns digest and notes."""
    for stop in [*stops, None]:
        try:
            with stopped_after(stop):
                finished = run_here(config)
        except StoppedError:
            continue
        told = [event.text for event in finished.told.events if isinstance(event, Incident)]
        return finished.summary["digest"], told
    raise AssertionError("it was never run to its end")


def read_rows(folder: RunFolder) -> list[dict[str, str]]:
    """Its metrics, without what a watch says."""
    with folder.metrics_csv.open() as table:
        return [{name: row[name] for name in row if name not in _TIMES} for row in csv.DictReader(table)]


def read_summary(folder: RunFolder) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(folder.summary.read_text())
    return summary
