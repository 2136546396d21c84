import copy
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.core.channels import codebook_of
from inq_ray.core.codebook import LEVELS
from inq_ray.training.checkpoint.compact import compact
from inq_ray.training.checkpoint.facts import TensorFacts
from inq_ray.training.checkpoint.files import encode
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.snapshot import AVERAGE, CODES, FROZEN, MODEL, MOMENTUM, Snapshot
from tests.training.checkpoint.networks import (
    begin_stage,
    expand,
    make_parts,
    make_snapshot,
    simple,
    snapshot_bits,
    snapshot_of,
)

POSITION = TrainingPosition(stage=1, epoch=0, step=0)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Tensors of any bits, some of them quantized: none, some or all of their weights frozen, at any number of bits."""
    tensors: dict[str, torch.Tensor] = {}
    quantized: dict[str, TensorFacts] = {}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def anything(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        size = torch.empty(0, dtype=dtype).element_size()
        noise = torch.randint(0, 256, (torch.Size(shape).numel() * size,), generator=generator, dtype=torch.uint8)
        return (noise % 2).bool().view(shape) if dtype == torch.bool else noise.view(dtype).view(shape)

    for index in range(draw(st.integers(0, 3))):
        name = f"layer{index}.weight"
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
        exponents = st.none() | st.integers(-126, 127)
        n_1 = [draw(exponents) for _ in range(shape[0])] if len(shape) > 1 and shape[0] else draw(exponents)
        codebook = codebook_of(draw(st.integers(2, 8)), n_1, draw(st.sampled_from(LEVELS)))
        quantized[name] = TensorFacts.of(codebook)
        portion = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
        frozen = torch.rand(shape, generator=generator) < portion
        codes = codebook.encode(anything(shape, dtype).nan_to_num(0)) * frozen
        wide = torch.promote_types(dtype, torch.float32)
        tensors[FROZEN + name], tensors[CODES + name] = frozen, codes
        strange = draw(st.sets(st.sampled_from([MODEL, MOMENTUM, AVERAGE]), max_size=1))
        for kind, of in ((MODEL, dtype), (MOMENTUM, dtype), (AVERAGE, wide)):
            if kind != MODEL and draw(st.booleans()):
                continue
            at_frozen = torch.zeros(shape, dtype=of) if kind == MOMENTUM else codebook.decode(codes, of)
            any_bits = anything(shape, of)
            tensors[kind + name] = any_bits if kind in strange else torch.where(frozen, at_frozen, any_bits)
    for dtype in draw(st.lists(st.sampled_from([torch.float16, torch.int64, torch.bool, torch.uint8, torch.float32]))):
        tensors[f"{MODEL}buffer{len(tensors)}"] = anything(draw(st.lists(st.integers(0, 4), max_size=4)), dtype)
    return Snapshot(tensors, simple(POSITION).facts.with_quantized(quantized))


@given(snapshots(), st.sampled_from([8, 16, 2**20]))
@settings(max_examples=150)
def test_snapshot_to_bytes_to_snapshot_is_the_identity(snapshot: Snapshot, piece: int) -> None:
    before, facts = snapshot_bits(snapshot), copy.deepcopy(snapshot.facts)
    with mock.patch("inq_ray.training.checkpoint.stored._PIECE", piece):
        after = expand(compact(snapshot))
    assert snapshot_bits(after) == before
    assert after.facts == facts
    assert snapshot_bits(snapshot) == before  # left as it was
    assert snapshot.facts == facts


@given(snapshots())
@settings(max_examples=20)
def test_the_same_snapshot_gives_the_same_bytes(snapshot: Snapshot) -> None:
    first, second = (encode(snapshot, is_stage_end=True, top1=12.5) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_of_what_trains_only_live_values_are_kept(stages: int, ema_decay: float | None) -> None:
    snapshot = make_snapshot(stages=stages, ema_decay=ema_decay)
    small = compact(snapshot)
    for name, entry in small.facts.quantized.items():
        num_live = snapshot.tensors[FROZEN + name].logical_not().sum().item()
        kinds = [kind for kind in (MODEL, MOMENTUM, AVERAGE) if kind + name in small.tensors]
        assert all(small.tensors[kind + name].numel() == num_live for kind in kinds)
        assert entry.live_only == (() if stages == 0 else tuple(kinds))
        assert (FROZEN + name in small.tensors) == (stages in (1, 2))
    assert snapshot_bits(expand(small)) == snapshot_bits(snapshot)


@pytest.mark.parametrize(("stages", "bytes_a_weight"), [(1, 4.375), (2, 2.125), (3, 0.5)])
def test_size_on_disk(stages: int, bytes_a_weight: float) -> None:
    """At 4 bits, with momentum: 8 bytes a live weight, half a byte a frozen one, an eighth for the mask."""
    parts = make_parts(torch.nn.Sequential(torch.nn.Linear(400, 300, bias=False)), ema_decay=None)
    for _ in range(stages):
        parts = begin_stage(parts, ema_decay=None)
    for param in parts.model.parameters():
        parts.optimizer.state[param]["momentum_buffer"] = torch.zeros_like(param)
    _, files = encode(snapshot_of(parts, POSITION), is_stage_end=False, top1=None)
    num_bytes = sum(map(len, files.values()))
    assert num_bytes / 120_000 == pytest.approx(bytes_a_weight, abs=0.05)


def test_a_broken_compact_snapshot_is_refused() -> None:
    small = compact(make_snapshot(stages=1))
    for kind in (FROZEN, CODES, MODEL):
        tensors = {name: tensor for name, tensor in small.tensors.items() if name != f"{kind}0.weight"}
        with pytest.raises(ValueError, match=f"lacks {kind}0.weight"):
            expand(Snapshot(tensors, small.facts))
    entries = {**small.facts.quantized}
    for live_only in (("frozen/",), (MODEL, MODEL)):
        entries["0.weight"] = replace(entries["0.weight"], live_only=live_only)
        with pytest.raises(ValueError, match="only live values of"):
            expand(Snapshot(small.tensors, small.facts.with_quantized(entries)))
    tensors = {**small.tensors, f"{CODES}0.weight": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"3 of torch\.uint8 as codes/0.weight"):
        expand(Snapshot(tensors, small.facts))


def test_resnet18s_weights_come_back() -> None:
    parts = make_parts(torchvision.models.resnet18(), ema_decay=None)
    parts = begin_stage(parts, ema_decay=None)
    snapshot = snapshot_of(parts, POSITION)
    assert snapshot_bits(expand(compact(snapshot))) == snapshot_bits(snapshot)
