"""Restoring a snapshot into a run's objects, after checking that it fits them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray.core.optim.sgd import SGD
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.facts import StageFacts
from inq_ray.training.checkpoint.snapshot import (
    AVERAGE,
    CODES,
    FROZEN,
    MODEL,
    MOMENTUM,
    TEACHER,
    Parts,
    Snapshot,
    model_tensors,
)


def restore(snapshot: Snapshot, parts: Parts) -> None:
    """Load a snapshot into objects made for its position; weights, buffers and memory formats stay in place.

    Afterwards they have the bits of the snapshot's run. The caller handles what follows from masks: gradients of
    tensors without live weights must be stopped before an Ema is made and before the model is wrapped.

    Args:
        snapshot: Expanded snapshot, on the CPU.
        parts: Objects on any device. Without a scheduler, scaler or averages, those of the snapshot are ignored, as at
            a stage's end, after which they begin again.

    Raises:
        ValueError: It belongs to another network or phase; names the difference. Nothing is changed then.
    """
    facts = snapshot.facts
    _check(snapshot, parts)
    with torch.no_grad():
        for kind, own in ((MODEL, model_tensors(parts.model)), (TEACHER, model_tensors(parts.teacher))):
            for name, tensor in own.items():
                tensor.copy_(snapshot.tensors[kind + name])
    if parts.inq is not None and facts.inq is not None:
        parts.inq.load_state_dict(_stage_state(snapshot, facts.inq))
    if parts.optimizer is not None:
        _restore_optimizer(snapshot, parts.model, parts.optimizer)
    if parts.lr_scheduler is not None and facts.lr_scheduler is not None:
        parts.lr_scheduler.load_state_dict(facts.lr_scheduler)
    if parts.scaler is not None and facts.scaler:
        parts.scaler.load_state_dict(facts.scaler)
    if parts.ema is not None:
        parts.ema.load_state_dict(snapshot.of_kind(AVERAGE))


def sums_of_rank(sums: Tensor, rank: int, world_size: int) -> Tensor:
    """Return the sums with which a rank continues an epoch: its own; at another world size rank 0 has the total.

    Args:
        sums: float64 [ranks, 3], of a snapshot.
        rank: This rank.
        world_size: Current number of ranks.

    Returns:
        float64 [3].
    """
    if len(sums) == world_size:
        return sums[rank].clone()
    return sums.sum(0) if rank == 0 else torch.zeros_like(sums[0])


def _restore_optimizer(snapshot: Snapshot, model: nn.Module, optimizer: SGD) -> None:
    for group, saved in zip(optimizer.param_groups, snapshot.facts.groups, strict=True):
        group |= saved
    momentum = snapshot.of_kind(MOMENTUM)
    for name, param in model.named_parameters():
        if name not in momentum:
            optimizer.state.pop(param, None)
            continue
        # Its strides are the parameter's, as SGD creates them: it iterates over both in the same order.
        buffer = torch.empty_like(param, memory_format=torch.preserve_format)
        optimizer.state[param]["momentum_buffer"] = buffer.copy_(momentum[name])


def _stage_state(snapshot: Snapshot, stages: StageFacts) -> dict[str, Any]:
    """Return the argument of INQScheduler.load_state_dict."""
    tensors = {
        name: {
            "num_bits": each.num_bits,
            "n_1": each.n_1,
            "levels": each.levels,
            "frozen": snapshot.tensors[FROZEN + name],
            "codes": snapshot.tensors[CODES + name],
        }
        for name, each in stages.tensors.items()
    }
    return {**vars(stages), "tensors": tensors}


def _check(snapshot: Snapshot, parts: Parts) -> None:
    facts, teacher = snapshot.facts, model_tensors(parts.teacher)
    _check_same("tensors of the network", snapshot.of_kind(MODEL), model_tensors(parts.model))
    if teacher:
        _check_same("tensors of the teacher", snapshot.of_kind(TEACHER), teacher)
    _check_stages(facts.inq, parts.inq)
    if parts.optimizer is not None:
        _check_optimizer(snapshot, parts.model, parts.optimizer)
    if parts.lr_scheduler is not None:
        if facts.lr_scheduler is None:
            raise ValueError("the checkpoint has no learning-rate schedule")
        if "lr_lambdas" not in facts.lr_scheduler:  # torch would raise a KeyError after loading half of it
            raise ValueError("the checkpoint's learning-rate schedule lacks lr_lambdas")
        _check_state("learning-rate schedule", facts.lr_scheduler, parts.lr_scheduler)
    if parts.scaler is not None and facts.scaler:
        _check_state("scaler", facts.scaler, parts.scaler)


def _check_same(what: str, saved: Mapping[str, Tensor], due: Mapping[str, Tensor]) -> None:
    """Refuse other names, shapes or dtypes."""
    different = sorted(saved.keys() ^ due.keys())
    if different:
        raise ValueError(f"the checkpoint has other {what}: only one side has {', '.join(different[:5])}")
    for name, tensor in due.items():
        if (saved[name].shape, saved[name].dtype) != (tensor.shape, tensor.dtype):
            theirs, ours = (f"{each.dtype} {list(each.shape)}" for each in (saved[name], tensor))
            raise ValueError(f"the checkpoint has {name} as {theirs}, the network as {ours}")


def _check_stages(saved: StageFacts | None, inq: INQScheduler | None) -> None:
    if (saved is None) != (inq is None):
        raise ValueError(
            "the checkpoint is for a float network and the run for a quantized one, or the other way round"
        )
    if saved is None:
        return
    for name in ("portions", "strategy", "seed", "codebook"):
        if getattr(saved, name) != getattr(inq, name):
            raise ValueError(
                f"the checkpoint's stages have {name} {getattr(saved, name)}, the run's {getattr(inq, name)}"
            )


def _check_optimizer(snapshot: Snapshot, model: nn.Module, optimizer: SGD) -> None:
    saved, due = len(snapshot.facts.groups), len(optimizer.param_groups)
    if saved != due:
        raise ValueError(f"the checkpoint's optimizer has {saved} groups of parameters, the run's {due}")
    params = dict(model.named_parameters())
    momentum = snapshot.of_kind(MOMENTUM)
    unknown = sorted(momentum.keys() - params.keys())
    if unknown:
        raise ValueError(f"the checkpoint has momentum that the network lacks: {', '.join(unknown[:5])}")
    for name, buffer in momentum.items():
        if buffer.shape != params[name].shape:  # copying would broadcast a smaller one
            raise ValueError(
                f"the checkpoint has momentum of {name} as {list(buffer.shape)}, the network {list(params[name].shape)}"
            )


def _check_state(what: str, saved: Mapping[str, Any], owner: Any) -> None:
    """Refuse a state that a torch object would not have saved: its load_state_dict accepts anything.

    Versions of torch differ slightly: missing values keep their defaults, and new ones are ignored unless they would
    replace a method.
    """
    own = owner.state_dict()
    for name, value in saved.items():
        if name in own and not _is_alike(value, own[name]):
            raise ValueError(f"the checkpoint's {what} has {name} {value!r:.80}, the run's {own[name]!r:.80}")
        if name not in own and hasattr(owner, name):
            raise ValueError(f"the checkpoint's {what} has {name}, which is not part of its state")


def _is_alike(value: Any, own: Any) -> bool:
    """Return whether a value has the type and form of another; integers must be counts, floats finite."""
    match own:
        case bool() | str() | None:
            return type(value) is type(own)
        case int():
            return type(value) is int and 0 <= value < 2**53
        case float():
            return type(value) in (int, float) and abs(value) < 2**1000 and math.isfinite(value)
        case Mapping():
            is_same = isinstance(value, dict) and value.keys() == own.keys()
            return is_same and all(_is_alike(value[name], own[name]) for name in own)
        case list() | tuple():
            is_same = isinstance(value, list | tuple) and len(value) == len(own)
            return is_same and all(map(_is_alike, value, own))
    return False
