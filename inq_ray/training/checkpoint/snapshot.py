"""State of a run as tensors and facts, which determine every later bit, and nothing else.

Batches, augmentation, Mixup and dropout are functions of (seed, epoch, step, rank), so there is no generator to save.
Weights, masks, momentum and averages are the same bits on every rank, so rank 0's are saved. So are rank 0's buffers:
BatchNorm's running statistics differ between ranks during training, but training does not read them, and all code that
does broadcasts rank 0's first. (A network that reads running statistics during training, as batch renormalization does,
continues from rank 0's on all ranks: as good, but not with the same bits.)
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from inq_ray import __version__
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.digest import state_tensors
from inq_ray.scheduler import INQScheduler
from inq_ray.training.checkpoint.facts import RATES, Facts, History, StageFacts, TensorFacts
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.ema import Ema

# Kinds of tensors: prefixes of a parameter's or buffer's name.
MODEL = "model/"
FROZEN = "frozen/"
CODES = "codes/"
MOMENTUM = "momentum/"
AVERAGE = "average/"
TEACHER = "teacher/"
SUMS = "sums"
# Kinds whose values at frozen weights follow from codes.
LIVE_KINDS = (MODEL, MOMENTUM, AVERAGE)


class Snapshot(NamedTuple):
    """State of a run.

    Attributes:
        tensors: Tensors by kind and name; not copies of the run's. Those of a stored checkpoint are read when used.
        facts: Everything else.
    """

    tensors: Mapping[str, Tensor]
    facts: Facts

    @property
    def position(self) -> TrainingPosition:
        """Position at which it was taken."""
        return self.facts.position

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        """Return the tensors of a kind, by name."""
        return of_kind(self.tensors, kind)


def of_kind(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the tensors of a kind, by name."""
    return {name.removeprefix(kind): tensors[name] for name in tensors if name.startswith(kind)}


def kind_and_name(key: str) -> tuple[str, str]:
    """Return the kind of a tensor, such as MODEL, and the name of its parameter or buffer."""
    kind, slash, name = key.partition("/")
    return kind + slash, name


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The objects of a run that change during training; None = does not exist at this position.

    Attributes:
        model: The network, not wrapped.
        optimizer: Optimizer of the phase, for the model's parameters.
        inq: Masks and codes; None during float training.
        lr_scheduler: Learning rate schedule of the phase.
        scaler: Loss scaler.
        ema: Averages of the phase.
        teacher: Network whose outputs are the targets of stages. It does not change, but may not exist anywhere else:
            float training made it, or its file has changed since.
    """

    model: nn.Module
    optimizer: SGD | None = None
    inq: INQScheduler | None = None
    lr_scheduler: LRScheduler | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    teacher: nn.Module | None = None


def take(
    parts: Parts,
    history: History,
    sums: Tensor,
    *,
    position: TrainingPosition,
    config: RunConfig,
    fingerprint: str | None,
) -> Snapshot:
    """Return the current state of a run; large tensors are not copied, so copy them before the run continues.

    Args:
        parts: The run's objects.
        history: What the run remembers.
        sums: float64 [ranks, 3], each rank's loss, hits and samples in the current epoch.
        position: Current position.
        config: Configuration of the run.
        fingerprint: Fingerprint of its data.
    """
    model, optimizer, inq = parts.model, parts.optimizer, parts.inq
    state = inq.state if inq else {}
    kinds: dict[str, Mapping[str, Tensor]] = {
        MODEL: model_tensors(model),
        MOMENTUM: momentum_of(model, optimizer) if optimizer else {},
        FROZEN: {name: each.frozen for name, each in state.items()},
        CODES: {name: each.codes for name, each in state.items()},
        AVERAGE: parts.ema.state_dict() if parts.ema else {},
        TEACHER: model_tensors(parts.teacher),
    }
    tensors = {kind + name: tensor.detach() for kind, named in kinds.items() for name, tensor in named.items()}
    groups = optimizer.param_groups if optimizer else []
    facts = Facts(
        **vars(history),
        position=position,
        inq=_stage_facts(inq) if inq else None,
        groups=tuple({rate: float(group[rate]) for rate in RATES if rate in group} for group in groups),
        lr_scheduler=parts.lr_scheduler.state_dict() if parts.lr_scheduler else None,
        scaler=parts.scaler.state_dict() if parts.scaler else None,
        has_ema=parts.ema is not None,
        config=config,
        fingerprint=fingerprint,
        versions={"inq_ray": __version__, "torch": torch.__version__, "python": platform.python_version()},
        world_size=len(sums),
    )
    return Snapshot(tensors | {SUMS: sums}, facts)


def momentum_of(model: nn.Module, optimizer: SGD) -> dict[str, Tensor]:
    """Return momentum by parameter name, for parameters that have it; not copies.

    Args:
        model: Network with the optimizer's parameters.
        optimizer: Optimizer of the phase.
    """
    params = ((name, optimizer.state.get(param, {})) for name, param in model.named_parameters())
    return {name: state["momentum_buffer"] for name, state in params if state.get("momentum_buffer") is not None}


def model_tensors(model: nn.Module | None) -> dict[str, Tensor]:
    """Return parameters and buffers, each once, including those that a state_dict omits."""
    return {} if model is None else {**dict(model.named_parameters()), **dict(model.named_buffers())}


def replicated(parts: Parts, *, has_buffers: bool) -> dict[str, Tensor]:
    """Return the tensors that are the same bits on every rank, by name: weights, masks, codes and momentum; not copies.

    Args:
        parts: The run's objects.
        has_buffers: Whether buffers are the same too, which they are not during a phase.
    """
    model = parts.model
    tensors = dict(model.state_dict() if has_buffers else model.named_parameters())
    if parts.optimizer is not None:
        tensors |= {f"{name}/momentum": each for name, each in momentum_of(model, parts.optimizer).items()}
    return tensors | (state_tensors(parts.inq.state) if parts.inq is not None else {})


def _stage_facts(inq: INQScheduler) -> StageFacts:
    """Return INQScheduler.state_dict() without its tensors, which it would copy."""
    tensors = {name: TensorFacts.of(each.codebook) for name, each in inq.state.items()}
    return StageFacts(
        stage=inq.stage,
        portions=tuple(inq.portions),
        strategy=inq.strategy,
        seed=inq.seed,
        codebook=inq.codebook,
        tensors=tensors,
    )
