"""Whether a snapshot that was read can be one that a run has taken: nothing of it is believed before.

Digests tell that files are as they were written. Here it is asked whether what was written can be meant: facts of the
right kinds, tensors that are those of which the facts speak, as many frozen weights as the stage has, codes that their
codebook has. So files of somebody else's, or made by a program that was wrong, are refused in one line.
"""

import json
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook, check_rule
from inq_ray.core.partition import check_strategy
from inq_ray.core.portions import check_portions, num_frozen
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import AVERAGE, CODES, FROZEN, MODEL, MOMENTUM, RATES, SUMS, TEACHER, Snapshot
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row

# Whether a value from JSON is of some kind.
_Test = Callable[[Any], bool]

# Counts are whole numbers that float64 has, too.
_MOST = 2**53
_NOT_FINITE = ("nan", "inf", "-inf")
_LIVE_KINDS = (MODEL, MOMENTUM, AVERAGE)


def read_position(value: Any) -> TrainingPosition:
    """A position from JSON.

    Raises:
        ValueError: it is none.
    """
    if not _is_object(value, _is_count, ("stage", "epoch", "step")):
        raise ValueError(f"place is {short(value)}, not counts of stage, epoch and step")
    position = TrainingPosition(**value)
    if TrainingPosition.parse(position.name) != position:
        raise ValueError(f"place is {short(value)}, beyond what a name can say")
    return position


def check_facts(facts: Any) -> None:
    """Refuses facts that no run has written; those of names that are not known here are passed over.

    Args:
        facts: of a compact snapshot, from JSON.

    Raises:
        ValueError: names the fact.
    """
    if not isinstance(facts, dict):
        raise ValueError(f"the facts are {short(facts)}, not an object of names and values")
    for name, (is_right, what) in {**_FACTS, **_LATER_FACTS}.items():
        if name in facts and not is_right(facts[name]):
            raise ValueError(f"{name} is {short(facts[name])}, not {what}")
        if name in _FACTS and name not in facts:
            raise ValueError(f"{name} is missing")
    position = read_position(facts.get("place"))
    _check_course(position, RunConfig.from_json(json.dumps(facts.get("config"))))
    _check_inq(facts["inq"], position.stage)
    trained = sum(row["epoch"] > 0 for row in facts["rows"])
    if facts["epochs_done"] != trained or trained < position.epoch:
        raise ValueError(f"epochs_done is {facts['epochs_done']}, with {trained} lines of metrics at {position.name}")


def check_tensors(snapshot: Snapshot) -> None:
    """Refuses tensors that are not those of which the facts speak.

    Args:
        snapshot: expanded, its facts checked.

    Raises:
        ValueError: names the tensor.
    """
    tensors, facts = snapshot
    model = _of(tensors, MODEL)
    kinds = (*_LIVE_KINDS, TEACHER, FROZEN, CODES)
    strange = [name for name in tensors if name != SUMS and not name.startswith(kinds)]
    if strange:
        raise ValueError(f"there is a tensor {short(strange[0])}, which is of no kind")
    for kind, due in (
        (MOMENTUM, lambda dtype: dtype),
        (TEACHER, lambda dtype: dtype),
        (AVERAGE, lambda dtype: torch.promote_types(dtype, torch.float32)),
    ):
        for name, tensor in _of(tensors, kind).items():
            _check_like(kind + name, tensor, model.get(name), due)
    if bool(_of(tensors, AVERAGE)) != facts["has_ema"]:
        raise ValueError(f"has_ema is {facts['has_ema']}, with {len(_of(tensors, AVERAGE))} averages")
    sums = tensors.get(SUMS)
    if sums is None or (sums.dtype, list(sums.shape)) != (torch.float64, [facts["world_size"], 3]):
        raise ValueError(f"{SUMS} is {_kind_of(sums)}, with {facts['world_size']} ranks")
    quantized = {} if facts["inq"] is None else facts["inq"]["tensors"]
    for kind in (FROZEN, CODES):
        if _of(tensors, kind).keys() != quantized.keys():
            raise ValueError(f"there are {len(_of(tensors, kind))} tensors {kind}, of {len(quantized)} quantized ones")
    for name, entry in quantized.items():
        portion = facts["inq"]["portions"][facts["inq"]["stage"] - 1]
        _check_quantized(name, entry, portion, model.get(name), tensors[FROZEN + name], tensors[CODES + name])


def _check_course(position: TrainingPosition, config: RunConfig) -> None:
    """Whether a run of this configuration comes to a position; how many steps an epoch has is not known here."""
    epochs = (config.float_epochs, *config.stage_epochs)
    if position.stage >= len(epochs) or position.epoch > epochs[position.stage]:
        raise ValueError(f"{position.name} is beyond the end of its run, which has {len(epochs) - 1} stages")


def _check_inq(inq: dict[str, Any] | None, stage: int) -> None:
    if (inq is None) != (stage == 0):
        raise ValueError(f"inq is {short(inq)} in stage {stage}")
    if inq is None:
        return
    if inq["stage"] != stage or stage > len(check_portions(inq["portions"])):
        raise ValueError(f"inq is of stage {inq['stage']} of {len(inq['portions'])}, the position of {stage}")
    check_strategy(inq["strategy"])
    check_rule(inq.get("codebook", "max"))
    for name, entry in inq["tensors"].items():
        Codebook(entry["num_bits"], entry["n_1"])
        if entry["num_frozen"] > math.prod(entry["shape"]):
            raise ValueError(f"{name} has {entry['num_frozen']} frozen weights in shape {short(entry['shape'])}")


