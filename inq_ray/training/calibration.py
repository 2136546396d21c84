"""Calibration on training images: moments for a stage, or post-training quantization of the whole network."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inq_ray.core.moments import Moments
from inq_ray.core.stage import StageUpdate
from inq_ray.core.state import TensorState
from inq_ray.distributed.broadcast import StageError, broadcast_stage, error_in_words
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import rank
from inq_ray.post_training import PostTraining, quantize_params_
from inq_ray.scheduler import INQScheduler
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
    """Return inputs of the network: rank 0's shard of an epoch's first images, nothing on other ranks.

    Every rank calls it.

    Args:
        batches: Batches of training.
        epoch: Epoch over the whole run, from 0.
        num_images: Number of images over all ranks.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not answer.
    """
    num_steps = steps_for(num_images, batches.training, batches.steps_of_epoch) if rank() == 0 else 0
    images = [
        microbatch.inputs
        for batch in batches.read(epoch, range(num_steps))
        for microbatch in batches.microbatches(batch, epoch)
    ]
    batches.bad_images.agree()
    return images


def quantize_at_once(
    batches: TrainBatches, inq: INQScheduler, *, epoch: int, num_images: int, keep_zeros: bool
) -> PostTraining | None:
    """Quantize all weights without training, as a scheduler's first stage; every rank calls it.

    Rank 0 alone computes, on its shard of an epoch's first images. The others take its weights, biases and statistics,
    and the scheduler compares weights and codes of all ranks.

    Args:
        batches: Batches of training.
        inq: The scheduler, before its first stage.
        epoch: Epoch over the whole run, from 0.
        num_images: Number of images over all ranks.
        keep_zeros: Whether weights that are 0 stay 0.

    Returns:
        Rank 0's result; None on other ranks.

    Raises:
        ValueError: More images than allowed cannot be read, or the storage does not answer.
        StageError: Rank 0 could not quantize the network; raised on every rank.
        ReplicaMismatchError: The ranks do not have the same bits afterwards; raised on every rank.
    """
    model = batches.task.model
    images = calibration_images(batches, epoch, num_images)
    done, updates = None, None
    error: Exception | None = None
    words: str | None = None
    if rank() == 0:
        try:
            done = quantize_params_(model, images, inq.quantized(), inq.state, keep_zeros=keep_zeros)
            updates = {name: StageUpdate(each.codebook, each.frozen, each.codes) for name, each in done.state.items()}
        except Exception as caught:  # noqa: BLE001  # any error has to reach the ranks that wait for the result
            error, words = caught, error_in_words(caught)
    try:
        updates = broadcast_stage(updates, inq.state, words, stage=inq.stage + 1)
    except StageError as shared:
        raise shared from error
    broadcast_tensors({**dict(model.named_parameters()), **dict(model.named_buffers())})
    inq.adopt({name: TensorState(each.codebook, each.newly_frozen, each.codes) for name, each in updates.items()})
    return done
