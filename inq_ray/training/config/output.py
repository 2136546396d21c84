"""Options for the output of a run."""

import functools
import re
from dataclasses import dataclass

from inq_ray.files.shown import quoted
from inq_ray.training.config.checks import count
from inq_ray.training.config.duration import check_duration_or_steps
from inq_ray.training.config.option import Affects, Phase, check_options, option

AUTO = "auto"
NEVER = "never"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_option = functools.partial(option, affects=Affects.NOTHING, phase=Phase.TRAINING, sweep=False)


def _check_name(flag: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{flag} {quoted(name)} is not allowed: use at most 128 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit"
        )
    return name


def _check_folder(flag: str, path: str) -> str:
    if "://" in path:
        raise ValueError(f"{flag} must be a folder that every node can access, got the address {quoted(path)}")
    return path


def _is_never_a_name(_: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Output of a run."""

    storage_path: str = _option(
        "runs",
        "Folder of all runs; with several nodes a shared one.",
        aliases=("--log-dir",),
        check=_check_folder,
        path=_is_never_a_name,
        phase=Phase.ALWAYS,  # also holds the index of a folder of images
    )
    name: str | None = _option(
        None, "Name of the run and its folder; default: network, bits and time.", check=_check_name, is_first=True
    )
    overwrite: bool = _option(False, "Delete an earlier run of the same name.")
    print_freq: int | None = _option(
        None,
        "Steps between printed progress lines; default: one line per minute, or a live line on a terminal.",
        aliases=("-p",),
        check=count(1),
    )
    track: tuple[str, ...] = _option(
        (),
        "Trackers that receive the metrics, such as tensorboard; see docs/metrics.md.",
    )
    checkpoint_every: str = _option(
        "10m",
        "Time (30s, 10m, 2h) or steps (500) between checkpoints; there is always one at each stage's start and end.",
        check=check_duration_or_steps,
    )
    checkpoint_path: str | None = _option(
        None,
        "Folder or address (s3://bucket/runs) for checkpoints; default: the run's own folder.",
        path=_is_never_a_name,
    )
    keep_checkpoints: int = _option(
        2, "Number of checkpoints to keep, in addition to each stage's last and the best one.", check=count(1)
    )
    resume: str = _option(
        AUTO,
        "Checkpoint to start from: auto, the last of an unfinished run of the name; never, none (an existing run is "
        "refused); or a path.",
        path=lambda value: value in (AUTO, NEVER),
    )

    def __post_init__(self) -> None:
        check_options(self)
