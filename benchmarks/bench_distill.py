"""Cost of --distill per training step: the teacher's forward pass, in bf16, compared with a step with labels only.

cifar_resnet20 on generated images of 32 pixels, batch 128, half of the weights frozen, in float32 and in bf16, on a GPU
if there is one, else on one thread. The limit is the teacher's forward pass alone on the same number of images.
"""

from collections.abc import Callable

import torch
from bench_step import Setup, make_task, ours, seconds_per_step
from timing import report

from inq_ray.training.task.autocast_cache import Bf16Network

SETUP = Setup(
    arch="cifar_resnet20", size=32, layout=torch.contiguous_format, images_per_rank=128, num_steps=4, num_rounds=12
)
PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


def forward(device: torch.device) -> Callable[[], None]:
    """Return a function that runs as many forward passes of a teacher as a run has steps."""
    network = Bf16Network(make_task(SETUP, device).model.requires_grad_(False).eval())
    inputs = torch.randn(SETUP.batch_size, 3, SETUP.size, SETUP.size, device=device)

    def run() -> None:
        for _ in range(SETUP.num_steps):
            network(inputs)

    return run


def main() -> None:
    """Measure and print a table for each precision of the student."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    for name, dtype in PRECISIONS.items():
        runs = {
            "by labels": ours(SETUP, device, 0.5, dtype)[0],
            "distilled": ours(SETUP, device, 0.5, dtype, is_distilled=True)[0],
            "the teacher's pass": forward(device),
        }
        title = f"A step of {SETUP.arch} in {name}, batch {SETUP.batch_size}, {device.type}"
        report(title, seconds_per_step(runs, SETUP, device), reference="by labels", notes={})


if __name__ == "__main__":
    main()
