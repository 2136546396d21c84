"""Duration of a benchmark, estimated before it starts."""

import time

import torch
from torch import nn

from inq_ray.benchmark.advice import sizes_of
from inq_ray.benchmark.images import random_source
from inq_ray.benchmark.step import NONE, NUM_KINDS, num_all_steps, run_steps, trainer_of
from inq_ray.benchmark.subject import Effort, Settings, Subject
from inq_ray.data.image_set import SourceInfo
from inq_ray.training.config import RunConfig
from inq_ray.training.report.screen import duration
from inq_ray.training.task.build import build_task
from inq_ray.training.task.distill import make_teacher

# A step of so long shows the speed of a machine.
_STEP_SECONDS = 1.0
# BatchNorm refuses some batches of one image.
_FEWEST_IMAGES = 2


def estimate(config: RunConfig, model: nn.Module, info: SourceInfo, *, is_quick: bool, has_data: bool) -> str:
    """Return a line about the duration of all steps and of the input, by the speed of this machine.

    Args:
        config: Configuration of the run.
        model: Its network, on the CPU; a few steps change its BatchNorm statistics.
        info: Facts about the images.
        is_quick: Whether to use the fewest repetitions.
        has_data: Whether the input is measured.
    """
    sizes = sizes_of(*config.cluster.workers)
    settings = Settings(is_quick=is_quick, fingerprint=None, scratch="")
    effort = settings.effort
    workers = f"{', '.join(map(str, sizes))} worker{'s' if sizes[-1] > 1 else ''}"
    what = f"steps {'and input ' if has_data else ''}with {workers}"
    input_seconds = effort.input_seconds * len(sizes) * has_data
    if config.cluster.use_gpu:
        longest = effort.portion_seconds / (NUM_KINDS * effort.num_rounds)
        total = duration(input_seconds + sum(_all_seconds(effort, longest, num) for num in sizes))
        return (
            f"{what} take about {total} if a step takes up to {longest:g} s, else longer in proportion; the time of a "
            "step on a GPU is not known before the start"
        )
    num_images, seconds = _timed_step(config, model, info, settings)
    of_batch = seconds / num_images * config.training.batch_size
    total = duration(input_seconds + sum(_all_seconds(effort, of_batch / num, num) for num in sizes))
    return (
        f"{what} take about {total} by the speed of this machine: {seconds:.2g} s for a step of {num_images} images; "
        "the link, stages, checkpoints and Ray's start come on top"
    )


def _all_seconds(effort: Effort, step_seconds: float, num_workers: int) -> float:
    """Return the time of all steps with this number of workers."""
    return step_seconds * num_all_steps(effort, step_seconds, 1 if num_workers == 1 else NUM_KINDS)


def _timed_step(config: RunConfig, model: nn.Module, info: SourceInfo, settings: Settings) -> tuple[int, float]:
    """Return a number of images, and the seconds of a step with them on this machine.

    It is the largest worker's part of a batch, unless a step with fewer images takes long enough to be timed.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(config.cluster.cpus_per_worker)
    try:
        most = max(_FEWEST_IMAGES, config.training.batch_size // config.cluster.workers.least)
        seconds = _time_step(config, model, info, settings, _FEWEST_IMAGES)
        num_images = max(_FEWEST_IMAGES, min(most, int(_FEWEST_IMAGES * _STEP_SECONDS / seconds)))
        if num_images > _FEWEST_IMAGES:
            seconds = _time_step(config, model, info, settings, num_images)
        return num_images, seconds
    finally:
        torch.set_num_threads(num_threads)


def _time_step(config: RunConfig, model: nn.Module, info: SourceInfo, settings: Settings, num_images: int) -> float:
    """Return the seconds of the second step with so many images."""
    small = config.replace(
        cluster={"num_workers": 1},
        data={"loader_workers": 0, "holdout": 0},
        training={"batch_size": num_images, "accumulate": 1, "limit_batches": None, "compile": False},
    )
    source = random_source(small, info, num_train=num_images, num_made=num_images)
    task = build_task(small, torch.device("cpu"), model=model, source=source)
    subject = Subject(given=config, config=small, settings=settings, task=task, source=None, tell=lambda _: None)
    teacher = make_teacher(small.training, small.network.arch, task)
    trainer = trainer_of(subject, subject.optimizer(task.model), teacher)
    run_steps(trainer, NONE, 1)
    began = time.perf_counter()
    run_steps(trainer, NONE, 1)
    return time.perf_counter() - began
