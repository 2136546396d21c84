"""Sensitivity of layers, as `inq-ray sensitivity --output FOLDER/sensitivity.json` has measured it, and its chart."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from inq_ray.core.codebook import MAX_BITS, MIN_BITS
from inq_ray.report.chart import ACCENT, INK, MUTED, PAPER, chart, height_of, margin_of, name_rows
from inq_ray.report.files import Files
from inq_ray.report.html import Html
from inq_ray.report.quantity import number
from inq_ray.sensitivity.picture import LEAST_DIVERGENCE

FILE = "sensitivity.json"


class Sensitive(NamedTuple):
    """A layer.

    Attributes:
        name: Name of its weight.
        divergences: Divergence from the float network's outputs, in nats, by bits of this layer alone.
    """

    name: str
    divergences: dict[int, float]


class Sensitivity(NamedTuple):
    """A measurement.

    Attributes:
        layers: Layers, the most sensitive first.
        images: Images it was measured on, in words.
        proposal: Flags of the proposed bits by layer; empty if there is none.
    """

    layers: tuple[Sensitive, ...]
    images: str
    proposal: str

    @property
    def bits(self) -> list[int]:
        """Numbers of bits, ascending."""
        return sorted({bits for layer in self.layers for bits in layer.divergences})


def read_sensitivity(files: Files) -> Sensitivity | None:
    """Return the measurement in a run's folder; None if there is none, or it cannot be used, which is noted."""
    found = files.object_of(FILE, why_missing=None)
    if found is None:
        return None
    by_name = {layer.name: layer for layer in _layers(found.get("layers"))}
    ranking, images = found.get("ranking"), found.get("images")
    names = [name for name in ranking if isinstance(name, str)] if isinstance(ranking, list) else []
    layers = tuple(by_name[name] for name in dict.fromkeys(names) if name in by_name)
    if not layers:
        files.note(f"{FILE} is not a file of inq-ray sensitivity: it has no ranked layers")
        return None
    what = images.get("what") if isinstance(images, dict) else None
    return Sensitivity(layers, what if isinstance(what, str) else "", _flags(found.get("proposal")))


def _layers(found: Any) -> Iterator[Sensitive]:
    """Yield the layers that have a name and divergences."""
    for layer in found if isinstance(found, list) else ():
        name, by_bits = (layer.get("name"), layer.get("by_bits")) if isinstance(layer, dict) else (None, None)
        if isinstance(name, str) and isinstance(by_bits, dict):
            scores = ((bits, by_bits.get(str(bits))) for bits in range(MIN_BITS, MAX_BITS + 1))
            values = {bits: number(score.get("divergence")) for bits, score in scores if isinstance(score, dict)}
            divergences = {bits: value for bits, value in values.items() if value is not None}
            if divergences:
                yield Sensitive(name, divergences)


def _flags(proposal: Any) -> str:
    """Return the proposal as flags that can be pasted into a shell; empty if there is none."""
    if not isinstance(proposal, dict):
        return ""
    bits, words = number(proposal.get("weight_bits")), proposal.get("layer_bits")
    if bits is None or not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return ""
    return shlex.join(["--weight-bits", f"{bits:.0f}", *(["--layer-bits", *words] if words else [])])


def sensitivity_chart(layers: Sequence[Sensitive], bits: Sequence[int]) -> Html:
    """Return the divergence of each layer alone, with a mark for each number of bits, the fewest bits strongest.

    Args:
        layers: Layers, from the top.
        bits: Numbers of bits, ascending.
    """

    def draw(axes: Any) -> None:
        from matplotlib.ticker import LogFormatter

        for index, num_bits in enumerate(bits):
            places = [row for row, layer in enumerate(layers) if num_bits in layer.divergences]
            values = [max(LEAST_DIVERGENCE, layers[row].divergences[num_bits]) for row in places]
            opacity = 1 - 0.75 * index / max(1, len(bits) - 1)
            axes.plot(values, places, "o", color=ACCENT, alpha=opacity, markeredgecolor=PAPER, markeredgewidth=0.4)
            if places and places[0] == 0:
                axes.annotate(f"{num_bits}", (values[0], 0), (0, 5), textcoords="offset points", ha="center", color=INK)
        axes.set_xscale("log")
        # The default of this scale writes formulas, and charts have none.
        axes.xaxis.set_major_formatter(LogFormatter())
        axes.xaxis.set_minor_formatter(LogFormatter())
        axes.margins(x=0.08)
        axes.grid(visible=True, axis="x")
        name_rows(axes, [layer.name for layer in layers])
        axes.set_ylim(len(layers) - 0.5, -1.2)
        axes.set_xlabel("divergence, nats", color=MUTED)

    left = margin_of([layer.name for layer in layers])
    return chart(
        "sensitivity",
        "Divergence from the float network with one layer quantized, by layer and bits",
        draw,
        height=height_of(len(layers)) + 11,
        left=left,
    )
