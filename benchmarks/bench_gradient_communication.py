"""The exchange of ResNet-18's gradients between two ranks, at increasing portions of frozen weights, in turns.

"Dense" is DDP alone, "bf16" torch's bf16_compress_hook, "live" inq_ray.LiveGradients, "live + bf16" that in bf16, and
"auto, dense" our hook that sends all gradients, as after --gradient-communication auto has chosen that. The passes
compute next to nothing (the loss is the sum of all parameters), and the time of one that sends nothing is subtracted,
so that the rest is the exchange: copying gradients into buckets, gathering, sending, scattering. The fastest pass of
each kind counts.

Alone it starts two ranks on this machine. With RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set it is one of two, on
hosts that have a link between them; then bytes on that link (GLOO_SOCKET_IFNAME) are counted too.
"""

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timing import show
from torch import Tensor, multiprocessing, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from inq_ray.benchmark.subject import PORTIONS
from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.replica import largest
from inq_ray.distributed.wire import rank
from inq_ray.models.registry import create
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler

NUM_RANKS = 2
NUM_ROUNDS = 8


class Sum(nn.Module):
    """Sum of a network's parameters: their gradients cost next to nothing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self) -> Tensor:
        """Return the sum."""
        return torch.stack([param.sum() for param in self.network.parameters()]).sum()


def frozen_network(portion: float) -> tuple[nn.Module, SGD]:
    """Return ResNet-18 with this portion of its weights frozen, and its optimizer."""
    torch.manual_seed(0)
    network = create("resnet18", num_classes=1000)
    optimizer = SGD(param_groups(network, 5), lr=0.1)
    if portion:
        INQScheduler(optimizer, (portion,)).step()
    return network, optimizer


def exchange(name: str, portion: float) -> Callable[[Any], None]:
    """Return a pass that exchanges the gradients of all parameters in the named way."""
    network, optimizer = frozen_network(portion)
    live = LiveGradients(optimizer, torch.bfloat16 if name == "live + bf16" else None)
    live.is_on = name != "auto, dense"
    model = DistributedDataParallel(Sum(network), gradient_as_bucket_view=True)
    if name != "dense":
        model.register_comm_hook(None, bf16_compress_hook if name == "bf16" else live.all_reduce)

    def run(_: Any) -> None:
        model.zero_grad(set_to_none=True)
        with model.no_sync() if name == "nothing" else contextlib.nullcontext():
            model().backward()

    for _ in range(3):  # buckets are rebuilt and positions found
        run(None)
    return run


def sent_bytes() -> int:
    """Return the bytes that this host has sent on the link between the ranks."""
    link = os.environ["GLOO_SOCKET_IFNAME"]
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.split(":")[0].strip() == link)


def handed_over(run: Callable[[Any], None]) -> tuple[int, int]:
    """Return the bytes that a pass hands to all_reduce, and those that this host sends for it."""
    counts: list[int] = []
    all_reduce = dist.all_reduce

    def counting(tensor: Tensor, *args: Any, **options: Any) -> Any:
        counts.append(tensor.nbytes)
        return all_reduce(tensor, *args, **options)

    dist.all_reduce = counting
    before = sent_bytes()
    run(None)
    dist.all_reduce = all_reduce
    return sum(counts), sent_bytes() - before


def meet() -> None:
    """Wait for the other rank."""
    largest(torch.zeros(1))


def measure(portion: float) -> list[tuple[str, ...]]:
    """Return the rows of a portion."""
    names = ("dense", "auto, dense", "bf16", "live", "live + bf16")
    runs = {name: exchange(name, portion) for name in ("nothing", *names)}
    num_all = sum(param.numel() for param in frozen_network(0.0)[0].parameters())
    num_bytes: dict[str, tuple[int, int]] = {}
    for name in names:
        meet()
        handed, sent = handed_over(runs[name])
        num_bytes[name] = (handed or 4 * num_all, sent)  # DDP alone calls no hook
    passes = take_turns({name: Case(run, meet) for name, run in runs.items()}, NUM_ROUNDS)
    seconds = {name: min(passes[name]) - min(passes["nothing"]) for name in names}
    dense = num_bytes["dense"]
    return [
        (
            f"{portion:g}",
            name,
            f"{num_bytes[name][0] / 1e6:.2f}",
            f"{num_bytes[name][0] / dense[0]:.3f}",
            f"{num_bytes[name][1] / dense[1]:.3f}",
            f"{1000 * seconds[name]:.1f}",
            f"{seconds['dense'] / seconds[name]:.2f}",
            f"{seconds['bf16'] / seconds[name]:.2f}",
        )
        for name in names
    ]


def work(place: int, store: str | None) -> None:
    """Run one rank, and print on rank 0."""
    torch.set_num_threads(1)
    os.environ.setdefault(
        "GLOO_SOCKET_IFNAME", next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    )
    if store is None:
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.FileStore(store, NUM_RANKS), rank=place, world_size=NUM_RANKS)
    rows = [row for portion in PORTIONS for row in measure(portion)]
    if rank() == 0:
        heads = ("frozen", "", "MB a step", "of dense", "on the link", "ms", "dense / it", "bf16 / it")
        show("Exchange of the gradients of ResNet-18, 2 ranks of one thread", heads, rows)
    dist.destroy_process_group()


def main() -> None:
    """Be one of two ranks, or start both."""
    if "RANK" in os.environ:
        work(int(os.environ["RANK"]), None)
        return
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (str(Path(folder, "store")),), nprocs=NUM_RANKS)


if __name__ == "__main__":
    main()
