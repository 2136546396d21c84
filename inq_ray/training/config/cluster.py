"""Where a run computes."""

import functools
from dataclasses import dataclass
from typing import Literal

from inq_ray.training.config.checks import count
from inq_ray.training.config.duration import check_duration, seconds_of
from inq_ray.training.config.option import Affects, check_options, option
from inq_ray.training.config.worker_range import WorkerRange

OnMismatch = Literal["stop", "restart"]

_option = functools.partial(option, sweep=False)


def _check_workers(_: str, value: int | str) -> int | str:
    workers = WorkerRange.parse(value)
    return workers.most if workers.least == workers.most else str(workers)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where a run computes."""

    num_workers: int | str = _option(
        2,
        "Processes that train together, one for each GPU or CPU slot; of a range (2..8) as many as fit at each start.",
        check=_check_workers,
        affects=Affects.ROUNDING,
        is_first=True,
    )
    use_gpu: bool = _option(False, "Give each worker a GPU.", is_first=True)
    cpus_per_worker: int = _option(1, "CPU cores, and threads, of a worker.", check=count(1), affects=Affects.ROUNDING)
    max_failures: int = _option(
        3,
        "Times that a run goes on from its last checkpoint after a worker or a node was lost.",
        check=count(0),
        affects=Affects.NOTHING,
    )
    placement_timeout: str = _option(
        "10m",
        "Time (30s, 10m, 2h) to wait at each start until a cluster has room for the smallest number of workers.",
        check=check_duration,
        affects=Affects.NOTHING,
    )
    collective_timeout: str = _option(
        "30m",
        "Time after which a worker that does not answer counts as lost.",
        check=check_duration,
        affects=Affects.NOTHING,
    )
    on_mismatch: OnMismatch = _option(
        "stop",
        "What to do if the workers' networks no longer hold the same bits: stop, or restart from the last checkpoint.",
        affects=Affects.NOTHING,
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def workers(self) -> WorkerRange:
        """The least and the most workers."""
        return WorkerRange.parse(self.num_workers)

    @property
    def placement_seconds(self) -> int:
        """Bound of the wait for room."""
        return seconds_of(self.placement_timeout)

    @property
    def collective_seconds(self) -> int:
        """Bound of every wait of one worker for another."""
        return seconds_of(self.collective_timeout)
