"""A run's state as tensors and facts, and back: what it holds and nothing more decides every bit that comes after.

Batches, augmentation, mixup and dropout are functions of (seed, epoch, step, rank), so there is no generator to keep.
Weights, masks, momentum and averages are the same bits on every rank: rank 0's are kept. So are rank 0's buffers.
BatchNorm's running statistics differ between ranks while they train, but training does not read them, and every place
that does takes rank 0's first. (A network of one's own that reads running statistics while it trains, as batch
renormalization does, goes on from rank 0's on all ranks: as good, but not the same bits.)
"""

import dataclasses
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from inq_ray import __version__
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.digest import state_tensors
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.state_dict_check import check_state
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.ema import Ema
from inq_ray.training.loop.non_finite import Faults
from inq_ray.training.report.events import Row

# Kinds of tensors: what stands before a parameter's or buffer's name.
MODEL = "model/"
FROZEN = "frozen/"
CODES = "codes/"
MOMENTUM = "momentum/"
AVERAGE = "average/"
TEACHER = "teacher/"
SUMS = "sums"


class Snapshot(NamedTuple):
    """The state of a run.

    Attributes:
        tensors: by kind and name; taken from a run they are its own, not copies.
        facts: the rest, which JSON keeps.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def position(self) -> TrainingPosition:
        """Where it was taken."""
        return TrainingPosition(**self.facts["place"])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The objects of a run that change while it trains; None = there is none at this place.

    Attributes:
        model: the network, not wrapped.
        optimizer: of the phase; its parameters are the model's.
        inq: masks and codes; None while the network is float.
        lr_scheduler: of the phase.
        scaler: of the loss.
        ema: averages of the phase.
        teacher: the network whose outputs stages learn. It does not change, but may be nowhere else: training before
            the first stage made it, or its file is another by now.
    """

    model: nn.Module
    optimizer: SGD | None = None
    inq: INQScheduler | None = None
    lr_scheduler: LRScheduler | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    teacher: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class History:
    """What a run remembers beside its network.

    Attributes:
        epochs_done: over the whole run.
        rows: metrics so far.
        bad_images: reasons by name, of all ranks.
        sums: float64 [ranks, 3], each rank's loss, hits and samples of the epoch in which the run is.
        epoch_seconds: time spent in that epoch.
        data_seconds: of them, those in which rank 0 waited for images.
        seconds: time spent in the whole run.
        faults: steps that were not finite.
        time: seconds since 1970 when it was taken; None where that was not kept.
        order_workers: ranks for which the run's order is laid out where samples are read in groups; None where that was
            not kept.
        world_sizes: numbers of ranks that it ran on, one after the other; none where that was not kept.
    """

    epochs_done: int
    rows: tuple[Row, ...]
    bad_images: Mapping[str, str]
    sums: Tensor
    epoch_seconds: float
    data_seconds: float
    seconds: float
    faults: Faults = field(default_factory=Faults)
    time: float | None = None
    order_workers: int | None = None
    world_sizes: tuple[int, ...] = ()


