"""A training step of this package against the same DDP loop in plain torch, in turns, at increasing frozen portions.

On CPUs ResNet-18 in float32, two ranks of one thread over gloo. On GPUs ResNet-18 and ResNet-50 in bf16 and
channels_last, one rank per GPU, over nccl if there are several.

"Torch" is a network in DDP, torch.optim.SGD(fused=True), and the usual five lines; "ours" is Trainer.train_epoch with
an inq_ray.SGD. Both use the same batches from the same loader and the same normalization. A run is a few steps between
two barriers, and takes as long as its slowest rank.
"""

import copy
import functools
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from timing import report
from torch import multiprocessing, nn
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.benchmark.images import RandomImages
from inq_ray.benchmark.turns import Case, meet, take_turns, together
from inq_ray.core.optim.sgd import SGD
from inq_ray.data.image_set import SourceInfo
from inq_ray.data.loader import Batch, Loader, train_requests
from inq_ray.distributed.wire import rank, world_size
from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.cuda_graph import CudaGraph, state_of_step
from inq_ray.training.loop.device_rates import DeviceRates
from inq_ray.training.loop.trainer import Trainer
from inq_ray.training.task.build import Task
from inq_ray.training.task.distill import Teacher
from inq_ray.training.task.model_input import ModelInput
from inq_ray.training.task.wrapping import wrap

PORTIONS = (0.5, 0.875)
CLASSES = 1000
OPTIONS = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4, "fused": True}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A measured setup: network, images per rank and step, their size and layout, steps per run, and rounds."""

    arch: str
    size: int = 224
    layout: torch.memory_format = torch.channels_last
    images_per_rank: int
    num_steps: int
    num_rounds: int

    @property
    def batch_size(self) -> int:
        """Batch size over all ranks."""
        return self.images_per_rank * world_size()


ON_CPU = [Setup(arch="resnet18", images_per_rank=8, num_steps=2, num_rounds=8)]
ON_GPU = [
    Setup(arch="resnet18", images_per_rank=256, num_steps=40, num_rounds=10),
    Setup(arch="resnet50", images_per_rank=256, num_steps=20, num_rounds=10),
]


def make_task(setup: Setup, device: torch.device) -> Task:
    """Return a network with random weights, the same on every rank, and generated images."""
    num, generator = setup.batch_size * setup.num_steps, torch.Generator().manual_seed(rank())
    made = torch.randint(
        256, (setup.images_per_rank, 3, setup.size, setup.size), generator=generator, dtype=torch.uint8
    )
    images = RandomImages(made, num)
    info = SourceInfo(
        name="made", num_classes=CLASSES, class_names=(), channels=3, height=setup.size, width=setup.size,
        num_train=num, num_test=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), fingerprint="",
    )  # fmt: skip
    torch.manual_seed(0)
    return Task(
        model=create(setup.arch, num_classes=CLASSES).to(device, memory_format=setup.layout),
        info=info,
        loader=Loader({"train": images}, pin_memory=device.type == "cuda"),
        train_indices=torch.arange(num),
        validation_indices=torch.arange(0),
        to_input=ModelInput(torch.tensor(info.mean), torch.tensor(info.std), device, setup.layout),
    )


def ours(
    setup: Setup,
    device: torch.device,
    portion: float,
    dtype: torch.dtype | None,
    *,
    is_distilled: bool = False,
    task: Task | None = None,
    graph: Literal["none", "passes", "step"] = "none",
) -> tuple[Callable[[], None], torch.optim.Optimizer]:
    """Return a run of Trainer.train_epoch with this portion of the weights frozen, and its optimizer.

    Args:
        setup: The measured setup.
        device: Device of the network.
        portion: Portion of frozen weights.
        dtype: Dtype of the forward pass; None = float32.
        is_distilled: Whether there is a teacher, of the same architecture.
        task: Network and data; None = that of `make_task`.
        graph: What a CUDA graph replays: nothing, forward and backward passes, or the whole step.
    """
    task = task or make_task(setup, device)
    teacher = None
    if is_distilled:
        teacher = Teacher(model=copy.deepcopy(task.model).requires_grad_(False).eval(), temperature=3.0, labels=0.3)
    optimizer = SGD(param_groups(task.model, 5), **OPTIONS)
    INQScheduler(optimizer, (portion,)).step()
    state = functools.partial(state_of_step, task.model, optimizer, None)
    trainer = Trainer(
        batches=TrainBatches(task=task, training=TrainingConfig(batch_size=setup.batch_size), bad_images=BadImages(0)),
        model=wrap(task.model, device),
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, lambda _: 1.0),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        autocast_dtype=dtype,
        teacher=teacher,
        graph=None if graph == "none" else CudaGraph(task.model, state),
        rates=DeviceRates(optimizer, device) if graph == "step" else None,
    )

    def run() -> None:
        trainer.train_epoch(0, ignore)

    return run, optimizer


def ignore(*_: Any) -> None:
    """Ignore progress."""


def torchs(
    setup: Setup, device: torch.device, task: Task | None = None
) -> tuple[Callable[[], None], torch.optim.Optimizer]:
    """Return a run of the same loop in plain torch, and its optimizer."""
    task = task or make_task(setup, device)
    model = wrap(task.model, device)
    optimizer = torch.optim.SGD(task.model.parameters(), **OPTIONS)

    def run() -> None:
        model.train()
        for batch in batches(task, setup):
            labels = batch.labels.to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, autocast_dtype(device), enabled=autocast_dtype(device) is not None):
                loss = nn.functional.cross_entropy(model(task.to_input(batch.images)).float(), labels)
            loss.backward()
            optimizer.step()

    return run, optimizer


def batches(task: Task, setup: Setup) -> Iterator[Batch]:
    """Yield an epoch, as Trainer reads it."""
    requests = train_requests(
        task.loader.sets["train"], task.train_indices, batch_size=setup.batch_size, rank=rank(),
        world_size=world_size(), seed=0, epoch=0, steps=range(setup.num_steps), buffer=1,
    )  # fmt: skip
    return task.loader.batches(requests)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bf16 on GPUs, else None."""
    return torch.bfloat16 if device.type == "cuda" else None


