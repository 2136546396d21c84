"""Loss and accuracy over a whole set; each sample is counted once at any number of ranks."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from inq_ray.data.loader import Batch, eval_requests
from inq_ray.distributed.replica import broadcast_tensors, sum_counts
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.class_order import MOST_CLASSES, confusion, renamed_classes
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.task.build import Task, build_task
from inq_ray.training.task.determinism import set_deterministic
from inq_ray.training.task.model_input import ModelInput


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    to_input: ModelInput,
    bad_images: BadImages,
    *,
    order_of: int | None = None,
) -> Accuracy:
    """Evaluate in float32; every rank calls it with its own batches and gets the sums over all ranks.

    Args:
        model: Unwrapped network (no DDP), on the device of ``to_input``; left in evaluation mode.
        batches: This rank's shard of the set; batches do not depend on the number of ranks.
        to_input: Transform from uint8 images to the network's input.
        bad_images: Counts unreadable images.
        order_of: Number of classes whose order is checked; None = the order is not checked.

    Raises:
        ValueError: More images than allowed cannot be read, or none can.
    """
    model.eval()
    has_order = order_of is not None and order_of <= MOST_CLASSES
    confused = torch.zeros((order_of or 0,) * 2 if has_order else (0, 0), dtype=torch.int64, device=to_input.device)
    counts = torch.zeros(3, dtype=torch.int64, device=to_input.device)
    loss = torch.zeros(1, dtype=torch.float64, device=to_input.device)
    with torch.inference_mode():
        for batch in batches:
            bad_images.add(batch.bad)
            if not len(batch.labels):
                continue
            labels = batch.labels.to(to_input.device, non_blocking=True)
            logits = model(to_input(batch.images)).float()
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").double()
            counts += _counts(logits, labels)
            if has_order:
                confused += confusion(logits, labels)
    bad_images.agree()
    num_samples, num_top1, num_top5 = sum_counts(counts).tolist()
    if num_samples == 0:
        raise ValueError("no validation image could be read")
    mean_loss = sum_counts(loss).item() / num_samples
    accuracy = Accuracy(num_samples=num_samples, num_top1=num_top1, num_top5=num_top5, loss=mean_loss)
    if has_order:
        confused = sum_counts(confused).cpu()
        if renamed := renamed_classes(confused):
            gain = sum(int(confused[label, other] - confused[label, label]) for label, other in renamed)
            accuracy = dataclasses.replace(accuracy, num_top1_renamed=num_top1 + gain, renamed=renamed)
    return accuracy


def _counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Return int64 [3]: samples, hits of the largest logit, hits of the five largest."""
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack([labels.new_tensor(len(labels)), hits[:, 0].sum(), hits.sum()])


def validate(task: Task, bad_images: BadImages, *, limit_batches: int | None, checks_order: bool = False) -> Accuracy:
    """Return the accuracy of the current network; every rank calls it, with the same buffers.

    Args:
        task: Network and data.
        bad_images: Counts unreadable images.
        limit_batches: Maximum number of batches of the set; None = all.
        checks_order: Whether to check if the network knows the classes in another order.

    Raises:
        ValueError: More images than allowed cannot be read, or none can.
    """
    requests = eval_requests(task.validation_indices, rank=rank(), world_size=world_size(), limit=limit_batches)
    order_of = task.info.num_classes if checks_order else None
    return evaluate(task.model, task.loader.batches(requests), task.to_input, bad_images, order_of=order_of)


def evaluate_only(
    config: RunConfig, *, device: torch.device, fingerprint: str | None = None, model: nn.Module | None = None
) -> Accuracy:
    """Return the accuracy of a configuration's network without training; every rank calls it.

    Args:
        config: Configuration that passed :func:`inq_ray.training.task.check.check`.
        device: Device of this rank.
        fingerprint: Fingerprint that the data must have, if known.
        model: Another network to evaluate on the configuration's data.

    Raises:
        ValueError: Data or weights do not exist on this machine, or images cannot be read.
    """
    set_deterministic()
    task = build_task(config, device, evaluate=True, fingerprint=fingerprint, model=model)
    broadcast_tensors(task.model.state_dict())
    bad_images, limit_batches = BadImages(config.data.skip_bad_images), config.training.limit_batches
    return validate(task, bad_images, limit_batches=limit_batches, checks_order=True)
