"""A stage over ResNet-18's 11.68 M conv and linear weights on one core, against the limit and INQ-pytorch's method.

The limit is what any implementation has to do: select the threshold magnitude (by NumPy's partition), mark larger
weights, and round by bit patterns; without counting ties, checking for NaN, or keeping state. INQ-pytorch calls a
Python function for every weight: timed on 100,000 weights, and extrapolated. Then the message of a stage
between ranks, against a copy of the weights.

With --ranks ARCH, instead the CPU time of the four stages of a torchvision network on each of 1, 2 and 4 ranks (gloo,
one thread each) by what it is spent on, how often ranks gather to compare, and the message of that network. CPU time is
nearly the same on a busy machine.

    python benchmarks/bench_stage.py --ranks resnet50
"""

import argparse
import contextlib
import json
import math
import pkgutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
import torchvision
from timing import report, show
from torch import Tensor, multiprocessing

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.core.codebook import Codebook
from inq_ray.core.optim.sgd import SGD
from inq_ray.core.stage import StageUpdate, apply, decide
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import check_equal
from inq_ray.distributed.broadcast import decode, encode
from inq_ray.distributed.wire import gather_bytes, rank
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler

PORTIONS = (0.5, 0.75, 0.875, 1.0)
SAMPLE = 100_000
# What CPU time is spent on, by the function that does it; the rest is applying and checking for changes.
PARTS = {
    "decide": "inq_ray.scheduler.decide",
    "encode": "inq_ray.distributed.broadcast.encode",
    "decode": "inq_ray.distributed.broadcast.decode",
    "digests": "inq_ray.distributed.digest.fast_digests",
}


def weights_of(arch: str) -> list[Tensor]:
    """Return the weights of a torchvision network that are quantized, as initialized."""
    torch.manual_seed(0)
    return [param.detach() for param in torchvision.models.get_model(arch).parameters() if param.ndim > 1]


def run_stage(tensors: list[tuple[Tensor, TensorState]], stage: int, strategy: str) -> None:
    """Decide and apply one stage on every tensor."""
    for index, (weight, state) in enumerate(tensors):
        name = str(index)
        update = decide(weight, state, PORTIONS[stage], name=name, strategy=strategy, seed=0, stage=stage)
        apply(weight, state, update)


def before_stage(weights: list[Tensor], stage: int, strategy: str) -> list[tuple[Tensor, TensorState]]:
    """Return copies of the weights with their states at the beginning of `stage`."""
    tensors = [(weight.clone(), TensorState.live(weight, 5)) for weight in weights]
    for earlier in range(stage):
        run_stage(tensors, earlier, strategy)
    return tensors


def message(weights: list[Tensor], stage: int) -> tuple[dict[str, StageUpdate], dict[str, TensorState]]:
    """Return the decisions of a stage, and the states before it."""
    tensors = before_stage(weights, stage, "pruning")
    states = {str(index): state for index, (_, state) in enumerate(tensors)}
    updates = {
        name: decide(weight, states[name], PORTIONS[stage], name=name, strategy="pruning", seed=0, stage=stage)
        for name, (weight, _) in zip(states, tensors, strict=True)
    }
    return updates, states


def measure_messages(weights: list[Tensor], num_weights: int) -> None:
    """Print nanoseconds of CPU time per weight of the network, medians of seven rounds."""
    cases = {"copy": Case(lambda _: [weight.clone() for weight in weights])}
    for stage, portion in enumerate(PORTIONS):
        updates, states = message(weights, stage)
        encoded = encode(updates, states, None, stage=stage)
        cases[f"encode, stage to {portion}"] = Case(
            lambda _, updates=updates, states=states, stage=stage: encode(updates, states, None, stage=stage)
        )
        cases[f"decode, stage to {portion}"] = Case(lambda _, encoded=encoded, states=states: decode(encoded, states))
    seconds = take_turns(cases, num_rounds=7, clock=time.thread_time)
    copies = seconds["copy"]
    rows = [
        (
            name,
            f"{1e9 * statistics.median(times) / num_weights:.1f}",
            f"{statistics.median(each / copy for each, copy in zip(times, copies, strict=True)):.1f}",
        )
        for name, times in seconds.items()
    ]
    show("The message of a stage", ("", "ns per weight", "ratio to a copy"), rows)


def limit(weights: list[Tensor]) -> None:
    """Do the minimal work of a stage to 0.5."""
    for weight in weights:
        bits = weight.view(torch.int32).reshape(-1).numpy()
        magnitudes = bits & 0x7FFFFFFF
        place = magnitudes.size // 2
        threshold = np.partition(magnitudes, place)[place]
        frozen = magnitudes >= threshold
        # 1.5 2^k and above rounds up: adding half of a mantissa carries into the exponent, which alone is kept.
        levels = (bits + 0x00400000) & np.int32(-0x00800000)
        np.where(frozen, levels, bits)


