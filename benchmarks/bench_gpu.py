"""Training on one GPU against plain torch, as tables in Markdown: images/s, the optimizer's step, gather and scatter.

The loops are those of bench_step.py: "torch" is the usual five lines with torch.optim.SGD(fused=True), "ours" is
Trainer.train_epoch with an inq_ray.SGD, both in bf16 and channels_last. For ResNet-50 images are made once, and the
loader's time is not measured; for ResNet-20 they are 50,000 in memory, cropped and mirrored, as for CIFAR-10. JPEGs of
ImageNet's usual size are decoded by nvJPEG, and by one core of the CPU; reading them is not measured.
Alternatives take turns, and figures are medians over the rounds.
"""

import dataclasses
import io
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from bench_step import Setup, autocast_dtype, make_task, meet, ours, torchs
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchvision.transforms.v2.functional import to_pil_image

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.augment.image_transform import ImageTransform
from inq_ray.data.encoded import Encoded
from inq_ray.data.encoded_set import EncodedSet
from inq_ray.data.jpeg_set import JpegSet
from inq_ray.data.loader import Loader
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.training.task.build import Task
from inq_ray.training.task.device_images import keep_on_device

PORTIONS = (0.5, 0.875)
# Parts of a training step that a CUDA graph replays; --cuda-graphs replays the whole of it.
GRAPHS: tuple[Literal["passes", "step"], ...] = ("passes", "step")
RESNET50 = Setup(arch="resnet50", images_per_rank=256, num_steps=10, num_rounds=5)
RESNET20 = Setup(arch="cifar_resnet20", size=32, images_per_rank=128, num_steps=100, num_rounds=5)
NUM_CIFAR = 50_000
# Entries of 100 MB of float32 gradients.
NUM_ENTRIES = 25_000_000
NUM_ROUNDS = 20
NUM_JPEGS = 256

Run = tuple[Callable[[], None], torch.optim.Optimizer]


def print_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table in Markdown, whose first column is text."""
    heads = list(heads)
    for cells in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def medians(runs: Mapping[str, Callable[[], object]], device: torch.device, num_rounds: int) -> dict[str, float]:
    """Return the median of each run's seconds, until the device is done."""
    cases = {name: Case(lambda _, run=run: (run(), meet(device)), lambda: meet(device)) for name, run in runs.items()}
    return {name: statistics.median(times) for name, times in take_turns(cases, num_rounds).items()}


def in_memory(setup: Setup, device: torch.device, num_images: int, *, on_device: bool) -> Task:
    """Return a network and images in memory, of the CPU or of the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_images, 3, setup.size, setup.size), generator=generator, dtype=torch.uint8)
    split = ImageSet(images, torch.arange(num_images) % 10, CropFlip(padding=setup.size // 8, flip=True))
    task = dataclasses.replace(
        make_task(setup, device),
        loader=Loader({"train": split}, pin_memory=device.type == "cuda"),
        train_indices=torch.arange(num_images),
    )
    if on_device:
        task, line = keep_on_device(task, num_free=100 * images.nbytes)
        assert "kept on the GPU" in line, line
    # The epoch is as long as a run of the benchmark.
    return dataclasses.replace(task, train_indices=task.train_indices[: setup.num_steps * setup.batch_size])


def speeds(title: str, runs: Mapping[str, Run], setup: Setup, device: torch.device, *, epoch: int | None) -> None:
    """Print images/s, and epochs a minute if an epoch has `epoch` images; the first run is the reference."""
    seconds = medians({name: run for name, (run, _) in runs.items()}, device, setup.num_rounds)
    base = next(iter(seconds.values()))
    rows = []
    for name, each in seconds.items():
        speed = setup.num_steps * setup.batch_size / each
        epochs = [] if epoch is None else [f"{60 * speed / epoch:.1f}"]
        rows.append([name, f"{speed:,.0f}", *epochs, f"{base / each:.2f}"])
    print_table([title, "images/s", *([] if epoch is None else ["epochs/min"]), "ratio"], rows)


def optimizer_steps(title: str, runs: Mapping[str, Run], device: torch.device) -> None:
    """Print the time and the launches of the optimizer's step alone, on the last gradients."""
    optimizers = {name: optimizer for name, (_, optimizer) in runs.items()}
    seconds = medians({name: each.step for name, each in optimizers.items()}, device, NUM_ROUNDS)
    base = next(iter(seconds.values()))
    rows = [
        [name, f"{1000 * each:.3f}", f"{each / base:.2f}", str(num_launches(optimizers[name].step, device))]
        for name, each in seconds.items()
    ]
    print_table([title, "ms", "ratio", "launches"], rows)


