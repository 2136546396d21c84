"""Facts of a checkpoint: everything but its tensors, as in facts.json. This is the only reader of that file."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from inq_ray.core.channels import AnyCodebook, codebook_of
from inq_ray.core.codebook import Levels, check_rule
from inq_ray.core.partition import check_strategy
from inq_ray.core.portions import check_portions
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.config import RunConfig
from inq_ray.training.config.json_values import from_dict
from inq_ray.training.loop.gradients import GradientChoice
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.report.events import Row

# What a checkpoint stores of the optimizer's parameter groups.
RATES = ("lr", "initial_lr")
# Upper bound of numbers: float64 represents all integers up to here.
_MOST = 2**53


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Time spent.

    Attributes:
        run: Seconds in the whole run.
        epoch: Seconds in the current epoch.
        data: Seconds of the current epoch in which rank 0 waited for images.
    """

    run: float
    epoch: float
    data: float


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """A quantized tensor; its codebook, and how :mod:`inq_ray.training.checkpoint.compact` packed it.

    Attributes:
        num_bits: Bits per code.
        n_1: Exponent of the codebook's largest level, or those of all channels; None = all levels are 0.
        levels: Levels of the codebook.
        shape: Shape of the tensor; () in an expanded snapshot, where the next two are empty as well.
        num_frozen: Number of frozen weights.
        live_only: Kinds of tensors that are stored for live weights only.
    """

    num_bits: int
    n_1: int | tuple[int | None, ...] | None
    levels: Levels = "paper"
    shape: tuple[int, ...] = ()
    num_frozen: int = 0
    live_only: tuple[str, ...] = ()

    @classmethod
    def of(cls, codebook: AnyCodebook) -> "TensorFacts":
        """Return the facts for an expanded snapshot."""
        return cls(num_bits=codebook.num_bits, n_1=codebook.n_1, levels=codebook.levels)

    @property
    def codebook(self) -> AnyCodebook:
        """The codebook.

        Raises:
            ValueError: There is no such codebook.
        """
        return codebook_of(self.num_bits, self.n_1, self.levels)


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """State of an INQScheduler without its tensors.

    Attributes:
        tensors: Quantized tensors by parameter name.
        codebook: Rule that chooses n_1; the first checkpoints had only one rule.
    """

    stage: int
    portions: tuple[float, ...]
    strategy: str
    seed: int
    tensors: dict[str, TensorFacts]
    codebook: str = "max"


