"""From a configuration to the network and the images of a measurement."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray.data.image_set import SourceInfo
from inq_ray.data.loader import eval_requests
from inq_ray.models.layer_weights import named_parameters
from inq_ray.models.selection import check_used_as_stored
from inq_ray.sensitivity.probe import Probe, Rounding
from inq_ray.training.calibration import calibration_images
from inq_ray.training.config import RunConfig
from inq_ray.training.facts import result_facts
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.task.build import Task, build_task
from inq_ray.training.task.check import check
from inq_ray.training.task.determinism import set_deterministic
from inq_ray.training.task.groups import groups_of, quantized_names


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network and images, ready to be measured.

    Attributes:
        probe: The network and the images.
        info: Facts about the data.
        facts: Facts of the packed file of a result.
        images: What images are used, in words.
        num_images: Number of images.
        notes: Lines about the data, and about files that contain several networks.
    """

    probe: Probe
    info: SourceInfo
    facts: dict[str, Any]
    images: str
    num_images: int
    notes: tuple[str, ...]


def prepare(config: RunConfig, num_images: int) -> Prepared:
    """Check a configuration, and read its network and images.

    Args:
        config: Configuration with the network's trained weights.
        num_images: Number of validation images, at most all.

    Raises:
        ValueError: One line that names what was given and what to do.
    """
    notes: list[str] = []
    quantization, is_calibrated = config.quantization, config.quantization.post_training
    if config.network.weights is None:
        raise ValueError("a trained network is measured: name the file of its weights by --weights")
    if config.cluster.use_gpu and not torch.cuda.is_available():
        raise ValueError("--use-gpu: this machine has no GPU; leave it out to measure on the CPU")
    source, _ = check(config, evaluate=not is_calibrated, tell=notes.append)
    set_deterministic()
    device = torch.device("cuda" if config.cluster.use_gpu else "cpu")
    task = build_task(config, device, evaluate=not is_calibrated, fingerprint=source.info.fingerprint)
    task.model.eval()
    bad_images = BadImages(config.data.skip_bad_images)
    images, labels = _read(task, num_images, bad_images)
    chosen = quantized_names(groups_of(task.model, config))
    check_used_as_stored(task.model, chosen, task.to_input(images[0][:2]))
    calibration = None
    if is_calibrated:
        batches = TrainBatches(task=task, training=config.training, bad_images=bad_images)
        calibration = calibration_images(batches, 0, quantization.calibration_images)
    probe = Probe(
        task.model,
        _params(task.model, chosen),
        lambda: map(task.to_input, images),
        labels,
        Rounding(
            levels=quantization.levels,
            codebook_per=quantization.codebook_per,
            rule=quantization.codebook,
            calibration=calibration,
            keep_zeros=quantization.keep_zeros,
        ),
    )
    where = "held-out training images" if config.data.holdout else "images of the test set"
    unknown = dict.fromkeys(("top1", "top5", "float_top1", "float_top5", "measured_on"), 0.0)
    return Prepared(
        probe=probe,
        info=source.info,
        facts=result_facts(config, task, unknown, ""),
        images=f"{len(labels):,} of {len(task.validation_indices):,} {where}, evenly spaced",
        num_images=len(labels),
        notes=(*source.notes, *notes),
    )


def _read(task: Task, num_images: int, bad_images: BadImages) -> tuple[list[Tensor], Tensor]:
    """Return the batches of images (uint8 [n, C, H, W]), and all labels.

    The images are evenly spaced, so that no class is left out if they are in the order of classes.
    """
    total = len(task.validation_indices)
    count = min(num_images, total)
    indices = task.validation_indices[torch.arange(count) * total // count]
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in task.loader.batches(eval_requests(indices, rank=0, world_size=1)):
        bad_images.add(batch.bad)
        if len(batch.labels):
            images.append(batch.images.cpu())  # those of --jpeg-decoder nvjpeg are on the GPU
            labels.append(batch.labels)
    if not images:
        raise ValueError("no validation image could be read")
    return images, torch.cat(labels)


def _params(model: nn.Module, chosen: list[str]) -> dict[str, nn.Parameter]:
    """Return the parameters to quantize by name, in the order of the network."""
    names = set(chosen)
    return {name: param for name, param in named_parameters(model) if name in names}
