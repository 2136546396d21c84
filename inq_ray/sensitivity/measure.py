"""Measurement of the sensitivity of each layer, alone and cumulatively."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inq_ray.files.shown import counted
from inq_ray.sensitivity.allocation import Choice
from inq_ray.sensitivity.probe import Probe, Score, num_code_bytes


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Sensitivity of all layers.

    Attributes:
        scores: Scores with one layer quantized, by name and bits; layers in the order of the network.
        num_bytes: Bytes of its codes in the packed file, likewise.
        ranking: Names, the most sensitive first: by divergence at the fewest bits.
        cumulative: Scores with a layer and all less sensitive ones quantized, by bits and name, in the order of
            `ranking`.
        rest_bytes: Bytes of the packed file in addition to the codes, about.
    """

    scores: dict[str, dict[int, Score]]
    num_bytes: dict[str, dict[int, int]]
    ranking: tuple[str, ...]
    cumulative: dict[int, dict[str, Score]]
    rest_bytes: int

    @property
    def bits(self) -> list[int]:
        """Bits that were tried, ascending."""
        return sorted(self.cumulative)

    def uniform(self, num_bits: int) -> tuple[int, Score]:
        """Return about how large the packed file is with the same bits in all layers, and the score."""
        num_bytes = self.rest_bytes + sum(sizes[num_bits] for sizes in self.num_bytes.values())
        return num_bytes, self.cumulative[num_bits][self.ranking[0]]

    def choices(self) -> dict[str, list[Choice]]:
        """Return the choices of each layer for an allocation."""
        return {
            name: [Choice(bits, self.num_bytes[name][bits], score.divergence) for bits, score in scores.items()]
            for name, scores in self.scores.items()
        }


def measure(probe: Probe, bits: Sequence[int], facts: dict[str, Any], tell: Callable[[str], None]) -> Measured:
    """Measure each layer alone at each number of bits, then cumulatively, the least sensitive layers first.

    Args:
        probe: The network and the images.
        bits: Numbers of bits, distinct.
        facts: Facts of the packed file, for its size.
        tell: Called with a line about the cost, and one for each number of bits.
    """
    bits, names = sorted(bits), list(probe.params)
    scores: dict[str, dict[int, Score]] = {name: {} for name in names}
    num_bytes: dict[str, dict[int, int]] = {name: {} for name in names}
    began = time.perf_counter()
    for index, num_bits in enumerate(bits):
        for name in names:
            with probe.quantized({name: num_bits}) as states:
                scores[name][num_bits] = probe.score()
                num_bytes[name][num_bits] = num_code_bytes(states[name])
            if index == 0 and name == names[0]:
                tell(_cost(probe, len(names), len(bits), time.perf_counter() - began))
        tell(f"{num_bits} bits: each of {len(names)} layers measured alone")
    ranking = tuple(sorted(names, key=lambda name: -scores[name][bits[0]].divergence))
    cumulative = {}
    for num_bits in bits:
        found = zip(ranking[::-1], probe.cumulative(ranking[::-1], num_bits), strict=True)
        cumulative[num_bits] = dict(list(found)[::-1])
        tell(f"{num_bits} bits: measured cumulatively, the least sensitive layers first")
    with probe.quantized(dict.fromkeys(names, bits[0])) as states:
        rest_bytes = probe.file_size(states, facts) - sum(num_code_bytes(state) for state in states.values())
    return Measured(scores=scores, num_bytes=num_bytes, ranking=ranking, cumulative=cumulative, rest_bytes=rest_bytes)


def _cost(probe: Probe, num_layers: int, num_widths: int, seconds: float) -> str:
    """Return a line with the number of networks and the estimated time, from that of the first."""
    num_networks = 2 * num_layers * num_widths
    times = num_networks
    if probe.rounding.calibration is not None:  # all layers so far are calibrated again for each cumulative score
        times = num_widths * (num_layers + num_layers * (num_layers + 1) // 2)
    return (
        f"{counted(num_networks, 'network')} to measure: {counted(num_layers, 'layer')} at {num_widths} numbers of "
        f"bits, alone and cumulatively; about {max(1, round(times * seconds / 60))} min on this machine"
    )
