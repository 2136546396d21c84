"""Speed of the input: training images from the storage to batches, read by all workers at once."""

import time

import torch

from inq_ray.benchmark.figures import Figure
from inq_ray.benchmark.subject import Subject
from inq_ray.benchmark.turns import meet
from inq_ray.distributed.replica import sum_counts
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.task.build import build_task


def measure_reading(subject: Subject) -> list[Figure]:
    """Return images per second of all workers; nothing for random images. Every rank calls it.

    Time counts from the first batch on, which waits for the start of loader processes.
    """
    if subject.source is None:
        return []
    config = subject.given
    device = subject.device if config.data.jpeg_decoder == "nvjpeg" else torch.device("cpu")
    task = build_task(config, device, source=subject.source, model=subject.task.model)
    task.loader.start()
    batches = TrainBatches(
        task=task,
        training=config.training,
        bad_images=BadImages(config.data.skip_bad_images),
        shuffle_buffer=config.data.shuffle_buffer,
        num_data_shards=config.cluster.workers.most,
    )
    meet(subject.device)
    speed = _images_per_second(batches, subject.settings.effort.input_seconds)
    speed = float(sum_counts(torch.tensor([speed], dtype=torch.float64)))
    return [Figure.of("input", [speed])]


def _images_per_second(batches: TrainBatches, seconds: float) -> float:
    """Read for so long, at least one batch more than the first; return this rank's images per second."""
    num_images, epoch = 0, 0
    began = ended = 0.0
    while not num_images or ended - began < seconds:
        for batch in batches.read(epoch, range(batches.steps_of_epoch)):
            if not began:
                began = time.perf_counter()
                continue
            num_images, ended = num_images + len(batch.labels), time.perf_counter()
            if ended - began >= seconds:
                break
        epoch += 1
    return num_images / (ended - began)
