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
    MODEL,
    MOMENTUM,
    TEACHER,
    Parts,
    Snapshot,
    model_tensors,
    of_kind,
)
from inq_ray.training.checkpoint.stored import Masks, copy_to, layout_of, masks_of


def restore(snapshot: Snapshot, parts: Parts) -> None:
    """Load a snapshot into objects made for its position; weights, buffers and memory formats stay in place.

    Afterwards they have the bits of the snapshot's run. The caller handles what follows from masks: gradients of
    tensors without live weights must be stopped before an Ema is made and before the model is wrapped. Every rank calls
    it: a shared snapshot is read by rank 0 meanwhile, a block at a time.

    Args:
        snapshot: The snapshot.
        parts: Objects on any device. Without a scheduler, scaler or averages, those of the snapshot are ignored, as at
            a stage's end, after which they begin again.

    Raises:
        ValueError: It belongs to another network or phase; names the difference. Nothing is changed then.
    """
    facts = snapshot.facts
    _check(snapshot, parts)
    masks = masks_of(snapshot) if parts.inq is not None else {}
    networks = ((MODEL, model_tensors(parts.model)), (TEACHER, model_tensors(parts.teacher)))
    copy_to(snapshot, {kind + name: tensor for kind, own in networks for name, tensor in own.items()}, masks)
    if parts.inq is not None and facts.inq is not None:
        parts.inq.load_state_dict(_stage_state(masks, facts.inq))
    del masks  # the scheduler has its own
    if parts.optimizer is not None:
        copy_to(snapshot, _new_momentum(snapshot, parts.model, parts.optimizer), _masks_of(parts.inq))
    restore_phase(snapshot, parts)


def restore_phase(snapshot: Snapshot, parts: Parts) -> None:
    """Load what a phase adds to the network: learning rates, their schedule, loss scaler and averages.

    Args:
        snapshot: As for :func:`restore`, which has loaded its network already.
        parts: As for :func:`restore`.

    Raises:
        ValueError: See :func:`restore`.
    """
    facts = snapshot.facts
    _check_phase(snapshot, parts)
    if parts.optimizer is not None:
        for group, saved in zip(parts.optimizer.param_groups, facts.groups, strict=True):
            group |= saved
    if parts.lr_scheduler is not None and facts.lr_scheduler is not None:
        parts.lr_scheduler.load_state_dict(facts.lr_scheduler)
    if parts.scaler is not None and facts.scaler:
        parts.scaler.load_state_dict(facts.scaler)
    if parts.ema is not None:
        averages = parts.ema.to_load(of_kind(layout_of(snapshot), AVERAGE))
        copy_to(snapshot, {AVERAGE + name: each for name, each in averages.items()}, _masks_of(parts.inq))


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


def _masks_of(inq: INQScheduler | None) -> dict[str, Masks]:
    return {} if inq is None else {name: Masks(each.frozen, each.codes) for name, each in inq.state.items()}


def _new_momentum(snapshot: Snapshot, model: nn.Module, optimizer: SGD) -> dict[str, Tensor]:
    """Return empty momentum of the parameters that have it in a snapshot, by kind and name; others lose theirs."""
    layout, buffers = layout_of(snapshot), {}
    for name, param in model.named_parameters():
        optimizer.state.pop(param, None)
        if MOMENTUM + name in layout:
            # Its strides are the parameter's, as SGD creates them: it iterates over both in the same order.
            buffer = torch.empty_like(param, memory_format=torch.preserve_format)
            optimizer.state[param]["momentum_buffer"] = buffers[MOMENTUM + name] = buffer
    return buffers


def _stage_state(masks: Mapping[str, Masks], stages: StageFacts) -> dict[str, Any]:
    """Return the argument of INQScheduler.load_state_dict."""
    tensors = {
        name: {"num_bits": each.num_bits, "n_1": each.n_1, "levels": each.levels, **masks[name]._asdict()}
        for name, each in stages.tensors.items()
    }
    return {**vars(stages), "tensors": tensors}


def _check(snapshot: Snapshot, parts: Parts) -> None:
    layout, teacher = layout_of(snapshot), model_tensors(parts.teacher)
    _check_same("tensors of the network", of_kind(layout, MODEL), model_tensors(parts.model))
    if teacher:
        _check_same("tensors of the teacher", of_kind(layout, TEACHER), teacher)
    _check_stages(snapshot.facts.inq, parts.inq)
    if parts.optimizer is not None:
        _check_momentum(of_kind(layout, MOMENTUM), parts.model)
    _check_phase(snapshot, parts)


def _check_phase(snapshot: Snapshot, parts: Parts) -> None:
    facts = snapshot.facts
    if parts.optimizer is not None:
        saved, due = len(facts.groups), len(parts.optimizer.param_groups)
        if saved != due:
            raise ValueError(f"the checkpoint's optimizer has {saved} groups of parameters, the run's {due}")
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


def _check_momentum(momentum: Mapping[str, Tensor], model: nn.Module) -> None:
    params = dict(model.named_parameters())
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
