"""Snapshots put back: after them a run goes on as one that was never stopped, on one rank and on several."""

import json
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import rank, world_size
from inq_ray.training.checkpoint.broadcast import broadcast_snapshot
from inq_ray.training.checkpoint.compact import compact
from inq_ray.training.checkpoint.facts import Facts
from inq_ray.training.checkpoint.files import DamagedError
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore, sums_of_rank
from inq_ray.training.checkpoint.snapshot import AVERAGE, MODEL, SUMS, Parts, Snapshot
from inq_ray.training.checkpoint.stored import stored_snapshot
from inq_ray.training.config import RunConfig
from inq_ray.training.loop.ema import Ema
from tests.ranks import rank_outcomes, run_ranks
from tests.training.checkpoint.networks import (
    SUMS_OF_ONE,
    BytesBlocks,
    begin_stage,
    make_history,
    make_network,
    make_parts,
    make_snapshot,
    snapshot_bits,
    snapshot_of,
    stop_gradients,
    stored,
    train_step,
    wrapped,
)

pytestmark = pytest.mark.system

STAGES, STEPS = 3, 4


def as_file(snapshot: Snapshot) -> Snapshot:
    packed = compact(snapshot)
    facts = Facts.from_json(json.loads(json.dumps(packed.facts.to_json(), allow_nan=False)))
    return stored(Snapshot(packed.tensors, facts))


def begin_again(snapshot: Snapshot, ema_decay: float | None, **sgd: Any) -> tuple[Parts, nn.Module]:
    """What a process that has just started does with a snapshot: everything is made anew, of other weights."""
    parts = make_parts(make_network(seed=99), ema_decay=None, **sgd)
    restore(snapshot, replace(parts, lr_scheduler=None))
    if snapshot.position.stage:
        stop_gradients(parts)
    parts = replace(parts, ema=None if ema_decay is None else Ema(parts.model, ema_decay))
    restore(snapshot, parts)
    return parts, wrapped(parts.model)


def run(stop_at: tuple[int, int] | None, ema_decay: float | None, **sgd: Any) -> dict[str, Any]:
    """Stages of some steps; at `stop_at` all is thrown away but the bytes of rank 0's snapshot.

    BatchNorm's statistics are rank 0's before each stage and at the end, as in a run, and never in between.
    """
    network = make_network()
    parts = make_parts(network, ema_decay=None, **sgd)
    losses = []
    for stage in range(STAGES):
        broadcast_tensors(dict(parts.model.named_buffers()))
        parts = begin_stage(parts, ema_decay)
        if not any(param.requires_grad for param in parts.model.parameters()):
            continue
        model = wrapped(parts.model)
        for step in range(STEPS):
            if stop_at == (stage, step):
                position = TrainingPosition(stage=stage + 1, epoch=0, step=step)
                snapshot = as_file(snapshot_of(parts, position)) if rank() == 0 else None
                del parts, model
                shared = broadcast_snapshot(snapshot)
                assert shared is not None
                parts, model = begin_again(shared, ema_decay, **sgd)
            losses.append(train_step(parts, model, 100 * stage + step)[0].item())
        if parts.ema is not None:
            parts.ema.store()
    broadcast_tensors(dict(parts.model.named_buffers()))
    return {
        "bits": snapshot_bits(snapshot_of(parts, TrainingPosition(stage=STAGES, epoch=1, step=0))),
        "losses": losses,
    }


