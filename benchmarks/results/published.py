"""Published results of ResNet-20 on CIFAR-10, next to ours."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.results.groups import Group, main_of_each
from benchmarks.results.tables import table

_QN = "[Quantization Networks](https://github.com/haoyz/quantization-networks-cifar10), a re-implementation"
_QN_UNLIKE = "first convolution and last linear layer float; 200 epochs; best epoch by test images; one seed"
_APOT = "[APoT](https://github.com/yhhhli/APoT_Quantization)"
_APOT_UNLIKE = "activations quantized too; each width starts from the wider one"
_INTRO = """\
Published results of ResNet-20 on CIFAR-10. Float networks differ, so compare the changes. "Levels" are the values that
a quantized weight can have, up to a scale."""


class Published(NamedTuple):
    """A published result.

    Attributes:
        bits: Bits of a weight.
        levels: Number and kind of its levels.
        method: Name of the method, with a link to the source.
        float_top1: Top-1 of the float network, in percent.
        top1: Top-1 of the quantized network, in percent.
        unlike: How the method differs from ours.
    """

    bits: int
    levels: str
    method: str
    float_top1: float
    top1: float
    unlike: str


_PUBLISHED = [
    Published(
        5,
        "single powers of two",
        "[DeepShift-Q](https://github.com/mostafaelhoushi/DeepShift)",
        91.79,
        89.85,
        "trained from scratch (its README has no ResNet-20 that starts from a float network)",
    ),
    Published(4, "15 uniform", _QN, 92.08, 92.19, _QN_UNLIKE),
    Published(4, "sums of powers of two", _APOT, 92.96, 92.45, _APOT_UNLIKE),
    Published(3, "5: 0, ±1, ±2", _QN, 92.08, 92.03, _QN_UNLIKE),
    Published(3, "7: 0, ±1, ±2, ±4", _QN, 92.08, 92.18, f"two more levels; {_QN_UNLIKE}"),
    Published(3, "sums of powers of two", _APOT, 92.96, 92.49, _APOT_UNLIKE),
    Published(2, "3: 0, ±1", _QN, 92.08, 91.12, _QN_UNLIKE),
    Published(2, "sums of powers of two", _APOT, 92.96, 90.96, _APOT_UNLIKE),
]


def comparison(groups: Sequence[Group]) -> str:
    """Return the table of our results and published ones; nothing if we have none of this network and data."""
    ours = [
        Published(
            group.first["bits"],
            f"{2 ** (group.first['bits'] - 1) + 1}: 0 and ±2^k",
            "inq_ray",
            group.first["float_top1"],
            fmean(group.top1),
            "",
        )
        for group in main_of_each(groups)
        if group.key[:2] == ("cifar_resnet20", "cifar10")
    ]
    # Sorting is stable: at each width ours is the first.
    shown = sorted([*ours, *_PUBLISHED], key=lambda each: -each.bits) if ours else []
    rows = [
        {
            "bits": each.bits,
            "levels": each.levels,
            "method": each.method,
            "change": f"{each.top1 - each.float_top1:+.2f}",
            "float → quantized": f"{each.float_top1:.2f} → {each.top1:.2f}",
            "unlike ours": each.unlike,
        }
        for each in shown
    ]
    return f"{_INTRO}\n\n{table(rows)}" if rows else ""
