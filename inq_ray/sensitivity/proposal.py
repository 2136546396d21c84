"""Bits of each layer for a wanted size or accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inq_ray.models.layer_bits import as_layer_bits
from inq_ray.sensitivity.allocation import allocations, bits_of
from inq_ray.sensitivity.measure import Measured
from inq_ray.sensitivity.probe import Probe, Score
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import portions
from inq_ray.training.flags.start import start_of, with_values

_PORTIONS = "quantization.iterative_steps"
# Sizes of an allocation and of its file differ by the index, by some bytes.
_TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Proposed bits, measured together.

    Attributes:
        bits: Bits by name of the parameter, in the order of the network.
        num_bytes: Bytes of the packed file before re-training.
        score: Score before re-training.
        mean_bits: Bits of a quantized weight, averaged over all of them.
    """

    bits: dict[str, int]
    num_bytes: int
    score: Score
    mean_bits: float

    @property
    def layer_bits(self) -> tuple[int, tuple[str, ...]]:
        """Values of --weight-bits and --layer-bits."""
        return as_layer_bits(self.bits)


def for_size(probe: Probe, measured: Measured, most_bytes: int, facts: Mapping[str, Any]) -> Proposal | None:
    """Return the bits of least divergence within a size of the packed file; None if it is too small for any.

    Args:
        probe: The network and the images.
        measured: Its sensitivity.
        most_bytes: Size of the file.
        facts: Facts of the file.
    """
    limit = most_bytes - measured.rest_bytes
    for _ in range(_TRIES):
        path = list(allocations(measured.choices(), limit))
        if not path:
            return None
        found = _measured(probe, bits_of(path[-1]), facts)
        if found.num_bytes <= most_bytes:
            return found
        limit -= found.num_bytes - most_bytes
    return None


def for_accuracy(probe: Probe, measured: Measured, top1: float, facts: Mapping[str, Any]) -> Proposal | None:
    """Return the smallest allocation with an accuracy before re-training; None if none has it.

    It is found by bisection, as if accuracy rose with size.

    Args:
        probe: The network and the images.
        measured: Its sensitivity.
        top1: Wanted accuracy, percent.
        facts: Facts of the file.
    """
    path = list(allocations(measured.choices()))
    low, high = 0, len(path)
    best: Proposal | None = None
    while low < high:
        middle = (low + high) // 2
        found = _measured(probe, bits_of(path[middle]), facts)
        if found.score.top1 >= top1:
            best, high = found, middle
        else:
            low = middle + 1
    return best


def recipe_of(
    proposal: Proposal, given: Mapping[str, Any], *, recipe_name: str | None = None, file: str | None = None
) -> RunConfig:
    """Return the configuration of a run with the proposed bits.

    Unless they are given, its portions are those of the network's recipe for the mean number of bits.

    Args:
        proposal: The proposal.
        given: Values that were typed, by dotted name.
        recipe_name: Value of --recipe.
        file: Value of --config.
    """
    weight_bits, layer_bits = proposal.layer_bits
    values = {
        "quantization.codebook": "mse",  # as measured
        **given,
        "quantization.weight_bits": weight_bits,
        "quantization.layer_bits": layer_bits,
    }
    start = start_of(values, recipe_name=recipe_name, file=file)
    if recipe_name is None and file is None and not given.get("quantization.post_training"):
        values = {_PORTIONS: portions(start.network.arch, round(proposal.mean_bits)), **values}
        start = start_of(values)
    return with_values(start, values)


def _measured(probe: Probe, bits: dict[str, int], facts: Mapping[str, Any]) -> Proposal:
    counts = {name: param.numel() for name, param in probe.params.items()}
    mean_bits = sum(counts[name] * bits[name] for name in bits) / sum(counts.values())
    with probe.quantized(bits) as states:
        size, score = probe.file_size(states, facts), probe.score()
    return Proposal(bits=bits, num_bytes=size, score=score, mean_bits=mean_bits)
