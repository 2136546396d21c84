"""Where the result goes."""

import re
from dataclasses import dataclass

from inq_ray.training.config.checks import check_at_least
from inq_ray.training.config.duration import is_duration

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STEPS = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the result goes."""

    storage_path: str = "runs"
    """Folder of all runs; with several nodes one that all of them see."""
    name: str | None = None
    """Name of the run and of its folder; by default network, bits and time."""
    overwrite: bool = False
    """Delete an earlier run of the same name."""
    print_freq: int | None = None
    """Steps between printed lines of progress (also -p); by default a line a minute, or a live one on a terminal."""
    track: tuple[str, ...] = ()
    """Where metrics go beside the run's folder: tensorboard, mlflow, wandb."""
    checkpoint_every: str = "10m"
    """Time (30s, 10m, 2h) or steps (500) between checkpoints; there is one at each stage's two ends in any case."""
    checkpoint_path: str | None = None
    """Folder or address (s3://bucket/runs) for checkpoints; by default the run's own folder."""
    keep_checkpoints: int = 2
    """Checkpoints to keep beside those of each stage's end and the best one."""
    resume: str = "auto"
    """auto goes on with an unfinished run of the same name, never does not, a path goes on from that checkpoint."""

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(
                f"--name {self.name!r} is not allowed: take letters, digits, dots, dashes and underscores, "
                "and begin with a letter or digit"
            )
        if "://" in self.storage_path:
            raise ValueError(
                f"--storage-path must be a folder that every node sees, got the address {self.storage_path!r}"
            )
        check_at_least("--keep-checkpoints", self.keep_checkpoints, 1)
        if not (is_duration(self.checkpoint_every) or _STEPS.fullmatch(self.checkpoint_every)):
            raise ValueError(
                f"--checkpoint-every must be a time such as 30s, 10m or 2h, or a number of steps, got "
                f"{self.checkpoint_every!r}"
            )
        if self.print_freq is not None:
            check_at_least("--print-freq", self.print_freq, 1)
