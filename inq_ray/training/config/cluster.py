"""Options for workers and the cluster."""

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
    """Workers and the cluster."""

    num_workers: int | str = _option(
        2,
        "Number of workers, one per GPU or CPU slot; of a range such as 2..8, as many as fit at each start.",
        check=_check_workers,
        affects=Affects.ROUNDING,
        is_first=True,
    )
    use_gpu: bool = _option(False, "Use one GPU per worker.", is_first=True)
    cpus_per_worker: int = _option(1, "CPU cores and threads per worker.", check=count(1), affects=Affects.ROUNDING)
    max_failures: int = _option(
        3,
        "Maximum number of restarts from the last checkpoint after a worker or a node was lost.",
        check=count(0),
        affects=Affects.NOTHING,
    )
    placement_timeout: str = _option(
        "10m",
        "Longest wait (30s, 10m, 2h) at each start until the cluster has room for the smallest number of workers.",
        check=check_duration,
        affects=Affects.NOTHING,
    )
    collective_timeout: str = _option(
        "30m",
        "Time (30s, 10m, 2h) without response after which a worker counts as lost.",
        check=check_duration,
        affects=Affects.NOTHING,
    )
    on_mismatch: OnMismatch = _option(
        "stop",
        "Action if the workers' networks differ in any bit: stop, or restart from the last checkpoint.",
        affects=Affects.NOTHING,
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def workers(self) -> WorkerRange:
        """Smallest and largest number of workers."""
        return WorkerRange.parse(self.num_workers)

    @property
    def placement_seconds(self) -> int:
        """Longest wait for placement."""
        return seconds_of(self.placement_timeout)

    @property
    def collective_seconds(self) -> int:
        """Longest wait of one worker for another."""
        return seconds_of(self.collective_timeout)
