"""A run that is asked to stop leaves a checkpoint on the way, and goes on from it with the bits of one that was not."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from inq_ray.training.checkpoint import clock
from inq_ray.training.checkpoint.clock import StopError
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.phase import PhaseTraining
from inq_ray.training.report.progress import Epoch
from inq_ray.training.run_folder import RunFolder
from tests.ranks import run_ranks
from tests.training.runs import needs_digits, read_summary, run_here, tiny_config

pytestmark = [needs_digits, pytest.mark.system]

# Six steps an epoch, two epochs a phase; no other checkpoint than those at stages' ends.
STEPS, EPOCHS = 6, 2


def configured(storage: Path, name: str, **training: Any) -> RunConfig:
    options: dict[str, Any] = {"batch_size": 200, "float_epochs": EPOCHS, "epochs": EPOCHS, **training}
    return tiny_config(storage, name, training=options)


def stopped_at(config: RunConfig, stop: tuple[int, int, int], asked_rank: int) -> str:
    """Lets one rank be asked to stop at (stage, epoch, step); returns what every rank raised."""
    is_asked, on_step = False, PhaseTraining.on_step
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0

    def ask(self: PhaseTraining, epoch: Epoch, state: EpochState) -> None:
        nonlocal is_asked
        is_asked = is_asked or ((epoch.stage, epoch.epoch, state.step) == stop and rank == asked_rank)
        on_step(self, epoch, state)

    patch = pytest.MonkeyPatch()
    patch.setattr(PhaseTraining, "on_step", ask)
    patch.setattr(clock, "_LOOK_SECONDS", 0.0)  # from the fourth step on, at each
    try:
        run_here(config, is_asked_to_stop=lambda: is_asked)
    except StopError as error:
        return error.position.name if error.position else "nowhere"
    finally:
        patch.undo()
    return "went on"


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(3, marks=pytest.mark.long)])
def test_any_rank_may_be_asked_and_all_stop_at_once_with_nothing_lost(size: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"ema_decay": 0.9} if size == 2 else {}
    calm, stopped = configured(tmp_path, "calm", **options), configured(tmp_path, "stopped", **options)
    expected = list(run_ranks(_digest, size, calm))
    stops = {
        (0, 1, 5): TrainingPosition(stage=0, epoch=0, step=5),
        (0, 2, STEPS): TrainingPosition(stage=0, epoch=1, step=STEPS),  # before the epoch's validation
        (1, 1, STEPS): TrainingPosition(stage=1, epoch=0, step=STEPS),
        (1, 2, 4): TrainingPosition(stage=1, epoch=1, step=4),
        (2, 2, 5): TrainingPosition(stage=2, epoch=1, step=5),
    }
    for number, (stop, position) in enumerate(stops.items()):
        assert run_ranks(stopped_at, size, stopped, stop, number % size) == [position.name] * size
    assert run_ranks(_digest, size, stopped) == expected
    theirs, ours = (read_summary(RunFolder.planned(config)) for config in (calm, stopped))
    for name in ("float_top1", "stages", "top1", "digest", "verification"):
        assert ours[name] == theirs[name], name
    assert theirs["events"] == {"counts": {}, "seconds_lost": 0.0}
    assert ours["events"]["counts"] == {"resumed": len(stops), "stopped": len(stops)}
    assert ours["events"]["seconds_lost"] > 0


def _digest(config: RunConfig) -> str:
    digest: str = run_here(config).summary["digest"]
    return digest


def test_asked_before_it_began_nothing_is_done(tmp_path: Path) -> None:
    config = configured(tmp_path, "early")
    with pytest.raises(StopError, match="before its first step") as stopped:
        run_here(config, is_asked_to_stop=lambda: True)
    assert stopped.value.position is None
    assert not RunFolder.planned(config).metrics_jsonl.exists()


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(StopError(TrainingPosition(stage=1, epoch=2, step=3))))  # noqa: S301, our own
    assert error.position == TrainingPosition(stage=1, epoch=2, step=3)
    assert str(error) == "stopped at checkpoint-01-0002-00000003"