@dataclass(frozen=True, kw_only=True)
class History:
    """What a run remembers in addition to its network.

    Attributes:
        epochs_done: Epochs over the whole run.
        rows: Metrics so far.
        bad_images: Reasons by image name, over all ranks.
        seconds: Time spent.
        faults: Steps that were not finite.
        time: Seconds since 1970 when it was taken; None if unknown.
        order_workers: Number of data shards, if samples are read in groups; None if unknown.
        world_sizes: Numbers of ranks that it ran on, one after the other; empty if unknown.
        gradients: Gradients that ranks exchange in this stage by --gradient-communication auto; None if not measured.
        found_lr: Learning rate of the stages that --lr-probe found; None without it, or before.
    """

    epochs_done: int
    rows: tuple[Row, ...]
    bad_images: dict[str, str]
    seconds: Seconds
    faults: Faults = field(default_factory=Faults)
    time: float | None = None
    order_workers: int | None = None
    world_sizes: tuple[int, ...] = ()
    gradients: GradientChoice | None = None
    found_lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class Facts(History):
    """Facts of a checkpoint.

    Attributes:
        position: Position at which it was taken; "place" in JSON.
        inq: State of the stages; None during float training.
        groups: Learning rates of the optimizer's parameter groups, see RATES.
        lr_scheduler: Its state_dict(); None if there is none.
        scaler: Its state_dict(); None if there is none.
        has_ema: Whether there are averages.
        config: Configuration of the run.
        fingerprint: Fingerprint of its data; None if unknown.
        versions: Versions of inq_ray, torch and python.
        world_size: Number of ranks when it was taken.
        stage_key: Key of a sweep's stored stage; None for a run's checkpoint.
    """

    position: TrainingPosition
    inq: StageFacts | None
    groups: tuple[dict[str, float], ...]
    lr_scheduler: dict[str, Any] | None
    scaler: dict[str, int | float] | None
    has_ema: bool
    config: RunConfig
    fingerprint: str | None
    versions: dict[str, str]
    world_size: int
    stage_key: str | None = None

    @property
    def quantized(self) -> dict[str, TensorFacts]:
        """Quantized tensors by parameter name; empty before the first stage."""
        return {} if self.inq is None else self.inq.tensors

    def with_quantized(self, tensors: dict[str, TensorFacts]) -> "Facts":
        """Return a copy with other facts about the quantized tensors."""
        return (
            self if self.inq is None else dataclasses.replace(self, inq=dataclasses.replace(self.inq, tensors=tensors))
        )

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON, which has no NaN: metrics that are not finite become text."""
        values = dataclasses.asdict(self)
        values["place"] = values.pop("position")
        if values["stage_key"] is None:
            del values["stage_key"]
        for row in values["rows"]:
            row |= {name: str(each) for name, each in row.items() if type(each) is float and not math.isfinite(each)}
        return values

    @classmethod
    def from_json(cls, values: Any) -> "Facts":
        """Read the facts of a compact snapshot; unknown names are ignored.

        Raises:
            ValueError: No run can have written them; names the fact.
        """
        if not isinstance(values, dict):
            raise ValueError(f"the facts are {values!r:.80}, not an object of names and values")
        names = {each.name for each in dataclasses.fields(cls)}
        known: dict[str, Any] = {name: value for name, value in values.items() if name in names}
        known["position"] = TrainingPosition.from_json(values.get("place"))
        if isinstance(rows := values.get("rows"), list):
            known["rows"] = [_with_floats(row) for row in rows]
        facts = from_dict(cls, known, where="")
        assert isinstance(facts, cls)
        _check(facts)
        return facts


def _with_floats(row: Any) -> Any:
    """Return a line of metrics with "nan", "inf" and "-inf" converted to numbers."""
    if not isinstance(row, dict):
        return row
    return {name: float(each) if each in ("nan", "inf", "-inf") else each for name, each in row.items()}


def _check(facts: Facts) -> None:
    """Refuse values that no run writes; types have been checked.

    Raises:
        ValueError: A value is impossible; names the fact.
    """
    _check_numbers(facts)
    if any(group.keys() - set(RATES) for group in facts.groups):
        raise ValueError(f"groups is {facts.groups!r:.80}, not learning rates")
    if facts.gradients not in (None, *get_args(GradientChoice)):
        raise ValueError(f"gradients is {facts.gradients!r:.80}, not one of {', '.join(get_args(GradientChoice))}")
    if facts.versions.keys() != {"inq_ray", "torch", "python"}:
        raise ValueError(f"versions is {facts.versions!r:.80}, not those of inq_ray, torch and python")
    position, epochs = facts.position, (facts.config.float_epochs, *facts.config.stage_epochs)
    if position.stage >= len(epochs) or position.epoch > epochs[position.stage]:
        raise ValueError(f"{position.name} is beyond the end of its run, which has {len(epochs) - 1} stages")
    trained = sum(row.epoch > 0 for row in facts.rows)
    if facts.epochs_done != trained or trained < position.epoch:
        raise ValueError(f"epochs_done is {facts.epochs_done}, with {trained} lines of metrics at {position.name}")
    if (facts.inq is None) != (position.stage == 0):
        raise ValueError(f"inq is {facts.inq!r:.80} in stage {position.stage}")
    if facts.inq is not None:
        _check_stages(facts.inq, position.stage)


def _check_numbers(facts: Facts) -> None:
    faults = facts.faults
    numbers: dict[str, Iterable[float]] = {
        "epochs_done": [facts.epochs_done],
        "faults": [faults.num_skipped, faults.in_a_row, *faults.rewinds],
        "found_lr": [facts.found_lr or 0],
        "groups": [rate for group in facts.groups for rate in group.values()],
        "order_workers": [facts.order_workers or 0],
        "rows": [
            number
            for row in facts.rows
            for number in (row.stage, row.epoch, row.num_bad_images, row.num_skipped_steps, row.num_bn_images or 0)
        ],
        "scaler": list((facts.scaler or {}).values()),
        "seconds": [facts.seconds.run, facts.seconds.epoch, facts.seconds.data],
        "time": [facts.time or 0],
        "world_size": [facts.world_size - 1],
        "world_sizes": facts.world_sizes,
    }
    for name, each in numbers.items():
        if not all(0 <= number < _MOST for number in each):
            raise ValueError(f"{name} is {getattr(facts, name)!r:.80}: below what is possible, or above 2^53")


def _check_stages(inq: StageFacts, stage: int) -> None:
    if inq.stage != stage or stage > len(check_portions(inq.portions)):
        raise ValueError(f"inq has stage {inq.stage} of {len(inq.portions)}, the position has {stage}")
    check_strategy(inq.strategy)
    check_rule(inq.codebook)
    if not 0 <= inq.seed < 2**63:
        raise ValueError(f"inq.seed is {inq.seed!r:.80}")
    for name, tensor in inq.tensors.items():
        _ = tensor.codebook
        if not all(0 <= size < _MOST for size in tensor.shape):
            raise ValueError(f"{name} has shape {tensor.shape!r:.80}")
        if not 0 <= tensor.num_frozen <= math.prod(tensor.shape):
            raise ValueError(f"{name} has {tensor.num_frozen} frozen weights in shape {tensor.shape!r:.80}")