def take(
    parts: Parts, history: History, *, position: TrainingPosition, config: RunConfig, fingerprint: str | None
) -> Snapshot:
    """The state of a run as it stands; nothing large is copied, so copy before the run goes on.

    Args:
        parts: the run's objects.
        history: what it remembers.
        position: where it is.
        config: of the run.
        fingerprint: of its data.
    """
    model, optimizer, inq = parts.model, parts.optimizer, parts.inq
    tensors = {MODEL + name: tensor for name, tensor in _model_tensors(model).items()}
    momentum = {} if optimizer is None else momentum_of(model, optimizer)
    tensors |= {MOMENTUM + name: buffer for name, buffer in momentum.items()}
    tensors |= {FROZEN + name: state.frozen for name, state in inq.state.items()} if inq else {}
    tensors |= {CODES + name: state.codes for name, state in inq.state.items()} if inq else {}
    tensors |= {AVERAGE + name: average for name, average in parts.ema.state_dict().items()} if parts.ema else {}
    tensors |= {TEACHER + name: tensor for name, tensor in _model_tensors(parts.teacher).items()}
    tensors[SUMS] = history.sums
    facts = {
        "place": dataclasses.asdict(position),
        "epochs_done": history.epochs_done,
        "time": history.time,
        "order_workers": history.order_workers,
        "world_sizes": list(history.world_sizes),
        "seconds": {"run": history.seconds, "epoch": history.epoch_seconds, "data": history.data_seconds},
        "rows": [_row_to_json(row) for row in history.rows],
        "bad_images": dict(history.bad_images),
        "faults": history.faults.to_json(),
        "inq": None if inq is None else _inq_facts(inq),
        "groups": [{key: _number(group[key]) for key in RATES if key in group} for group in _groups(optimizer)],
        "lr_scheduler": parts.lr_scheduler.state_dict() if parts.lr_scheduler else None,
        "scaler": parts.scaler.state_dict() if parts.scaler else None,
        "has_ema": parts.ema is not None,
        "config": dataclasses.asdict(config),
        "fingerprint": fingerprint,
        "versions": {"inq_ray": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "world_size": len(history.sums),
    }
    return Snapshot({name: tensor.detach() for name, tensor in tensors.items()}, facts)


def momentum_of(model: nn.Module, optimizer: SGD) -> dict[str, Tensor]:
    """Momentum by parameter name, of those that have one; not copies.

    Args:
        model: whose parameters the optimizer has.
        optimizer: of the phase.
    """
    params = ((name, optimizer.state.get(param, {})) for name, param in model.named_parameters())
    return {name: state["momentum_buffer"] for name, state in params if state.get("momentum_buffer") is not None}


def restore(snapshot: Snapshot, parts: Parts) -> None:
    """Puts a snapshot into objects that were made as at its place; weights, buffers and memory formats stay in place.

    Afterwards they hold the bits that the snapshot's run held. What follows from masks is the caller's: gradients of
    tensors without live weights have to be stopped before an Ema is made and before the model is wrapped.

    Args:
        snapshot: expanded, on the CPU.
        parts: on any device. Where it has no scheduler, scaler or averages, those of the snapshot are left out, as
            at a stage's end, after which they begin anew.

    Raises:
        ValueError: it is of another network or phase; names what differs.
    """
    tensors, facts = snapshot
    model, teacher = _model_tensors(parts.model), _model_tensors(parts.teacher)
    _check_same("tensors of the network", _of_kind(tensors, MODEL), model)
    if teacher:
        _check_same("tensors of the teacher", _of_kind(tensors, TEACHER), teacher)
    _check_stages(facts["inq"], parts.inq)
    if parts.optimizer is not None:
        _check_optimizer(snapshot, parts.model, parts.optimizer)
    if parts.lr_scheduler is not None:
        if facts["lr_scheduler"] is None:
            raise ValueError("the checkpoint has no learning-rate schedule")
        if "lr_lambdas" not in facts["lr_scheduler"]:  # without it torch raises a KeyError, with half of it loaded
            raise ValueError("the checkpoint's learning-rate schedule lacks lr_lambdas")
        check_state("learning-rate schedule", facts["lr_scheduler"], parts.lr_scheduler)
    if parts.scaler is not None and facts["scaler"]:
        check_state("scaler", facts["scaler"], parts.scaler)
    with torch.no_grad():
        for name, tensor in model.items():
            tensor.copy_(tensors[MODEL + name])
        for name, tensor in teacher.items():
            tensor.copy_(tensors[TEACHER + name])
    if parts.inq is not None:
        parts.inq.load_state_dict(_inq_state(tensors, facts["inq"]))
    if parts.optimizer is not None:
        _restore_optimizer(snapshot, parts.model, parts.optimizer)
    if parts.lr_scheduler is not None:
        parts.lr_scheduler.load_state_dict(facts["lr_scheduler"])
    if parts.scaler is not None and facts["scaler"]:
        parts.scaler.load_state_dict(facts["scaler"])
    if parts.ema is not None:
        parts.ema.load_state_dict(_of_kind(tensors, AVERAGE))


def history_of(snapshot: Snapshot) -> History:
    """What the run remembered."""
    facts = snapshot.facts
    return History(
        epochs_done=facts["epochs_done"],
        rows=tuple(_row_from_json(row) for row in facts["rows"]),
        bad_images=facts["bad_images"],
        sums=snapshot.tensors[SUMS],
        epoch_seconds=facts["seconds"]["epoch"],
        data_seconds=facts["seconds"]["data"],
        seconds=facts["seconds"]["run"],
        faults=Faults.from_json(facts.get("faults", {})),  # checkpoints of before there were any have none
        time=facts.get("time"),
        order_workers=facts.get("order_workers"),
        world_sizes=tuple(facts.get("world_sizes", ())),
    )


def sums_of_rank(sums: Tensor, rank: int, world_size: int) -> Tensor:
    """The sums with which a rank goes on in an epoch: its own; at another world size rank 0 has everybody's.

    Args:
        sums: float64 [ranks, 3], of a snapshot.
        rank: this one.
        world_size: now.

    Returns:
        float64 [3].
    """
    if len(sums) == world_size:
        return sums[rank].clone()
    return sums.sum(0) if rank == 0 else torch.zeros_like(sums[0])


RATES = ("lr", "initial_lr")


def _model_tensors(model: nn.Module | None) -> dict[str, Tensor]:
    """Parameters and buffers, each once, those too that a state_dict leaves out."""
    return {} if model is None else {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _groups(optimizer: SGD | None) -> list[dict[str, Any]]:
    return [] if optimizer is None else optimizer.param_groups


def _number(value: float | Tensor) -> float:
    return float(value)


def _check_stages(saved: Mapping[str, Any] | None, inq: INQScheduler | None) -> None:
    if (saved is None) != (inq is None):
        raise ValueError("the checkpoint is of a float network, the run's is quantized, or the other way round")
    if saved is None or inq is None:
        return
    saved = {"codebook": "max", **saved}  # the only rule before there were two
    ours = {"portions": list(inq.portions), "strategy": inq.strategy, "seed": inq.seed, "codebook": inq.codebook}
    for name, value in ours.items():
        if saved[name] != value:
            raise ValueError(f"the checkpoint's stages are of {name} {saved[name]}, the run's of {value}")


def _check_optimizer(snapshot: Snapshot, model: nn.Module, optimizer: SGD) -> None:
    tensors, facts = snapshot
    if len(facts["groups"]) != len(optimizer.param_groups):
        raise ValueError(
            f"the checkpoint's optimizer has {len(facts['groups'])} groups of parameters, the run's "
            f"{len(optimizer.param_groups)}"
        )
    params = dict(model.named_parameters())
    momentum = _of_kind(tensors, MOMENTUM)
    unknown = sorted(momentum.keys() - params.keys())
    if unknown:
        raise ValueError(f"the checkpoint has momentum of what the network lacks: {', '.join(unknown[:5])}")
    for name, buffer in momentum.items():
        if buffer.shape != params[name].shape:  # a smaller one would be copied all over the parameter's
            raise ValueError(
                f"the checkpoint has momentum of {name} as {list(buffer.shape)}, the network {list(params[name].shape)}"
            )


def _restore_optimizer(snapshot: Snapshot, model: nn.Module, optimizer: SGD) -> None:
    tensors, facts = snapshot
    for group, saved in zip(optimizer.param_groups, facts["groups"], strict=True):
        group |= saved
    momentum = _of_kind(tensors, MOMENTUM)
    for name, param in model.named_parameters():
        if name not in momentum:
            optimizer.state.pop(param, None)
            continue
        # Its strides are the parameter's, as SGD makes them: it steps through both in one order.
        buffer = torch.empty_like(param, memory_format=torch.preserve_format)
        optimizer.state[param]["momentum_buffer"] = buffer.copy_(momentum[name])


def _inq_facts(inq: INQScheduler) -> dict[str, Any]:
    """INQScheduler.state_dict() without its tensors, which is not called: it copies them."""
    return {
        "stage": inq.stage,
        "portions": list(inq.portions),
        "strategy": inq.strategy,
        "seed": inq.seed,
        "codebook": inq.codebook,
        "tensors": {
            name: {"num_bits": state.codebook.num_bits, "n_1": state.codebook.n_1} for name, state in inq.state.items()
        },
    }


def _inq_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What INQScheduler.load_state_dict takes."""
    of_tensors = {
        name: {**entry, "frozen": tensors[FROZEN + name], "codes": tensors[CODES + name]}
        for name, entry in facts["tensors"].items()
    }
    return {**facts, "tensors": of_tensors}


def _of_kind(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}


def _check_same(what: str, saved: Mapping[str, Tensor], due: Mapping[str, Tensor]) -> None:
    """Names, shapes and dtypes have to be the same."""
    different = sorted(saved.keys() ^ due.keys())
    if different:
        raise ValueError(f"the checkpoint has other {what}: only one side has {', '.join(different[:5])}")
    for name, tensor in due.items():
        if (saved[name].shape, saved[name].dtype) != (tensor.shape, tensor.dtype):
            theirs, ours = (f"{each.dtype} {list(each.shape)}" for each in (saved[name], tensor))
            raise ValueError(f"the checkpoint has {name} as {theirs}, the network as {ours}")


def _row_to_json(row: Row) -> dict[str, Any]:
    """A row's values; JSON has no NaN, so what is not finite becomes text."""
    values = dataclasses.asdict(row)
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _row_from_json(values: Mapping[str, Any]) -> Row:
    numbers: dict[str, Any] = {
        name: float(value) if isinstance(value, str) else value for name, value in values.items()
    }
    return Row(**numbers)


def replicated(parts: Parts, *, has_buffers: bool) -> dict[str, Tensor]:
    """Weights, masks and codes, and where there is an optimizer its momentum, by name; not copies.

    Args:
        parts: the run's objects.
        has_buffers: whether buffers are the same too: not while a phase trains.
    """
    model = parts.model
    tensors = dict(model.state_dict() if has_buffers else model.named_parameters())
    if parts.optimizer is not None:
        tensors |= {f"{name}/momentum": each for name, each in momentum_of(model, parts.optimizer).items()}
    return tensors | (state_tensors(parts.inq.state) if parts.inq is not None else {})
