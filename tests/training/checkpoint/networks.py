"""Runs in the middle: networks partly frozen, with momentum, averages and rows, as a checkpoint meets them."""

from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.wire import bytes_to_tensor, rank, world_size
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.facts import Facts, History, Seconds, StageFacts
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import MODEL, SUMS, Parts, Snapshot, take
from inq_ray.training.checkpoint.stored import stored_snapshot, whole
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.ema import Ema
from inq_ray.training.report.events import Row

CLASSES = 3
SUMS_OF_ONE = torch.tensor([[0.1, 2.0, 12.0]], dtype=torch.float64)
ROW = Row(stage=1, portion=0.5, epoch=1, top1=51.5, top5=90.25, loss=float("nan"), validation_seconds=0.25, lr=0.1)


def make_network(seed: int = 0, dropout: float = 0.3, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Convolution, BatchNorm, dropout and a layer that shares nothing; in channels_last as networks train here."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * 4, CLASSES),
    )
    return network.to(dtype=dtype, memory_format=torch.channels_last)


def lr_factor(step: int) -> float:
    return 1 / (1 + step / 3)


def make_parts(
    network: nn.Module, *, is_quantized: bool = True, ema_decay: float | None = 0.9, fused: bool = True, **sgd: Any
) -> Parts:
    """The objects of a phase, as a run makes them."""
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, **sgd}
    if is_quantized:
        optimizer = SGD(param_groups(network, 4), fused=fused, **options)
        inq = INQScheduler(optimizer, (0.5, 0.8, 1.0))
    else:
        optimizer, inq = SGD(network.parameters(), fused=fused, **options), None
    return Parts(
        model=network,
        optimizer=optimizer,
        inq=inq,
        lr_scheduler=LambdaLR(optimizer, lr_factor),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        ema=None if ema_decay is None else Ema(network, ema_decay),
    )


def begin_stage(parts: Parts, ema_decay: float | None = 0.9) -> Parts:
    """The parts after the next stage's quantization."""
    assert parts.inq is not None
    assert parts.optimizer is not None
    parts.inq.step()
    stop_gradients(parts)
    scheduler = LambdaLR(parts.optimizer, lr_factor)
    return replace(parts, lr_scheduler=scheduler, ema=None if ema_decay is None else Ema(parts.model, ema_decay))


def stop_gradients(parts: Parts) -> None:
    assert parts.inq is not None
    for name, param in parts.inq.quantized().items():
        param.requires_grad_(not bool(parts.inq.state[name].frozen.all()))


def images_of(step: int, num: int = 12) -> tuple[Tensor, Tensor]:
    """This rank's part of a global batch: a function of the step alone."""
    generator = torch.Generator().manual_seed(1000 + step)
    images = torch.randn(num, 3, 6, 6, generator=generator)
    labels = torch.randint(0, CLASSES, (num,), generator=generator)
    mine = slice(rank(), num, world_size())
    return images[mine].contiguous(memory_format=torch.channels_last), labels[mine]


def wrapped(network: nn.Module) -> nn.Module:
    """The network as ranks train it together, its buckets settled by two passes that leave nothing behind.

    DDP rebuilds its buckets after the first backward, and with three ranks or more the order of a sum follows an
    element's position in its bucket.
    """
    if world_size() == 1:
        return network
    model = DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    model.train()
    for _ in range(2):
        model(images_of(0)[0]).sum().backward()
        network.zero_grad(set_to_none=True)
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])
    return model


def train_step(parts: Parts, model: nn.Module, step: int) -> Tensor:
    """A step as the trainer does it, of which each draws its dropout anew; returns loss, hits and samples."""
    torch.manual_seed(1000 * step + rank())
    images, labels = images_of(step)
    images = images.to(next(parts.model.parameters()).dtype)
    model.train()
    assert parts.optimizer is not None
    assert parts.lr_scheduler is not None
    parts.optimizer.zero_grad(set_to_none=True)
    logits = model(images).float()
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    parts.optimizer.step()
    parts.lr_scheduler.step()
    if parts.ema is not None:
        parts.ema.update()
    hits = (logits.detach().argmax(1) == labels).sum()
    return torch.stack([loss.detach().double(), hits.double(), hits.new_tensor(len(labels)).double()])


