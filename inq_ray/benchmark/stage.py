"""Time of a stage, and time and bytes of its message."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from inq_ray.benchmark.figures import Figure
from inq_ray.benchmark.subject import PORTIONS, Subject
from inq_ray.benchmark.turns import meet
from inq_ray.core.stage import StageUpdate
from inq_ray.core.state import TensorState
from inq_ray.distributed.broadcast import decode, encode


def measure_stage(subject: Subject) -> list[Figure]:
    """Return the figures of each stage, after an unmeasured round; every rank calls it."""
    seconds: dict[tuple[str, float], list[float]] = {}
    for round_ in range(subject.settings.effort.num_stages + 1):
        optimizer = subject.optimizer(subject.network())
        inq = subject.scheduler(optimizer)
        for portion in PORTIONS[1:]:
            before = _copied(inq.state)
            meet(subject.device)
            began = time.perf_counter()
            inq.step()
            meet(subject.device)
            found = {"stage": time.perf_counter() - began, **_message(before, inq.state, subject.device)}
            if round_:
                for what, value in found.items():
                    seconds.setdefault((what, portion), []).append(value)
    return [Figure.of(what, values, portion=portion) for (what, portion), values in seconds.items()]


def _copied(states: Mapping[str, TensorState]) -> dict[str, TensorState]:
    """Return states that a stage does not change."""
    return {
        name: TensorState(codebook=state.codebook, frozen=state.frozen.clone(), codes=state.codes.clone())
        for name, state in states.items()
    }


def _message(
    before: Mapping[str, TensorState], after: Mapping[str, TensorState], device: torch.device
) -> dict[str, float]:
    """Encode and decode the message of a stage on this rank; return seconds and bytes."""
    updates = {name: _update(before[name].frozen, state) for name, state in after.items()}
    began = time.perf_counter()
    message = encode(updates, before, None, stage=1)
    decode(message, before)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"message": time.perf_counter() - began, "message_bytes": float(message.numel())}


def _update(was_frozen: Tensor, state: TensorState) -> StageUpdate:
    newly = state.frozen & ~was_frozen
    return StageUpdate(state.codebook, newly, state.codes * newly)