def run_both(stops: list[tuple[int, int]], ema_decay: float | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return run(None, ema_decay), [run(stop, ema_decay) for stop in stops]


@pytest.mark.parametrize(
    ("size", "ema_decay"),
    [(1, None), (2, 0.9), *(pytest.param(*each, marks=pytest.mark.long) for each in ((1, 0.9), (3, None), (3, 0.9)))],
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(size: int, ema_decay: float | None) -> None:
    stops = [(0, 0), (0, 3), (1, 1), (2, 2)]
    answers = run_ranks(run_both, size, stops, ema_decay)
    first = answers[0][0]["bits"]
    for calm, stopped in answers:
        assert calm["bits"] == first
        for stop, other in zip(stops, stopped, strict=True):
            different = [name for name, bits in calm["bits"].items() if other["bits"][name] != bits]
            assert different == [], stop
            assert other["losses"] == calm["losses"], stop


def statistics_in_between() -> tuple[list[float], int]:
    parts = begin_stage(make_parts(make_network()))
    model = wrapped(parts.model)
    train_step(parts, model, 0)
    return dict(parts.model.named_buffers())["1.running_mean"].tolist(), world_size()


def test_batchnorms_statistics_do_differ_between_ranks_while_they_train() -> None:
    """Else the test above would prove nothing about them."""
    first, second = run_ranks(statistics_in_between, 2)
    assert first[0] != second[0]


@given(st.data())
@settings(max_examples=25)
def test_restoring_a_snapshot_is_the_identity(data: st.DataObject) -> None:
    stages = data.draw(st.integers(0, 3))
    steps = data.draw(st.integers(0, 2))
    kind = {
        "is_quantized": stages > 0,
        "fused": data.draw(st.booleans()),
        "momentum": data.draw(st.sampled_from([0.0, 0.9])),
        "ema_decay": data.draw(st.sampled_from([None, 0.9])),
    }
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    parts = make_parts(make_network(dtype=dtype), **kind)
    for _ in range(stages):
        parts = begin_stage(parts, kind["ema_decay"])
    for step in range(steps):
        train_step(parts, parts.model, step)
    snapshot = as_file(snapshot_of(parts, TrainingPosition(stage=stages, epoch=0, step=steps)))
    assert snapshot_bits(snapshot) == snapshot_bits(
        snapshot_of(parts, TrainingPosition(stage=stages, epoch=0, step=steps))
    )
    fresh = make_parts(make_network(seed=5, dtype=dtype), **kind)
    strides = {name: param.stride() for name, param in fresh.model.named_parameters()}
    restore(snapshot, replace(fresh, ema=None))
    if kind["is_quantized"]:
        stop_gradients(fresh)
    fresh = replace(fresh, ema=None if kind["ema_decay"] is None else Ema(fresh.model, kind["ema_decay"]))
    restore(snapshot, fresh)
    after = snapshot_of(fresh, TrainingPosition(stage=stages, epoch=0, step=steps))
    assert snapshot_bits(after) == snapshot_bits(snapshot)
    assert json.dumps(after.facts.to_json()) == json.dumps(snapshot.facts.to_json())
    assert {name: param.stride() for name, param in fresh.model.named_parameters()} == strides
    for step in range(3):
        ours, theirs = train_step(fresh, fresh.model, step), train_step(parts, parts.model, step)
        assert ours.tolist() == theirs.tolist()
    assert snapshot_bits(snapshot_of(fresh, snapshot.position)) == snapshot_bits(snapshot_of(parts, snapshot.position))


def test_history_comes_back() -> None:
    snapshot = as_file(make_snapshot())
    was, now = make_history(), snapshot.facts
    assert repr(now.rows) == repr(was.rows)  # a loss of them is NaN
    assert (now.epochs_done, now.bad_images, now.seconds) == (was.epochs_done, was.bad_images, was.seconds)
    assert torch.equal(snapshot.tensors[SUMS], SUMS_OF_ONE)
    assert (now.config, now.world_size) == (RunConfig(), 1)


def test_sums_go_on_at_any_world_size() -> None:
    sums = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]], dtype=torch.float64)
    assert [sums_of_rank(sums, position, 2).tolist() for position in range(2)] == sums.tolist()
    for size in (1, 3):
        parts = [sums_of_rank(sums, position, size) for position in range(size)]
        assert sum(parts).tolist() == [11.0, 22.0, 33.0]


def test_the_scalers_state_comes_back() -> None:
    def make(**options: Any) -> Parts:
        scaler = torch.amp.GradScaler("cpu", enabled=True, **options)
        scaler.scale(torch.ones(1))
        return replace(make_parts(make_network(), is_quantized=False), scaler=scaler)

    fresh = make()
    snapshot = as_file(
        snapshot_of(make(init_scale=2.0**7, growth_interval=9), TrainingPosition(stage=0, epoch=0, step=1))
    )
    restore(snapshot, fresh)
    assert fresh.scaler is not None
    assert fresh.scaler.get_scale() == 2.0**7


