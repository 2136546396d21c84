"""Moments of layers' inputs over training images, by which a stage's live weights compensate."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.training.loop.batches import TrainBatches


@torch.no_grad()
def gather_moments(batches: TrainBatches, epoch: int, num_images: int, params: Mapping[str, Tensor]) -> Moments:
    """Run training images through the network as it is now, and return the moments; call it on every rank.

    They are the images with which an epoch begins, with its augmentation: whole batches, rounded up, at most an epoch.
    Each rank runs its shard. BatchNorm uses its running statistics, which stay as they are.

    Args:
        batches: Batches of training; the network's mode stays as it is.
        epoch: Epoch over the whole run, from 0.
        num_images: Number of images of all ranks.
        params: Parameters whose layers' inputs are wanted, by name.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not answer.
    """
    model = batches.task.model
    steps = min(-(-num_images // batches.training.batch_size), batches.steps_of_epoch)
    was_training = model.training
    model.eval()
    with Moments(model, params) as moments:
        for batch in batches.read(epoch, range(steps)):
            for microbatch in batches.microbatches(batch, epoch):
                model(microbatch.inputs)
    model.train(was_training)
    batches.bad_images.agree()
    return moments
