"""A stage over ResNet-18's 11.68 M conv and linear weights on one core, against the limit and INQ-pytorch's method.

The limit is what any implementation has to do: select the threshold magnitude (by NumPy's partition), mark larger
weights, and round by bit patterns; without counting ties, checking for NaN, or keeping state. INQ-pytorch calls a
Python function for every weight: timed on 100,000 weights, and extrapolated. Then the message of a stage
between ranks, against a copy of the weights.
"""

import math
import statistics

import numpy as np
import torch
import torchvision
from timing import report, show
from torch import Tensor

from inq_ray.benchmark.turns import Case, take_turns
from inq_ray.core.codebook import Codebook
from inq_ray.core.stage import StageUpdate, apply, decide
from inq_ray.core.state import TensorState
from inq_ray.distributed.broadcast import decode, encode

PORTIONS = (0.5, 0.75, 0.875, 1.0)
SAMPLE = 100_000


def resnet18_weights() -> list[Tensor]:
    """Return the weights of ResNet-18 that are quantized, as initialized."""
    torch.manual_seed(0)
    return [param.detach() for param in torchvision.models.resnet18().parameters() if param.ndim > 1]


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
    """Print nanoseconds per weight of the network, medians of seven rounds."""
    cases = {"copy": Case(lambda _: [weight.clone() for weight in weights])}
    for stage, portion in enumerate(PORTIONS):
        updates, states = message(weights, stage)
        encoded = encode(updates, states, None, stage=stage)
        cases[f"encode, stage to {portion}"] = Case(
            lambda _, updates=updates, states=states, stage=stage: encode(updates, states, None, stage=stage)
        )
        cases[f"decode, stage to {portion}"] = Case(lambda _, encoded=encoded, states=states: decode(encoded, states))
    seconds = take_turns(cases, num_rounds=7)
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


def main() -> None:
    """Measure on one thread."""
    torch.set_num_threads(1)
    weights = resnet18_weights()
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