def make_history(**changes: Any) -> History:
    values: dict[str, Any] = {
        "epochs_done": 2,
        "rows": (ROW, replace(ROW, epoch=2, loss=0.5, top1=100 / 3)),
        "bad_images": {"train/a/x.jpg": "is cut short"},
        "seconds": Seconds(run=61.0, epoch=1.5, data=0.25),
    }
    return History(**{**values, **changes})


def simple(position: TrainingPosition, value: float = 0.0, num: int = 100) -> Snapshot:
    """A snapshot of one tensor, as a run of many epochs could take it, that is quick to make."""
    stages = StageFacts(stage=position.stage, portions=(0.5, 0.8, 1.0), strategy="pruning", seed=0, tensors={})
    facts = Facts(
        position=position,
        epochs_done=position.epoch,
        seconds=Seconds(run=float(value), epoch=0.0, data=0.0),
        rows=(replace(ROW, loss=0.5),) * position.epoch,
        bad_images={},
        inq=stages if position.stage else None,
        groups=(),
        lr_scheduler=None,
        scaler=None,
        has_ema=False,
        config=RunConfig().replace(training={"float_epochs": 1000, "epochs": 1000}),
        fingerprint=None,
        versions={"inq_ray": "0", "torch": "0", "python": "0"},
        world_size=1,
    )
    tensors = {f"{MODEL}weight": torch.full((num,), float(value)), SUMS: torch.zeros(1, 3, dtype=torch.float64)}
    return Snapshot(tensors, facts)


def value_of(snapshot: Snapshot | None) -> float | None:
    """The value with which :func:`simple` was called."""
    return None if snapshot is None else snapshot.facts.seconds.run


def make_snapshot(position: TrainingPosition | None = None, stages: int = 1, seed: int = 0, **parts: Any) -> Snapshot:
    """A snapshot after some stages of two steps each."""
    made = make_parts(make_network(seed), **parts)
    for _ in range(stages):
        made = begin_stage(made)
        for step in range(2):
            train_step(made, made.model, step)
    return snapshot_of(made, position or TrainingPosition(stage=stages, epoch=0, step=2))


class BytesBlocks:
    """A file in memory, in blocks that end within tensors."""

    def __init__(self, data: bytes, block_bytes: int = 200) -> None:
        self.data, self.num_bytes, self.block_bytes = data, len(data), block_bytes
        self.indices: list[int] = []

    def read(self, index: int) -> Tensor:
        self.indices.append(index)
        start = index * self.block_bytes
        return bytes_to_tensor(self.data[start : start + self.block_bytes])


def stored(packed: Snapshot) -> Snapshot:
    """A compact snapshot as it is found in a file."""
    tensors = {name: tensor.contiguous() for name, tensor in packed.tensors.items()}
    return stored_snapshot(BytesBlocks(safetensors.torch.save(tensors)), packed.facts)


def expand(packed: Snapshot) -> Snapshot:
    """The argument of `compact`, read from a file."""
    snapshot = stored(packed)
    return Snapshot(whole(snapshot), snapshot.facts)


def snapshot_of(parts: Parts, position: TrainingPosition, config: RunConfig | None = None) -> Snapshot:
    return take(parts, make_history(), SUMS_OF_ONE, position=position, config=config or RunConfig(), fingerprint="0")


def snapshot_bits(snapshot: Snapshot) -> dict[str, tuple[torch.dtype, list[int], bytes]]:
    """Everything that makes tensors equal, whatever their memory format."""
    return {
        name: (tensor.dtype, list(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in snapshot.tensors.items()
    }