def num_launches(function: Callable[[], object], device: torch.device) -> int:
    """Return the number of kernel launches of a call; 0 on a CPU."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiled:
        function()
        meet(device)
    return sum(event.name.startswith(("cudaLaunch", "cuLaunch")) for event in profiled.events() or ())


def gather_scatter(num_entries: int, device: torch.device) -> None:
    """Print the time to take live gradients out of a buffer by their positions, and to put them back."""
    buffer = torch.randn(num_entries, device=device)
    rows = []
    for portion in PORTIONS:
        positions = (torch.rand(num_entries, device=device) >= portion).nonzero().squeeze(1)
        values = buffer.index_select(0, positions)

        def gather(positions: Tensor = positions) -> Tensor:
            return buffer.index_select(0, positions)

        def scatter(positions: Tensor = positions, values: Tensor = values) -> Tensor:
            return buffer.zero_().index_copy_(0, positions, values)

        seconds = medians({"gather": gather, "scatter": scatter}, device, NUM_ROUNDS)
        rows.append([f"{portion:g} frozen", *(f"{1000 * each * 25e6 / num_entries:.3f}" for each in seconds.values())])
    print_table(["ms per 100 MB of gradients", "gather", "scatter"], rows)


@dataclasses.dataclass(frozen=True)
class Jpegs:
    """A JPEG in memory, read again and again."""

    data: bytes
    num_images: int

    @property
    def groups(self) -> None:
        """None: memory can be read in any order."""
        return

    def __len__(self) -> int:
        return self.num_images

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Return the same file for each sample."""
        return [Encoded("", self.data, 0) for _ in samples]


def decoding(device: torch.device, num_images: int) -> None:
    """Print images/s of decoding and transforming JPEGs by one core of the CPU and by the device."""
    rows, columns = (torch.linspace(0, 60, side).sin() for side in (375, 500))
    waves = 128 + 60 * (rows[:, None] + columns) + 8 * torch.randn(3, 375, 500)
    file = io.BytesIO()
    to_pil_image(waves.clamp(0, 255).byte()).save(file, "JPEG", quality=90)
    on_cpu = EncodedSet(Jpegs(file.getvalue(), num_images), ImageTransform(Preprocessing(), Augmentation()))
    by_device, indices = JpegSet(on_cpu, device), torch.arange(num_images)
    table = []
    for name, augment in (("training", (0, 0)), ("validation", None)):
        read = by_device.read(indices, augment)
        runs: dict[str, Callable[[], object]] = {
            "the CPU": lambda augment=augment: on_cpu.fetch(indices, augment),
            "the loader's part": lambda augment=augment: by_device.read(indices, augment),
            "nvJPEG": lambda read=read: by_device.decode(read),
        }
        seconds = medians(runs, device, 5)
        table.append([name, *(f"{num_images / each:,.0f}" for each in seconds.values())])
    print_table([f"JPEGs/s, {len(file.getvalue()) / 1000:.0f} kB", *runs], table)


def measure(
    device: torch.device,
    resnet50: Setup = RESNET50,
    resnet20: Setup = RESNET20,
    num_cifar: int = NUM_CIFAR,
    num_entries: int = NUM_ENTRIES,
    num_jpegs: int = NUM_JPEGS,
) -> None:
    """Measure all on a device, and print the tables."""
    dtype, has_graphs = autocast_dtype(device), device.type == "cuda"
    runs = {
        "torch": torchs(resnet50, device),
        **{f"ours, {part:g} frozen": ours(resnet50, device, part, dtype) for part in PORTIONS},
    }
    speeds(f"{resnet50.arch}, batch {resnet50.batch_size}", runs, resnet50, device, epoch=None)
    optimizer_steps(f"optimizer step, {resnet50.arch}", runs, device)
    del runs
    on_cpu, on_device = (
        lambda: in_memory(resnet20, device, num_cifar, on_device=False),
        lambda: in_memory(resnet20, device, num_cifar, on_device=True),
    )
    runs = {
        "torch, images on the CPU": torchs(resnet20, device, on_cpu()),
        "torch, images on the GPU": torchs(resnet20, device, on_device()),
        "ours, images on the CPU": ours(resnet20, device, 0.5, dtype, task=on_cpu()),
        "ours, images on the GPU": ours(resnet20, device, 0.5, dtype, task=on_device()),
        **{
            f"ours, images on the GPU, graph of {what}": ours(
                resnet20, device, 0.5, dtype, task=on_device(), graph=what if has_graphs else "none"
            )
            for what in GRAPHS
        },
    }
    title = f"{resnet20.arch}, batch {resnet20.batch_size}, 0.5 frozen"
    speeds(title, runs, resnet20, device, epoch=num_cifar)
    optimizer_steps(f"optimizer step, {resnet20.arch}", runs, device)
    gather_scatter(num_entries, device)
    decoding(device, num_jpegs)


def main() -> None:
    """Measure on the first GPU."""
    if not torch.cuda.is_available():
        sys.exit("bench_gpu.py needs a GPU, and torch finds none on this machine: run it on one that has a GPU")
    device = torch.device("cuda", 0)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, one process\n")
    measure(device)


if __name__ == "__main__":
    main()