def seconds_per_step(
    runs: Mapping[str, Callable[[], None]], setup: Setup, device: torch.device
) -> dict[str, list[float]]:
    """Run the cases in turns, each between two barriers, so that every rank measures the time of the slowest."""
    seconds = take_turns({name: together(run, device) for name, run in runs.items()}, setup.num_rounds)
    return {name: [each / setup.num_steps for each in times] for name, times in seconds.items()}


def measure(setup: Setup, device: torch.device) -> None:
    """Measure, and print on rank 0."""
    made = {
        "torch": torchs(setup, device),
        **{f"ours, {part:g} frozen": ours(setup, device, part, autocast_dtype(device)) for part in PORTIONS},
    }
    per_step = seconds_per_step({name: run for name, (run, _) in made.items()}, setup, device)
    steps = take_turns(
        {name: Case(optimizer_step(optimizer, device), lambda: meet(device)) for name, (_, optimizer) in made.items()},
        setup.num_rounds,
    )
    if rank() > 0:
        return
    where = f"{world_size()} x {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}"
    notes = {
        name: f" ({setup.batch_size / statistics.median(times):,.1f} images/s)" for name, times in per_step.items()
    }
    report(f"A step of {setup.arch}, batch {setup.batch_size}, {where}", per_step, reference="torch", notes=notes)
    report("Of it the optimizer's step", steps, reference="torch", notes={})


def optimizer_step(optimizer: torch.optim.Optimizer, device: torch.device) -> Callable[[Any], None]:
    """Return the optimizer's step alone, on the last gradients."""

    def step(_: Any) -> None:
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def work(place: int, num_ranks: int, store: str, setups: list[Setup]) -> None:
    """Run one rank."""
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", place) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    dist.init_process_group(
        "nccl" if has_gpu else "gloo", store=dist.FileStore(store, num_ranks), rank=place, world_size=num_ranks
    )
    for setup in setups:
        measure(setup, device)
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks: two on CPUs, one per GPU."""
    num_ranks, setups = (torch.cuda.device_count(), ON_GPU) if torch.cuda.is_available() else (2, ON_CPU)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (num_ranks, str(Path(folder, "store")), setups), nprocs=num_ranks)
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
