"""Estimate of BatchNorm's running statistics, once weights are final or after a portion of them was quantized.

During training they are a moving average over the last steps, whose weights were still changing. A plain mean over many
batches, once the weights are final, is what the resulting network sees. Right after quantizing they are those of the
weights before.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inq_ray.distributed.replica import sum_counts
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.batches import TrainBatches, steps_for
from inq_ray.training.task.build import batchnorm_layers
from inq_ray.training.task.wrapping import synchronized


def images_of_estimate(training: TrainingConfig, steps_of_epoch: int, num_workers: int) -> int:
    """Return the number of images for --bn-images: with --sync-batchnorm those of all workers, else of the first."""
    shard = training.batch_size if training.sync_batchnorm else -(-training.batch_size // num_workers)
    return steps_for(training.bn_images, training, steps_of_epoch) * shard


def estimate_batchnorm(batches: TrainBatches, epoch: int, num_images: int) -> int:
    """Estimate the statistics from the first batches of an epoch; every rank calls it.

    Every rank runs its shard of each batch in --accumulate microbatches, as in training: this is what SyncBatchNorm
    expects, and fits into memory. Without it, statistics are each rank's own, and rank 0's are used, as after an epoch.
    Mixup and CutMix are applied as in training: scales and shifts were learned with statistics of mixed images; with
    unmixed ones a CIFAR-10 network trained with CutMix was 0.7 to 1.3 points worse.

    Args:
        batches: Training batches; the network is left in training mode.
        epoch: Epoch over the whole run, from 0, that was not trained yet.
        num_images: Number of images over all ranks: whole batches, rounded up, at most an epoch.

    Returns:
        Number of images in the estimate: of all ranks with SyncBatchNorm, else of this one.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not respond.
    """
    training, num_own = batches.training, 0

    def inputs() -> Iterator[Tensor]:
        nonlocal num_own
        for batch in batches.read(epoch, range(steps_for(num_images, training, batches.steps_of_epoch))):
            num_own += len(batch.labels)
            yield from (microbatch.inputs for microbatch in batches.microbatches(batch, epoch))

    estimate_from(synchronized(batches.task.model, sync_batchnorm=training.sync_batchnorm), inputs())
    batches.bad_images.agree()
    return int(sum_counts(torch.tensor([num_own])).item()) if training.sync_batchnorm else num_own


@torch.no_grad()
def estimate_from(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Set running statistics to the plain mean over these batches, in the network's own precision.

    Layers that no batch reaches keep their statistics.

    Args:
        model: Network, left in training mode.
        inputs: Inputs of the network.
    """
    layers = batchnorm_layers(model)
    before = [(layer, layer.momentum, _statistics(layer)) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's setting for a plain mean
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
