"""Training images for calibration: their moments for a stage, or the images for post-training quantization."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.distributed.replica import broadcast_tensors, of_rank_0
from inq_ray.distributed.wire import rank
from inq_ray.training.loop.batches import TrainBatches, steps_for


@torch.no_grad()
def gather_moments(batches: TrainBatches, epoch: int, num_images: int, params: Mapping[str, Tensor]) -> Moments:
    """Run training images through the network with its current weights, and return the moments; every rank calls it.

    The images are the first ones of an epoch with its augmentation: whole batches, rounded up, at most an epoch.
    Each rank runs its shard. BatchNorm uses its running statistics, which do not change.

    Args:
        batches: Batches of training; the network's mode does not change.
        epoch: Epoch over the whole run, from 0.
        num_images: Number of images over all ranks.
        params: Parameters for whose layers' inputs moments are computed, by name.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not answer.
    """
    model = batches.task.model
    was_training = model.training
    model.eval()
    with Moments(model, params) as moments:
        for batch in batches.read(epoch, range(steps_for(num_images, batches.training, batches.steps_of_epoch))):
            for microbatch in batches.microbatches(batch, epoch):
                model(microbatch.inputs)
    model.train(was_training)
    batches.bad_images.agree()
    return moments


def calibration_images(batches: TrainBatches, epoch: int, num_images: int) -> list[Tensor]:
    """Return inputs of the network, the same on every rank: rank 0's shard of an epoch's first images.

    Args:
        batches: Batches of training.
        epoch: Epoch over the whole run, from 0.
        num_images: Number of images over all ranks.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not answer.
    """
    own = [
        microbatch.inputs
        for batch in batches.read(epoch, range(steps_for(num_images, batches.training, batches.steps_of_epoch)))
        for microbatch in batches.microbatches(batch, epoch)
    ]
    batches.bad_images.agree()
    device, images = batches.task.to_input.device, []
    for index in range(int(of_rank_0(torch.tensor(len(own))))):
        shape = of_rank_0(torch.tensor(own[index].shape if rank() == 0 else (0, 0, 0, 0))).tolist()
        image = own[index].contiguous() if rank() == 0 else torch.empty(shape, device=device)
        broadcast_tensors({"images": image})
        images.append(image)
    return images
