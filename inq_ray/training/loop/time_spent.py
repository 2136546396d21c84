"""What held training back: data, computing, or the network between the ranks.

Waiting for data is timed on the host, around the loader's next batch. On a GPU the host runs ahead of the device, but
only as far as the queue of kernels is long: over many steps, a host that waits for data is a device that has nothing to
do. Epochs of a few steps say less.

Gradients travel while others are still computed; what holds back is only how long they travel on after that. DDP times
it (events on the device for nccl, clocks for gloo) in its first ten steps and then in every hundredth; the mean of
those stands for all steps, and in short trainings the first ones weigh more. It includes waiting for ranks that are
slower: hence the figure of the rank that waits the least, and that of the rank that waits the most for data. Where
sending takes cores from computing, as gloo does, that is computing, not waiting.

The timing costs two readings of the clock a step, below a microsecond, and three numbers between the ranks an epoch.
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

# Loading and sending run beside computing. So waits are 0 where those are fast enough, and a wait that is not small
# means that they are the slower part, even where most of the time is still computing.
_HOLDS_BACK = 0.1

_T = TypeVar("_T")

_ADVICE: dict[Bound, str] = {
    "data": "more --loader-workers and --cpus-per-worker, or with the data nearer",
    "network": "a larger --batch-size, by --accumulate where memory is short, or fewer workers",
}


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Where the time of training went.

    Attributes:
        seconds: all of it, validation left out.
        data_seconds: of it, waiting for batches.
        network_seconds: of it, waiting for gradients while nothing else was left to compute.
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
        """Of all the time, in [0, 1]."""
        return self.data_seconds / self.seconds if self.seconds else 0.0

    @property
    def network_share(self) -> float:
        """Of all the time, in [0, 1]."""
        return self.network_seconds / self.seconds if self.seconds else 0.0

    @property
    def bound(self) -> Bound:
        """What more of would have made it faster."""
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
        """Return the last line of a run, with what to do."""
        if self.bound == "compute":
            return f"bottleneck: computation (waits are below {100 * _HOLDS_BACK:.0f} % of the time)"
        is_data = self.bound == "data"
        what = "data loading" if is_data else "gradient exchange"
        share = self.data_share if is_data else self.network_share
        return f"bottleneck: {what} ({100 * share:.0f} % of the time); faster with {_ADVICE[self.bound]}"


class Waiting(Generic[_T]):
    """Hands out batches, and adds up how long they were waited for.

    Attributes:
        seconds: so far.
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
    """Seconds a step in which this rank waited for gradients with nothing left to compute, as DDP has timed it so far.

    Args:
        model: as it is trained; without DDP nothing travels, and before the second step nothing is timed: 0.
    """
    if not isinstance(model, DistributedDataParallel):
        return 0.0
    timed = model._get_ddp_logging_data()  # type: ignore[no-untyped-call]  # noqa: SLF001, the one place that has it
    nanoseconds: float = timed.get("avg_backward_comm_time", 0) - timed.get("avg_backward_compute_comm_overlap_time", 0)
    return max(0.0, nanoseconds / 1e9)


def spent_in_epoch(model: nn.Module, *, seconds: float, data_seconds: float, num_steps: int) -> Spent:
    """Where an epoch's time went, over all ranks; every rank calls it.

    Args:
        model: as it was trained.
        seconds: of this rank, the whole epoch.
        data_seconds: of this rank, waiting for batches.
        num_steps: optimizer steps of the epoch.
    """
    network_seconds = exposed_seconds(model) * num_steps
    seconds, data_seconds, less_network = largest(
        torch.tensor([seconds, data_seconds, -network_seconds], dtype=torch.float64)
    ).tolist()
    network_seconds = max(0.0, min(-less_network, seconds - data_seconds))
    return Spent(seconds=seconds, data_seconds=data_seconds, network_seconds=network_seconds)
