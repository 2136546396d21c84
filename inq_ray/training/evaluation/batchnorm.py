"""Running statistics of BatchNorm, estimated anew once no weight moves any more.

While a network trains they are a moving average over its last steps, of weights that were still moving. Where nothing
moves any more, a plain mean over many batches is what the network that is left sees.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inq_ray.data.loader import train_requests
from inq_ray.distributed.replica import sum_counts
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.config import RunConfig, TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.build import make_mix, steps_of_epoch
from inq_ray.training.loop.microbatches import parts_of
from inq_ray.training.loop.step_rng import seed_draws
from inq_ray.training.task.build import Task, batchnorm_layers
from inq_ray.training.task.wrapping import synchronized


def steps_of_estimate(training: TrainingConfig, steps_of_epoch: int) -> int:
    """Global batches that --bn-images come to: whole ones, rounded up, at most an epoch."""
    return min(-(-training.bn_images // training.batch_size), steps_of_epoch)


def images_of_estimate(config: RunConfig, steps_of_epoch: int) -> int:
    """Images whose statistics the network gets: of all workers with --sync-batchnorm, else of the first of the most."""
    share = config.training.batch_size
    if not config.training.sync_batchnorm:
        share = -(-share // config.cluster.workers.most)
    return steps_of_estimate(config.training, steps_of_epoch) * share


def estimate_batchnorm(config: RunConfig, task: Task, *, epoch: int, order_workers: int, bad_images: BadImages) -> int:
    """Estimates the statistics from the batches with which an epoch begins; every rank calls it.

    Every rank runs its part of each batch, as it does in training, in the parts that --accumulate asks for: so
    SyncBatchNorm finds all ranks, and memory is enough. Without it each rank has statistics of its own images
    afterwards, of which rank 0's are taken, as after an epoch. Mixup and cutmix mix them as in training: scales and
    shifts were learned behind statistics of mixed images, and with those of unmixed ones a CIFAR-10 network that had
    learned by cutmix was 0.7 to 1.3 points worse.

    Args:
        config: of the run.
        task: network and data; the network is left in training mode.
        epoch: counted over the whole run, from 0: one that was not trained.
        order_workers: ranks for which the order of samples is laid out.
        bad_images: counts what cannot be read.

    Returns:
        Images that count: of all ranks with SyncBatchNorm, else of this one.

    Raises:
        ValueError: more images than allowed cannot be read, or the storage does not answer.
    """
    training = config.training
    num_steps = steps_of_estimate(training, steps_of_epoch(config, task))
    requests = train_requests(
        task.loader.sets["train"],
        task.train_indices,
        batch_size=training.batch_size,
        rank=rank(),
        world_size=world_size(),
        seed=training.seed,
        epoch=epoch,
        steps=range(num_steps),
        buffer=config.data.shuffle_buffer,
        num_data_shards=order_workers,
    )

    mix = make_mix(training, task.info.num_classes)
    num_images = 0

    def inputs() -> Iterable[Tensor]:
        nonlocal num_images
        for batch in task.loader.batches(requests):
            bad_images.add(batch.bad)
            seed_draws(task.to_input.device, training.seed, epoch, batch.step, rank())
            num_images += len(batch.labels)
            labels = batch.labels.to(task.to_input.device, non_blocking=True)
            for place, images, part_labels in parts_of(batch, labels, training):
                part = task.to_input(images)
                yield part if mix is None else mix(part, part_labels, (training.seed, epoch, place, rank()))[0]

    estimate_from(synchronized(task.model, sync_batchnorm=training.sync_batchnorm), inputs())
    bad_images.agree()
    return int(sum_counts(torch.tensor([num_images])).item()) if training.sync_batchnorm else num_images


@torch.no_grad()
def estimate_from(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Makes running statistics the plain mean of those of these batches, in the network's own precision.

    A layer that no batch comes through keeps what it had.

    Args:
        model: left in training mode.
        inputs: what the network takes.
    """
    layers = batchnorm_layers(model)
    before = [(layer, layer.momentum, _statistics(layer)) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean
    model.train()
    for batch in inputs:
        model(batch)
    for layer, momentum, statistics in before:
        layer.momentum = momentum
        if not int(layer.num_batches_tracked or 0):
            for buffer, value in zip(layer.buffers(recurse=False), statistics, strict=True):
                buffer.copy_(value)


def _statistics(layer: _BatchNorm) -> list[Tensor]:
    return [buffer.clone() for buffer in layer.buffers(recurse=False)]