def port_quantize(weight: float, n_1: int, n_2: int) -> float:
    """Round one weight by equation 4, level by level."""
    alpha, beta, magnitude = 0.0, 2.0**n_2, math.fabs(weight)
    level = 0.0
    for exponent in range(n_2, n_1 + 1):
        if (alpha + beta) / 2 <= magnitude < 3 * beta / 2:
            level = math.copysign(beta, weight)
        alpha, beta = beta, 2.0 ** (exponent + 1)
    return level


def in_the_manner_of_the_port(weight: Tensor) -> None:
    """Round weights (float32 [n]) in place, with one Python call each."""
    codebook = Codebook.for_weight(weight, 5)
    assert codebook.n_1 is not None
    assert codebook.n_2 is not None
    n_1, n_2 = codebook.n_1, codebook.n_2
    weight.apply_(lambda value: port_quantize(value, n_1, n_2))


@contextlib.contextmanager
def timed(seconds: Counter[str]) -> Iterator[None]:
    """Add the CPU seconds of each part during the block."""

    def timing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                seconds[name] += time.process_time() - began

        return run

    with contextlib.ExitStack() as stack:
        for name, path in PARTS.items():
            stack.enter_context(mock.patch(path, timing(name, pkgutil.resolve_name(path))))
        began = time.process_time()
        yield
        seconds["all"] += time.process_time() - began


@contextlib.contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    """Count messages that all ranks gather, and copies to the CPU, during the block."""
    gather, copy = dist.all_gather_into_tensor, Tensor.cpu

    def gathering(*args: Any) -> Any:
        counts["gathers"] += 1
        return gather(*args)

    def copying(tensor: Tensor) -> Tensor:
        counts["copies"] += 1
        return copy(tensor)

    with mock.patch.object(dist, "all_gather_into_tensor", gathering), mock.patch.object(Tensor, "cpu", copying):
        yield


def work(own_rank: int, num_ranks: int, arch: str, folder: str) -> None:
    """Run all stages on a rank; rank 0 prints the figures of all."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store-{num_ranks}", rank=own_rank, world_size=num_ranks)
    network = torchvision.models.get_model(arch)
    inq = INQScheduler(SGD(param_groups(network, 5), lr=0.1), PORTIONS)
    num_weights = sum(param.numel() for param in inq.quantized().values())
    seconds: Counter[str] = Counter()
    for _ in PORTIONS:
        with timed(seconds):
            inq.step()
    counts: Counter[str] = Counter()
    with counted(counts):
        check_equal(dict.fromkeys(inq.state, "same"), stage=None, what="entries")
    lines = gather_bytes(json.dumps([seconds, counts]).encode())
    if rank() == 0:
        print_ranks(f"{arch}, {num_weights / 1e6:.1f} M weights, {num_ranks} rank(s)", lines, num_weights)
    dist.destroy_process_group()


def print_ranks(title: str, lines: list[bytes], num_weights: int) -> None:
    """Print what each rank measured."""
    rows = []
    for number, (seconds, counts) in enumerate(map(json.loads, lines)):
        rest = seconds["all"] - sum(seconds.get(name, 0.0) for name in PARTS)
        times = [*(seconds.get(name, 0.0) for name in PARTS), rest, seconds["all"]]
        each = [f"{1e9 * value / num_weights / len(PORTIONS):.1f}" for value in times]
        rows.append((str(number), *each, str(counts.get("gathers", 0)), str(counts.get("copies", 0))))
    heads = ("rank", *PARTS, "rest", "all", "gathers of check_equal", "copies")
    show(f"CPU time of a stage, ns per weight of the network: {title}", heads, rows)


def measure_ranks(arch: str) -> None:
    """Measure the message and the stages of a network."""
    torch.set_num_threads(1)
    weights = weights_of(arch)
    measure_messages(weights, sum(weight.numel() for weight in weights))
    del weights
    with tempfile.TemporaryDirectory() as folder:
        for num_ranks in (1, 2, 4):
            multiprocessing.spawn(work, (num_ranks, arch, folder), nprocs=num_ranks)


def main() -> None:
    """Measure on one thread."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--ranks", metavar="ARCH")
    arch = parser.parse_known_args()[0].ranks
    if arch is not None:
        measure_ranks(arch)
        return
    weights = weights_of("resnet18")
    num_weights = sum(weight.numel() for weight in weights)
    sample = weights[-1].reshape(-1)[:SAMPLE]
    cases = {"limit": Case(lambda _: limit(weights))}
    for strategy in ("pruning", "random"):
        for stage, portion in enumerate(PORTIONS):
            cases[f"{strategy} to {portion}"] = Case(
                lambda tensors, stage=stage, strategy=strategy: run_stage(tensors, stage, strategy),
                lambda stage=stage, strategy=strategy: before_stage(weights, stage, strategy),
            )
    cases["port"] = Case(in_the_manner_of_the_port, sample.clone)
    seconds = take_turns(cases, num_rounds=5)
    seconds["port"] = [each * num_weights / SAMPLE for each in seconds["port"]]
    note = f" (extrapolated from {SAMPLE} weights)"
    report(f"A stage over {num_weights / 1e6:.2f} M weights", seconds, reference="limit", notes={"port": note})
    measure_messages(weights, num_weights)


if __name__ == "__main__":
    main()