def test_a_snapshot_of_something_else_is_refused() -> None:
    snapshot = make_snapshot()
    float_only = make_snapshot(stages=0, is_quantized=False)
    with pytest.raises(ValueError, match="float network"):
        restore(float_only, make_parts(make_network()))
    with pytest.raises(ValueError, match="or the other way round"):
        restore(snapshot, make_parts(make_network(), is_quantized=False))
    with pytest.raises(ValueError, match=r"only one side has 7\.bias, 7\.weight"):
        restore(snapshot, make_parts(nn.Sequential(*list(make_network())[:7])))
    other = make_network()
    other[7] = nn.Linear(32, 4)
    with pytest.raises(ValueError, match=r"7\.weight as torch\.float32 \[3, 32\], the network as .* \[4, 32\]"):
        restore(snapshot, make_parts(other))
    with pytest.raises(ValueError, match="no learning-rate schedule"):
        restore(Snapshot(snapshot.tensors, replace(snapshot.facts, lr_scheduler=None)), make_parts(make_network()))
    with pytest.raises(ValueError, match="schedule lacks lr_lambdas"):
        restore(Snapshot(snapshot.tensors, replace(snapshot.facts, lr_scheduler={})), make_parts(make_network()))


def test_a_refused_snapshot_changes_no_weight() -> None:
    parts = make_parts(make_network(seed=3))
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    snapshot = make_snapshot()
    tensors = {name: tensor for name, tensor in snapshot.tensors.items() if name != MODEL + "7.bias"}
    with pytest.raises(ValueError, match=r"7\.bias"):
        restore(Snapshot(tensors, snapshot.facts), parts)
    assert all(torch.equal(before[name], tensor) for name, tensor in parts.model.state_dict().items())


def share(kind: str) -> dict[str, Any] | None:
    made = make_snapshot(seed=7) if kind == "snapshot" else None  # by all ranks together
    mine = as_file(made) if made is not None and rank() == 0 else None
    shared = broadcast_snapshot(mine, "it is broken" if rank() == 0 and kind == "error" else None)
    if made is None or shared is None:
        return None
    return {"mine": snapshot_bits(made), "bits": snapshot_bits(shared), "facts": shared.facts.to_json()}


@pytest.mark.parametrize("size", [1, 3])
def test_every_rank_gets_rank_0s_snapshot(size: int) -> None:
    answers = run_ranks(share, size, "snapshot")
    for answer in answers:
        assert answer["bits"] == answers[0]["mine"]
        assert answer["facts"] == answers[0]["facts"]
    assert all(answer["mine"] != answers[0]["mine"] for answer in answers[1:])  # each has its own momentum
    assert run_ranks(share, size, "nothing") == [None] * size
    assert ["it is broken"] * size == [str(outcome.error) for outcome in rank_outcomes(share, size, "error")]


class FailingBlocks(BytesBlocks):
    """A file that is read when it is opened, but not to its end."""

    def read(self, index: int) -> torch.Tensor:
        if (index + 1) * self.block_bytes >= self.num_bytes:
            raise DamagedError("tensors.safetensors has changed since it was checked")
        return super().read(index)


def restore_shared(kind: type[BytesBlocks], packed: Snapshot) -> dict[str, Any]:
    """Restores what rank 0 reads, and reports the largest message and what each rank then has."""
    snapshot = None
    if rank() == 0:
        blocks = kind(safetensors.torch.save(dict(packed.tensors)), block_bytes=1000)
        snapshot = stored_snapshot(blocks, packed.facts)
    shared = broadcast_snapshot(snapshot)
    assert shared is not None
    parts, largest, send = make_parts(make_network(seed=99), ema_decay=None), 0, torch.distributed.broadcast

    def broadcast(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        nonlocal largest
        largest = max(largest, tensor.nbytes)
        return send(tensor, *args, **options)

    with mock.patch.object(torch.distributed, "broadcast", broadcast):
        restore(shared, parts)
    bits = snapshot_bits(snapshot_of(parts, shared.position))
    return {"largest": largest, "bits": {name: each for name, each in bits.items() if name != SUMS}}


def test_a_checkpoint_travels_in_blocks() -> None:
    snapshot = make_snapshot()
    packed, before = compact(snapshot), snapshot_bits(snapshot)
    assert sum(tensor.nbytes for tensor in packed.tensors.values()) > 3000
    for answer in run_ranks(restore_shared, 3, BytesBlocks, packed):
        assert answer["largest"] == 1001
        assert answer["bits"] == {name: bits for name, bits in before.items() if not name.startswith((AVERAGE, SUMS))}


def test_a_checkpoint_that_rank_0_cannot_read_stops_every_rank_with_one_line() -> None:
    for outcome in rank_outcomes(restore_shared, 3, FailingBlocks, compact(make_snapshot())):
        assert isinstance(outcome.error, ValueError), outcome
        line = "rank 0 cannot read the checkpoint: tensors.safetensors has changed since it was checked"
        assert str(outcome.error) == line