def _check_quantized(
    name: str, entry: Mapping[str, Any], portion: float, weight: Tensor | None, frozen: Tensor, codes: Tensor
) -> None:
    _check_like(FROZEN + name, frozen, weight, lambda _: torch.bool)
    _check_like(CODES + name, codes, weight, lambda _: torch.uint8)
    count, due = int(torch.count_nonzero(frozen)), num_frozen(portion, frozen.numel())
    if count != due:
        raise ValueError(f"{name} has {count} frozen weights of {frozen.numel()}, {due} are due at {portion:g}")
    codebook = Codebook(entry["num_bits"], entry["n_1"])
    used = torch.from_numpy(np.flatnonzero(np.bincount(codes.reshape(-1).numpy())).astype(np.uint8))
    if bool(codebook.decode(used).isnan().any()) or bool((codes != 0).logical_and_(~frozen).any()):
        raise ValueError(f"{name} has codes that its codebook has not, or codes of live weights")


def _check_like(name: str, tensor: Tensor, weight: Tensor | None, due: Callable[[torch.dtype], torch.dtype]) -> None:
    """Whether a tensor is of the shape of the network's, and of the dtype that is due with its."""
    if weight is None or (tensor.shape, tensor.dtype) != (weight.shape, due(weight.dtype)):
        raise ValueError(f"{name} is {_kind_of(tensor)}, the network's {_kind_of(weight)}")


def _of(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}


def _kind_of(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {short(list(tensor.shape))}"


def short(value: Any, most: int = 80) -> str:
    """A value for a message of one line: text that is short and can be printed as it is, else as Python writes it."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_duration(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any, is_right: _Test) -> bool:
    return isinstance(value, list) and all(map(is_right, value))


def _is_object(value: Any, is_right: _Test, names: Collection[str] | None = None) -> bool:
    """Whether a value is an object of right values; where `names` are given, of just these."""
    if not isinstance(value, dict) or (names is not None and value.keys() != set(names)):
        return False
    return all(map(is_right, value.values()))


def _is_row(value: Any) -> bool:
    """Whether a value is a line of metrics: names and types of :class:`Row`, what is not finite as text."""
    if not isinstance(value, dict) or not _DUE_CELLS <= value.keys() <= _CELLS.keys():
        return False
    return all(_is_cell(_CELLS[name], cell) for name, cell in value.items())


def _is_cell(kinds: tuple[Any, ...], value: Any) -> bool:
    if value is None:
        return NoneType in kinds
    if int in kinds:
        return _is_count(value)
    return _is_number(value) or (isinstance(value, str) and value in _NOT_FINITE)


def _are_faults(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"num_skipped", "in_a_row", "rewinds"}:
        return False
    counts = [count for name, count in value.items() if name != "rewinds"]
    return all(map(_is_count, counts)) and _is_list(value.get("rewinds", []), _is_count)


def _are_rates(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= set(RATES) and _is_object(value, _is_duration)


def _is_inq(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() - {"codebook"} == {"stage", "portions", "strategy", "seed", "tensors"}
        and _is_count(value["stage"])
        and _is_list(value["portions"], _is_number)
        and _is_text(value["strategy"])
        and _is_text(value.get("codebook", ""))
        and (type(value["seed"]) is int and 0 <= value["seed"] < 2**63)
        and _is_object(value["tensors"], _is_quantized)
    )


def _is_quantized(value: Any) -> bool:
    """Whether a value says of a quantized tensor what :func:`inq_ray.training.checkpoint.compact.compact` says."""
    return (
        isinstance(value, dict)
        and value.keys() == {"num_bits", "n_1", "shape", "num_frozen", "live_only"}
        and _is_list(value["shape"], _is_count)
        and _is_count(value["num_frozen"])
        and _is_list(value["live_only"], _is_text)
        and set(value["live_only"]) <= set(_LIVE_KINDS)
        and len(set(value["live_only"])) == len(value["live_only"])
    )


def _or_none(is_right: _Test) -> _Test:
    return lambda value: value is None or is_right(value)


_CELLS = {field.name: get_args(field.type) or (field.type,) for field in fields(Row)}
_DUE_CELLS = frozenset(field.name for field in fields(Row) if field.default is MISSING)

# What each fact has to be, and how that is called. TrainingPosition and configuration are read besides.
_FACTS: dict[str, tuple[_Test, str]] = {
    "epochs_done": (_is_count, "a count"),
    "seconds": (lambda value: _is_object(value, _is_duration, ("run", "epoch", "data")), "seconds of run, epoch, data"),
    "rows": (lambda value: _is_list(value, _is_row), "lines of metrics"),
    "bad_images": (lambda value: _is_object(value, _is_text), "reasons by name"),
    "inq": (_or_none(_is_inq), "the state of stages"),
    "groups": (lambda value: _is_list(value, _are_rates), "learning rates"),
    "lr_scheduler": (_or_none(lambda value: isinstance(value, dict)), "the state of a schedule"),
    "scaler": (_or_none(lambda value: _is_object(value, _is_number)), "the state of a scaler"),
    "has_ema": (lambda value: type(value) is bool, "true or false"),
    "fingerprint": (_or_none(_is_text), "a text or null"),
    "versions": (lambda value: _is_object(value, _is_text, ("inq_ray", "torch", "python")), "versions"),
    "world_size": (lambda value: _is_count(value) and value > 0, "a number of ranks"),
}
# Those that earlier versions did not write.
_LATER_FACTS: dict[str, tuple[_Test, str]] = {
    "faults": (_are_faults, "counts of steps that were not finite"),
    "time": (_or_none(_is_number), "a time or null"),
    "order_workers": (_or_none(_is_count), "a number of ranks or null"),
    "world_sizes": (lambda value: _is_list(value, _is_count), "numbers of ranks"),
}
