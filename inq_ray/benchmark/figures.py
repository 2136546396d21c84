"""benchmark.json: the figures of a benchmark.

    format_version   1
    inq_ray          {"version", "commit"}: commit of the checkout, with + if files differ from it; null if not from one
    command          command line
    time             start, ISO 8601
    machine          {"processor", "num_cpus", "load", "system", "python", "torch", "ray"} of the driver's node; `load`
                     is the number of processes that were running or waiting before the start (1 minute)
    network          {"arch", "num_parameters", "num_quantized", "weight_bits"}
    images           {"data", "channels", "height", "width"}: `data` is null for random images
    settings         {"batch_size", "accumulate", "precision", "use_gpu", "cpus_per_worker", "is_quick"}
    worlds           list of {"num_workers", "workers", "figures"}: `workers` has a line about each, `figures` a list of
                     {"what", "unit", "portion", "gradients", "median", "least", "count", "ratio"}
    advice           list of {"flag", "reason"}

`what` and `unit` are those of QUANTITIES below. `portion` is the portion of frozen weights, `gradients` what workers
exchange (see :mod:`inq_ray.benchmark.step`); null where they do not apply. `median` and `least` are over `count`
repetitions. `ratio` is the median of ratios in the same round: of a step to that with dense gradients, of an optimizer
step to that of torch.optim.SGD(fused=True).
"""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inq_ray.files.shown import shown
from inq_ray.files.whole import write_text

FORMAT_VERSION = 1

# Unit of each quantity.
QUANTITIES = {
    "step": "s",  # a training step with images in memory, on the slowest worker
    "step_bytes": "B",  # gradients that a worker hands over to the exchange in a step
    "optimizer": "s",  # its optimizer step
    "stage": "s",  # choosing, quantizing and freezing the weights up to the portion, with the exchange and the checks
    "message": "s",  # encoding and decoding the stage's message
    "message_bytes": "B",
    "link": "B/s",  # bus bandwidth of an all-reduce of 25 MB, see inq_ray.benchmark.link
    "link_latency": "s",  # an all-reduce of 4 kB
    "checkpoint_stall": "s",  # time for which a checkpoint stops training
    "checkpoint_write": "s",  # time from then until it is complete in the storage
    "checkpoint_bytes": "B",
    "input": "images/s",  # reading, decoding and augmenting training images, all workers together
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured quantity, as in benchmark.json."""

    what: str
    portion: float | None = None
    gradients: str | None = None
    median: float
    least: float
    count: int
    ratio: float | None = None

    @property
    def unit(self) -> str:
        """Its unit."""
        return QUANTITIES[self.what]

    @classmethod
    def of(
        cls,
        what: str,
        values: Sequence[float],
        *,
        portion: float | None = None,
        gradients: str | None = None,
        reference: Sequence[float] | None = None,
    ) -> "Figure":
        """Return the figure of repeated measurements.

        Args:
            what: Quantity.
            values: Measured values.
            portion: Portion of frozen weights.
            gradients: What workers exchange.
            reference: Values of the reference in the same rounds; None = there is none.
        """
        assert what in QUANTITIES, what
        pairs = None if reference is None else zip(values, reference, strict=True)
        return cls(
            what=what,
            portion=portion,
            gradients=gradients,
            median=statistics.median(values),
            least=min(values),
            count=len(values),
            ratio=None if pairs is None else statistics.median(value / other for value, other in pairs),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return its entry in benchmark.json."""
        return {"what": self.what, "unit": self.unit} | dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class World:
    """Figures of one number of workers.

    Attributes:
        num_workers: The number.
        workers: A line about each worker: node, device and link.
        figures: The figures.
    """

    num_workers: int
    workers: tuple[str, ...]
    figures: tuple[Figure, ...]

    def find(self, what: str, portion: float | None = None, gradients: str | None = None) -> Figure | None:
        """Return a figure; None if it was not measured."""
        wanted = (what, portion, gradients)
        return next((each for each in self.figures if (each.what, each.portion, each.gradients) == wanted), None)

    def portions(self, what: str = "step") -> list[float]:
        """Return the portions at which a quantity was measured, ascending."""
        return sorted({each.portion for each in self.figures if each.what == what and each.portion is not None})

    def to_dict(self) -> dict[str, Any]:
        """Return its entry in benchmark.json."""
        figures = [each.to_dict() for each in self.figures]
        return {"num_workers": self.num_workers, "workers": list(self.workers), "figures": figures}

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> "World":
        """Return the world of such an entry."""
        figures = [Figure(**{name: each[name] for name in each.keys() - {"unit"}}) for each in entry["figures"]]
        return cls(num_workers=entry["num_workers"], workers=tuple(entry["workers"]), figures=tuple(figures))


def write_figures(path: Path, facts: dict[str, Any], worlds: Iterable[World], advice: Iterable[Any]) -> None:
    """Write benchmark.json.

    Args:
        path: Path of the file.
        facts: Entries from "inq_ray" to "settings".
        worlds: The figures.
        advice: Dataclasses with flag and reason.

    Raises:
        ValueError: It cannot be written.
    """
    whole = {
        "format_version": FORMAT_VERSION,
        **facts,
        "worlds": [world.to_dict() for world in worlds],
        "advice": [dataclasses.asdict(each) for each in advice],
    }
    try:
        write_text(path, json.dumps(whole, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ValueError(f"--output {shown(path)}: cannot be written ({error.strerror or error})") from error
