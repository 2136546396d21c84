"""What is measured, on one rank: the configuration of a run, its network, and images in memory."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from inq_ray.benchmark.images import random_source
from inq_ray.core.optim.sgd import SGD
from inq_ray.data.image_set import Source
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import world_size
from inq_ray.scheduler import INQScheduler
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.build import sgd_options
from inq_ray.training.task.build import Task, build_task, open_data
from inq_ray.training.task.determinism import set_deterministic
from inq_ray.training.task.groups import groups_of

# Portions of frozen weights: before the first stage, and after each.
PORTIONS = (0.0, 0.5, 0.75, 0.875, 0.95)
# Steps of an epoch, at most so many are timed at once.
EPOCH_STEPS = 64


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much time a benchmark takes.

    Attributes:
        num_rounds: Fewest repetitions of a step.
        most_rounds: Most repetitions of a step.
        num_stages: Repetitions of each stage, and of a checkpoint.
        turn_seconds: Time of a turn, in which short steps are repeated, so that its start does not count.
        portion_seconds: Time for the steps at a portion, unless the fewest repetitions take longer.
        input_seconds: Time for reading images.
    """

    num_rounds: int
    most_rounds: int
    num_stages: int
    turn_seconds: float
    portion_seconds: float
    input_seconds: float


FULL = Effort(num_rounds=5, most_rounds=20, num_stages=3, turn_seconds=0.3, portion_seconds=30.0, input_seconds=15.0)
QUICK = Effort(num_rounds=2, most_rounds=3, num_stages=1, turn_seconds=0.05, portion_seconds=2.0, input_seconds=2.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a benchmark, in addition to the configuration of the run.

    Attributes:
        is_quick: Whether to use the fewest repetitions.
        fingerprint: Fingerprint of the data; None = there are only random images.
        scratch: Path of an empty folder in that of --storage-path, for checkpoints unless --checkpoint-path is set.
    """

    is_quick: bool
    fingerprint: str | None
    scratch: str

    @property
    def effort(self) -> Effort:
        """How much time it takes."""
        return QUICK if self.is_quick else FULL


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured, on one rank.

    Attributes:
        given: Configuration of the run.
        config: The same for images in memory.
        settings: Settings of the benchmark.
        task: Network as before the first stage, with random images in memory.
        source: The real data; None = there are none.
        tell: Called with lines for the user; does nothing on ranks other than 0.
    """

    given: RunConfig
    config: RunConfig
    settings: Settings
    task: Task
    source: Source | None
    tell: Callable[[str], None]

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.task.to_input.device

    def network(self) -> nn.Module:
        """Return a copy of the network."""
        return copy.deepcopy(self.task.model)

    def optimizer(self, network: nn.Module) -> SGD:
        """Return an optimizer of a network, with learning rate 0: no step changes weights, so ranks stay alike."""
        return SGD(groups_of(network, self.config), lr=0.0, **sgd_options(self.config.training))

    def scheduler(self, optimizer: SGD) -> INQScheduler:
        """Return a scheduler whose stages reach the portions."""
        quantization, seed = self.config.quantization, self.config.training.seed
        return INQScheduler(optimizer, PORTIONS[1:], quantization.strategy, seed, codebook=quantization.codebook)


def make_subject(config: RunConfig, settings: Settings, device: torch.device, tell: Callable[[str], None]) -> Subject:
    """Open data and network as a run does; every rank calls it.

    Args:
        config: Configuration of the run.
        settings: Settings of the benchmark.
        device: Device of this rank.
        tell: Called with lines for the user.

    Raises:
        ValueError: Data or network do not exist on this machine.
    """
    set_deterministic()
    source = None if settings.fingerprint is None else open_data(config, settings.fingerprint)
    batch_size = config.training.batch_size
    random = random_source(
        config,
        None if source is None else source.info,
        num_train=batch_size * EPOCH_STEPS,
        num_made=-(-batch_size // world_size()),
    )
    in_memory = config.replace(
        data={"loader_workers": 0, "holdout": 0, "jpeg_decoder": "cpu"}, training={"limit_batches": None}
    )
    task = build_task(in_memory, device, source=random)
    broadcast_tensors(task.model.state_dict())
    return Subject(given=config, config=in_memory, settings=settings, task=task, source=source, tell=tell)
