"""The parts of a benchmark, and their order."""

from collections.abc import Callable

import torch

from inq_ray.benchmark.checkpoint import measure_checkpoint
from inq_ray.benchmark.figures import Figure
from inq_ray.benchmark.link import measure_link
from inq_ray.benchmark.reading import measure_reading
from inq_ray.benchmark.stage import measure_stage
from inq_ray.benchmark.step import measure_step
from inq_ray.benchmark.subject import Settings, Subject, make_subject
from inq_ray.training.config import RunConfig

# What is measured first leaves the network as it is; the steps freeze it.
PARTS: dict[str, Callable[[Subject], list[Figure]]] = {
    "the link": measure_link,
    "stages": measure_stage,
    "checkpoints": measure_checkpoint,
    "input": measure_reading,
    "steps": measure_step,
}


def measure(
    config: RunConfig,
    settings: Settings,
    device: torch.device,
    *,
    tell: Callable[[str], None],
    wait_for: Callable[[str], None],
) -> list[Figure]:
    """Measure on all ranks; every rank calls it, and rank 0 gets all figures.

    Args:
        config: Configuration of the run.
        settings: Settings of the benchmark.
        device: Device of this rank.
        tell: Called with lines for the user.
        wait_for: Called with the part that is measured next.

    Raises:
        ValueError: Data or network do not exist on this machine, or a checkpoint cannot be written.
    """
    wait_for("opening data and network")
    subject = make_subject(config, settings, device, tell)
    figures: list[Figure] = []
    for name, part in PARTS.items():
        wait_for(f"measuring {name}")
        figures += part(subject)
    return figures
