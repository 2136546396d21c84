"""Quantization error by layer: checkpoints before and after each stage have the weights that it froze."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from inq_ray.models.weights.files import is_weights_file, read_parts
from inq_ray.models.weights.fit import choose
from inq_ray.report.run.layers import Layer, layers_of_checkpoint
from inq_ray.report.run.record import RunRecord
from inq_ray.storage.address import Location, locate
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import FROZEN, MODEL, Snapshot
from inq_ray.training.checkpoint.store import CheckpointStore

# Checkpoints of larger runs are not read: a report should take seconds.
_MOST_BYTES = 8 * 10**9


class RoundingError(NamedTuple):
    """Error of a tensor's weights when they were frozen.

    Attributes:
        squared: Sum of the squared differences between the weights before and after the stage that froze them.
        energy: Sum of the squared weights before.
        num_weights: Number of weights in both sums.
    """

    squared: float = 0.0
    energy: float = 0.0
    num_weights: int = 0

    @property
    def relative(self) -> float:
        """Root of the ratio of both sums."""
        return float((self.squared / self.energy) ** 0.5) if self.energy else 0.0


@dataclass
class Stored:
    """What the checkpoints of a run show.

    Attributes:
        errors: Error by name of the tensor, over all stages whose two checkpoints exist.
        stages: Numbers of these stages.
        layers: Quantized tensors in the newest checkpoint; empty if they were not asked for.
    """

    errors: dict[str, RoundingError] = field(default_factory=dict)
    stages: list[int] = field(default_factory=list)
    layers: tuple[Layer, ...] = ()

    def add(self, stage: int, before: Mapping[str, Tensor], after: Snapshot) -> None:
        """Add the weights that a stage froze.

        Args:
            stage: Number of the stage.
            before: Weights before it by name; float where they were live.
            after: Snapshot right after quantizing.
        """
        found = False
        for name in after.facts.quantized:
            if name not in before or before[name].shape != after.tensors[MODEL + name].shape:
                continue
            frozen, now = after.tensors[FROZEN + name], after.tensors[MODEL + name].double()
            weights = before[name].double()
            # Weights of earlier stages are equal in both, and their energy is left out with them.
            new = frozen & ~before[FROZEN + name] if FROZEN + name in before else frozen
            squared, energy = (now - weights)[new].square().sum(), weights[new].square().sum()
            old = self.errors.get(name, RoundingError())
            self.errors[name] = RoundingError(
                old.squared + float(squared), old.energy + float(energy), old.num_weights + int(new.sum())
            )
            found = True
        if found:
            self.stages.append(stage)


def read_stored(record: RunRecord, *, remote: bool) -> Stored:
    """Return what the checkpoints of a run show; what cannot be read is noted in the record's files.

    Args:
        record: The run.
        remote: Whether checkpoints in an object store are read.
    """
    stored, files = Stored(), record.files
    location = files.attempt("checkpoints cannot be used", lambda: _location(record))
    if location is None or record.config.get("plain") is True:
        return stored
    if not (location.is_local or remote):
        files.note(f"checkpoints at {location.name} were not read: inq-ray report does, for errors by layer")
        return stored
    files.attempt("checkpoints cannot be used", lambda: _read(CheckpointStore(location), record, stored))
    return stored


def _location(record: RunRecord) -> Location:
    path, name = record.option("output", "checkpoint_path"), record.option("output", "name")
    if isinstance(path, str) and isinstance(name, str):
        return locate(path, "--checkpoint-path").join(name)
    return record.files.location.join("checkpoints")


def _read(store: CheckpointStore, record: RunRecord, stored: Stored) -> None:
    """Read the two checkpoints of each stage, one pair after the other.

    Raises:
        ValueError: The storage fails, or a checkpoint is damaged.
    """
    entries = store.entries()
    if not entries:
        record.files.note("there are no checkpoints: the quantization error by layer is not known")
        return
    if (total := sum(entry.num_bytes for entry in entries)) > _MOST_BYTES:
        record.files.note(f"checkpoints have {total / 1e9:.1f} GB and were not read: errors by layer are not known")
        return
    positions = [entry.position for entry in entries]  # the newest first
    if record.packed is None:
        stored.layers = layers_of_checkpoint(store.load(positions[0])[1])
    ends = {entry.position.stage: entry.position for entry in reversed(entries) if entry.is_stage_end}
    starts = [place for place in reversed(positions) if place.stage > 0 and (place.epoch, place.step) == (0, 0)]
    for start in starts:
        after = store.load(start)[1]
        before = _before(store, ends.get(start.stage - 1), record, after)
        if before is not None:
            stored.add(start.stage, before, after)


def _before(
    store: CheckpointStore, end: TrainingPosition | None, record: RunRecord, after: Snapshot
) -> dict[str, Tensor] | None:
    """Return weights by name, and masks by FROZEN and name, before a stage; None if they are not stored."""
    if end is not None:
        snapshot = store.load(end)[1]
        masks = {name: mask for name, mask in snapshot.tensors.items() if name.startswith(FROZEN)}
        return {**snapshot.of_kind(MODEL), **masks}
    weights = record.option("network", "weights")
    if after.position.stage != 1 or not isinstance(weights, str) or not is_weights_file(weights):
        record.files.note(f"the weights before stage {after.position.stage} are not stored: errors are without it")
        return None
    given = record.files.attempt("the given weights cannot be used", lambda: _given(weights, after))
    if given is not None and not _is_beginning_of(given, after):
        record.files.note("the file of the given weights does not have the weights that stage 1 began with")
        return None
    return given


def _given(weights: str, after: Snapshot) -> dict[str, Tensor]:
    from inq_ray.models.weights.files import existing_file

    path, own = existing_file(weights), after.of_kind(MODEL)
    found, _ = choose(path, read_parts(path), own, [name for name in own if name not in after.facts.quantized], dict)
    return found.tensors


def _is_beginning_of(given: Mapping[str, Tensor], after: Snapshot) -> bool:
    """Return whether these are the weights before stage 1: the stage changes none of the others.

    Live weights change only with --compensate or --post-training.
    """
    quantized, quantization = after.facts.quantized, after.facts.config.quantization
    compared = 0
    for name, tensor in after.of_kind(MODEL).items():
        if name not in given or given[name].shape != tensor.shape or not tensor.is_floating_point():
            continue
        if name not in quantized:
            if "running_" in name:  # BatchNorm's statistics may be estimated again
                continue
            same = torch.equal(given[name].to(tensor.dtype), tensor)
        elif quantization.compensate or quantization.post_training:
            continue
        else:
            live = ~after.tensors[FROZEN + name]
            same = torch.equal(given[name].to(tensor.dtype)[live], tensor[live])
        if not same:
            return False
        compared += 1
    return compared > 0
