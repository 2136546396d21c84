"""Where it runs."""

from dataclasses import dataclass
from typing import Literal

from inq_ray.training.config.checks import check_at_least, check_choice
from inq_ray.training.config.duration import check_duration, seconds_of
from inq_ray.training.config.worker_range import WorkerRange

OnMismatch = Literal["stop", "restart"]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where it runs."""

    num_workers: int | str = 2
    """Processes that train together, one a GPU or CPU slot; of a range (2..8) as many as fit at each start."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    cpus_per_worker: int = 1
    """CPU cores, and threads, of a worker."""
    max_failures: int = 3
    """Times that a run goes on from its last checkpoint after a worker or a node was lost."""
    placement_timeout: str = "10m"
    """Time (30s, 10m, 2h) to wait at each start for a cluster to have room for the least number of workers."""
    collective_timeout: str = "30m"
    """Time after which a worker that does not answer is taken for lost."""
    on_mismatch: OnMismatch = "stop"
    """If the workers' networks are no longer the same bits: stop, or restart from the last checkpoint."""

    def __post_init__(self) -> None:
        check_at_least("--max-failures", self.max_failures, 0)
        workers = WorkerRange.parse(self.num_workers)
        object.__setattr__(self, "num_workers", workers.most if workers.least == workers.most else str(workers))
        check_at_least("--cpus-per-worker", self.cpus_per_worker, 1)
        check_duration("--placement-timeout", self.placement_timeout)
        check_duration("--collective-timeout", self.collective_timeout)
        check_choice("--on-mismatch", self.on_mismatch, OnMismatch)

    @property
    def workers(self) -> WorkerRange:
        """The least and the most workers."""
        return WorkerRange.parse(self.num_workers)

    @property
    def placement_seconds(self) -> int:
        """The bound of waiting for room."""
        return seconds_of(self.placement_timeout)

    @property
    def collective_seconds(self) -> int:
        """The bound of every wait of one worker for another."""
        return seconds_of(self.collective_timeout)
