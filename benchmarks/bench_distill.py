"""What --distill adds to a training step: the teacher's forward pass, in bf16, beside the same step by labels alone.

cifar_resnet20 on made images of 32 pixels, batch 128, in float32 and in bf16: a GPU where there is one, else a thread.
The limit is the same network's forward pass alone, in bf16 and without gradients, over the same batches.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from bench_step import MadeImages, ignore
from timing import Case, report, take_turns
from torch.optim.lr_scheduler import LambdaLR

from inq_ray.core.sgd import SGD
from inq_ray.data.image_set import SourceInfo
from inq_ray.data.loader import Loader
from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.bad_images import BadImages
from inq_ray.training.bf16_network import Bf16Network
from inq_ray.training.build import Task
from inq_ray.training.config import TrainingConfig
from inq_ray.training.distill import Teacher
from inq_ray.training.loop import Trainer
from inq_ray.training.model_input import ModelInput
from inq_ray.training.wrapping import wrap

BATCH_SIZE, NUM_STEPS, NUM_ROUNDS = 128, 4, 12
PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


def make_task(device: torch.device) -> Task:
    """The network with fresh weights, and images that cost nothing to read."""
    generator = torch.Generator().manual_seed(0)
    images = MadeImages(
        torch.randint(256, (BATCH_SIZE, 3, 32, 32), generator=generator, dtype=torch.uint8),
        torch.randint(10, (BATCH_SIZE,), generator=generator),
        BATCH_SIZE * NUM_STEPS,
    )
    info = SourceInfo(
        name="made", num_classes=10, class_names=(), channels=3, height=32, width=32,
        num_train=images.num, num_test=0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), fingerprint="",
    )  # fmt: skip
    torch.manual_seed(0)
    return Task(
        model=create("cifar_resnet20", num_classes=10).to(device),
        info=info,
        loader=Loader({"train": images}, pin_memory=device.type == "cuda"),
        train_indices=torch.arange(images.num),
        validation_indices=torch.arange(0),
        to_input=ModelInput(torch.tensor(info.mean), torch.tensor(info.std), device, torch.contiguous_format),
    )


def epoch(device: torch.device, dtype: torch.dtype | None, *, is_distilled: bool) -> Callable[[Any], None]:
    """NUM_STEPS steps of a stage that has frozen half of the weights."""
    task = make_task(device)
    teacher = Teacher(model=copy.deepcopy(task.model).requires_grad_(False).eval(), temperature=3.0, labels=0.3)
    optimizer = SGD(param_groups(task.model, 5), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)
    INQScheduler(optimizer, (0.5,)).step()
    trainer = Trainer(
        task=task,
        training=TrainingConfig(batch_size=BATCH_SIZE),
        num_steps=NUM_STEPS,
        shuffle_buffer=1,
        model=wrap(task.model, device),
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, lambda _: 1.0),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        autocast_dtype=dtype,
        mix=None,
        ema=None,
        bad_images=BadImages(0),
        teacher=teacher if is_distilled else None,
    )

    def run(_: Any) -> None:
        trainer.train_epoch(0, ignore)
        settle(device)

    return run


def forward(device: torch.device) -> Callable[[Any], None]:
    """NUM_STEPS forward passes of a teacher."""
    network = Bf16Network(make_task(device).model.requires_grad_(False).eval())
    inputs = torch.randn(BATCH_SIZE, 3, 32, 32, device=device)

    def run(_: Any) -> None:
        for _step in range(NUM_STEPS):
            network(inputs)
        settle(device)

    return run


def settle(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measures and prints, a table for each precision of the student."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    for name, dtype in PRECISIONS.items():
        seconds = take_turns(
            {
                "by labels": Case(epoch(device, dtype, is_distilled=False)),
                "distilled": Case(epoch(device, dtype, is_distilled=True)),
                "the teacher's pass": Case(forward(device)),
            },
            NUM_ROUNDS,
        )
        per_step = {case: [each / NUM_STEPS for each in times] for case, times in seconds.items()}
        report(
            f"A step of cifar_resnet20 in {name}, batch {BATCH_SIZE}, {device.type}",
            per_step,
            reference="by labels",
            notes={},
        )


if __name__ == "__main__":
    main()
