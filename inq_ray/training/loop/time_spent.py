"""Time that training spent waiting: for data, or for the network between ranks.

Waiting for data is timed on the host, around the loader's next batch. On a GPU the host runs ahead of the device, but
only by the length of the kernel queue: over many steps, a host that waits for data means an idle device. Epochs of a
few steps are less accurate.

Gradients are sent while others are still computed; only the time that sending takes after that is waiting. DDP measures
it (events on the device for nccl, clocks for gloo) in its first ten steps and then in every hundredth; their mean is
used for all steps, so in short trainings the first ones weigh more. It includes waiting for slower ranks: therefore the
rank that waits least for gradients counts, and the rank that waits most for data. If sending uses CPU cores, as with
gloo, that counts as computing, not as waiting.

Timing takes two clock readings per step, below a microsecond, and three numbers between ranks per epoch.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inq_ray.distributed.replica import largest

Bound = Literal["data", "compute", "network"]

# Loading and sending overlap with computing. So waits are 0 if they are fast enough, and a wait that is not small
# means that they are the slower part, even if most of the time is still computing.
_HOLDS_BACK = 0.1

_T = TypeVar("_T")

_BOTTLENECKS: dict[Bound, str] = {"data": "data loading", "compute": "computation", "network": "gradient exchange"}
_ADVICE: dict[Bound, str] = {
    "data": "more --loader-workers and --cpus-per-worker, or with the data closer",
    "network": "a larger --batch-size (--accumulate saves memory), or fewer workers",
}


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Time spent in training.

    Attributes:
        seconds: All of it, without validation.
        data_seconds: Time waiting for batches.
        network_seconds: Time waiting for gradients with nothing left to compute.
    """

    seconds: float = 0.0
    data_seconds: float = 0.0
    network_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            seconds=self.seconds + other.seconds,
            data_seconds=self.data_seconds + other.data_seconds,
            network_seconds=self.network_seconds + other.network_seconds,
        )

    @property
    def data_share(self) -> float:
        """Fraction of the time, in [0, 1]."""
        return self.data_seconds / self.seconds if self.seconds else 0.0

    @property
    def network_share(self) -> float:
        """Fraction of the time, in [0, 1]."""
        return self.network_seconds / self.seconds if self.seconds else 0.0

    @property
    def bound(self) -> Bound:
        """The bottleneck."""
        if max(self.data_share, self.network_share) < _HOLDS_BACK:
            return "compute"
        return "data" if self.data_share >= self.network_share else "network"

    @property
    def waits(self) -> str:
        """What was waited for, for a line about progress; only what held training back, else nothing."""
        shares = {"data": self.data_share, "gradients": self.network_share}
        large = [f"{100 * share:.0f} % for {name}" for name, share in shares.items() if share >= _HOLDS_BACK]
        return f"waited {', '.join(large)}" if large else ""

    def __str__(self) -> str:
        """Return the last line of a run, with advice."""
        if self.bound == "compute":
            return f"bottleneck: {_BOTTLENECKS[self.bound]} (waits are below {100 * _HOLDS_BACK:.0f} % of the time)"
        share = self.data_share if self.bound == "data" else self.network_share
        return (
            f"bottleneck: {_BOTTLENECKS[self.bound]} ({100 * share:.0f} % of the time); faster with "
            f"{_ADVICE[self.bound]}"
        )


class Waiting(Generic[_T]):
    """Yields batches, and adds up the time spent waiting for them.

    Attributes:
        seconds: Time so far.
    """

    def __init__(self, batches: Iterable[_T]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __iter__(self) -> Iterator[_T]:
        began = time.perf_counter()
        for batch in self._batches:
            self.seconds += time.perf_counter() - began
            yield batch
            began = time.perf_counter()
        self.seconds += time.perf_counter() - began


def exposed_seconds(model: nn.Module) -> float:
    """Return the seconds per step in which this rank only waited for gradients, as measured by DDP.

    Args:
        model: Model in training; 0 without DDP, and before the second step.
    """
    if not isinstance(model, DistributedDataParallel):
        return 0.0
    timed = model._get_ddp_logging_data()  # type: ignore[no-untyped-call]  # noqa: SLF001, not available otherwise
    nanoseconds: float = timed.get("avg_backward_comm_time", 0) - timed.get("avg_backward_compute_comm_overlap_time", 0)
    return max(0.0, nanoseconds / 1e9)


def spent_in_epoch(model: nn.Module, *, seconds: float, data_seconds: float, num_steps: int) -> Spent:
    """Return the time spent in an epoch, over all ranks; every rank calls it.

    Args:
        model: Model that was trained.
        seconds: This rank's time for the whole epoch.
        data_seconds: This rank's time waiting for batches.
        num_steps: Optimizer steps of the epoch.
    """
    network_seconds = exposed_seconds(model) * num_steps
    seconds, data_seconds, less_network = largest(
        torch.tensor([seconds, data_seconds, -network_seconds], dtype=torch.float64)
    ).tolist()
    network_seconds = max(0.0, min(-less_network, seconds - data_seconds))
    return Spent(seconds=seconds, data_seconds=data_seconds, network_seconds=network_seconds)
