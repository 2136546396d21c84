"""SGD against torch.optim.SGD, bit for bit, and against its promises on frozen weights."""

import copy
import io
import math
import pickle
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from inq_ray.core.optim import group_step, masked_step
from inq_ray.core.optim.masked_step import Weights, fused_rounds_as_loop
from inq_ray.core.optim.sgd import SGD
from tests.core.weights import DTYPES, bits

SHAPES = [(7,), (5, 8), (4, 3, 3, 3), (1,)]
FORMS: list[dict[str, bool]] = [{}, {"foreach": False}, {"foreach": True}, {"fused": True}]


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    dampening = draw(st.sampled_from([0.0, 0.1]))
    return {
        "lr": draw(st.sampled_from([0.1, 0.01, 1.0])),
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": draw(st.sampled_from([0.0, 5e-4, 0.1])),
        "nesterov": momentum > 0 and dampening == 0 and draw(st.booleans()),
        "maximize": draw(st.booleans()),
        **draw(st.sampled_from(FORMS)),
    }


def random_params(seed: int, dtype: torch.dtype = torch.float32, *, channels_last: bool = False) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]
    params[1][0, :5] = torch.tensor([0.0, -0.0, 2.0**-126, -(2.0**-149), 3e-41])
    if channels_last:
        params[2] = params[2].to(memory_format=torch.channels_last)
    return [nn.Parameter(param) for param in params]


def set_gradients(params: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(1000 + seed)
    for param in params:
        gradient = torch.randn(param.shape, generator=generator).to(param.dtype)
        param.grad = torch.empty_like(param).copy_(gradient)


def random_frozen(params: list[nn.Parameter], portion: float, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2000 + seed)
    return [torch.rand(param.shape, generator=generator) < portion for param in params]


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_step, "_BLOCK", size)
        patch.setattr(masked_step, "_PACK", size)
        yield


def same(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> bool:
    return [bits(param) for param in ours] == [bits(param) for param in theirs]


def buffers(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[Tensor | None]:
    return [optimizer.state[param].get("momentum_buffer") if param in optimizer.state else None for param in params]


@settings(max_examples=60)
@given(options(), st.integers(0, 5), st.sampled_from(DTYPES), st.booleans(), st.sampled_from([16, 1 << 16]))
def test_with_nothing_frozen_it_is_torch_sgd(
    chosen: dict[str, Any], seed: int, dtype: torch.dtype, channels_last: bool, block: int
) -> None:
    ours, theirs = (random_params(seed, dtype, channels_last=channels_last) for _ in range(2))
    optimizers = [SGD(ours, **chosen), torch.optim.SGD(theirs, **chosen)]
    for param in ours:
        optimizers[0].freeze(param, torch.zeros(param.shape, dtype=torch.bool))  # type: ignore[attr-defined]
    for step in range(3):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            set_gradients(params, step)
            gradients = [bits(param.grad) for param in params if param.grad is not None]
            with blocks_of(block):
                optimizer.step()
            if params is ours:
                assert [bits(param.grad) for param in params if param.grad is not None] == gradients
        assert same(ours, theirs)
        for mine, other in zip(buffers(optimizers[0], ours), buffers(optimizers[1], theirs), strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or other is None or bits(mine) == bits(other)


@settings(max_examples=80)
@given(
    options(),
    st.sampled_from([0.2, 0.5, 0.9, 1.0]),
    st.integers(0, 5),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from([16, 1 << 16]),
)
def test_live_weights_move_as_torch_moves_them_and_frozen_ones_keep_their_bits(
    chosen: dict[str, Any],
    portion: float,
    seed: int,
    dtype: torch.dtype,
    channels_last: bool,
    freeze_at: int,
    block: int,
) -> None:
    ours, theirs = (random_params(seed, dtype, channels_last=channels_last) for _ in range(2))
    frozen = random_frozen(ours, portion, seed)
    optimizer, reference = SGD(ours, **chosen), torch.optim.SGD(theirs, **chosen)
    held: list[Tensor] = []
    for step in range(4):
        if step == freeze_at:
            for param, mask in zip(ours, frozen, strict=True):
                optimizer.freeze(param, mask)
                param.data.masked_fill_(mask, 0.25)
            held = [param.detach().clone() for param in ours]
        for params in (ours, theirs):
            set_gradients(params, step)
        gradients = [param.grad.clone() for param in ours if param.grad is not None]
        if step >= freeze_at:
            for param, mask in zip(ours, frozen, strict=True):
                assert param.grad is not None
                param.grad[mask] = math.nan if step % 2 else math.inf
            gradients = [param.grad.clone() for param in ours if param.grad is not None]
        with blocks_of(block):
            optimizer.step()
        reference.step()
        assert [bits(param.grad) for param in ours if param.grad is not None] == [bits(grad) for grad in gradients]
    for mine, other, mask, before in zip(ours, theirs, frozen, held, strict=True):
        assert bits(mine[mask]) == bits(before[mask]), "frozen weights keep their bits"
        assert bits(mine[~mask]) == bits(other[~mask]), "live weights move as torch moves them"
    for mine_buffer, other_buffer, mask in zip(
        buffers(optimizer, ours), buffers(reference, theirs), frozen, strict=True
    ):
        if mine_buffer is not None and other_buffer is not None:
            assert not bool(mine_buffer[mask].view(torch.uint8).any()), "frozen weights carry no momentum"
            assert bits(mine_buffer[~mask]) == bits(other_buffer[~mask])


@contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    """Count operations, each of which is at least a launch on a GPU: not views and allocations."""

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "aten" and not func.is_view and "empty" not in func.overloadpacket.__name__:
                counts[func.overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    with Counting():
        yield


@pytest.mark.parametrize("chosen", [{"nesterov": True, "weight_decay": 0.1}, {"maximize": True}, {}], ids=str)
def test_the_number_of_launches_does_not_grow_with_the_number_of_tensors(chosen: dict[str, Any]) -> None:
    seen = []
    for num in (4, 40):
        params = [nn.Parameter(torch.randn(3, 5, 3, 3)) for _ in range(num)]
        optimizer = SGD(params, lr=0.1, momentum=0.9, foreach=True, **chosen)
        for param, frozen in zip(params, random_frozen(params, 0.5), strict=True):
            optimizer.freeze(param, frozen)
        set_gradients(params, 0)
        optimizer.step()
        step, norm = Counter[str](), Counter[str]()
        with counted(step):
            optimizer.step()
        with counted(norm):
            optimizer.live_grads()
        assert step.total() <= 8
        assert norm.total() == 3
        seen.append((step, norm))
    assert seen[0] == seen[1]


@settings(max_examples=40)
@given(options(), st.integers(0, 5), st.sampled_from([16, 64, 1 << 24]), st.booleans())
def test_packs_step_as_blocks_do(chosen: dict[str, Any], seed: int, size: int, channels_last: bool) -> None:
    """With gradients missing at first, so that some have momentum and others do not; one is frozen as a whole."""
    chosen = {key: value for key, value in chosen.items() if key not in ("foreach", "fused")}
    many = [random_params(seed, channels_last=channels_last) for _ in range(2)]
    optimizers = [SGD(many[0], **chosen), SGD(many[1], foreach=True, **chosen)]
    frozen = [*random_frozen(many[0], 0.5, seed)[:3], torch.ones(1, dtype=torch.bool)]
    for step in range(4):
        for params, optimizer in zip(many, optimizers, strict=True):
            if step == 1:
                for param, each in zip(params, frozen, strict=True):
                    optimizer.freeze(param, each)
            set_gradients(params, step)
            params[step].grad = None
            with blocks_of(size):
                optimizer.step()
        assert same(*many)
        for mine, other in zip(*map(buffers, optimizers, many), strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or other is None or bits(mine) == bits(other)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_model_may_change_its_memory_format_after_weights_were_frozen(form: dict[str, bool]) -> None:
    ends = []
    for changes in (False, True):
        model = nn.Conv2d(4, 4, 3, bias=False)  # 144 weights: no rest that fused kernels round otherwise
        nn.init.constant_(model.weight, 0.25)
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, **form)  # type: ignore[arg-type]
        optimizer.freeze(model.weight, torch.arange(144).view(4, 4, 3, 3) % 3 == 0)
        if changes:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for _ in range(3):
            model.weight.grad = torch.empty_like(model.weight).copy_(torch.arange(144.0).view(4, 4, 3, 3))
            optimizer.step()
        ends.append(bits(model.weight))
    assert ends[0] == ends[1]


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("portion", [0.0, 0.5])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_neither_blocks_nor_threads_change_bits(form: dict[str, bool], portion: float) -> None:
    generator = torch.Generator().manual_seed(5)
    start, grad, chance = (torch.randn(300_001, generator=generator) for _ in range(3))
    ends: list[Tensor] = []
    for block, threads in ((1 << 20, 1), (1 << 16, 1), (1 << 16, 2), (1 << 10, 3)):
        param = nn.Parameter(start.clone())
        optimizer = SGD([param], lr=0.1, momentum=0.9, weight_decay=0.07, **form)  # type: ignore[arg-type]
        optimizer.freeze(param, chance > (math.inf if portion == 0 else 0.0))
        with blocks_of(block), num_threads(threads):
            for _ in range(3):
                param.grad = grad.clone()
                optimizer.step()
        ends.append(param.detach().view(torch.int32))
    assert all(end.equal(ends[0]) for end in ends)


@pytest.mark.parametrize(
    ("chosen", "rounds_alike", "expected"),
    [
        ({}, True, [(64, True), (6, None), ("blocks", 64), (6, None)]),
        ({}, False, [(70, None), (70, None)]),
        ({"fused": True}, False, [(70, True), ("blocks", 70)]),
        ({"fused": False}, True, [(70, False), (70, False)]),
        ({"foreach": False}, True, [(70, None), (70, None)]),
        ({"foreach": True}, True, [(70, None), (70, None)]),
    ],
)
def test_on_a_cpu_the_default_is_the_fused_kernel_where_it_rounds_as_the_loop(
    chosen: dict[str, bool], rounds_alike: bool, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(group_step, "fused_rounds_as_loop", lambda _: rounds_alike)
    monkeypatch.setattr(group_step, "sgd", lambda params, *_, fused, **__: calls.append((params[0].numel(), fused)))
    monkeypatch.setattr(group_step, "step_in_blocks", lambda part, **_: calls.append(("blocks", part.param.numel())))
    all_live, partly_frozen = (nn.Parameter(torch.ones(70)) for _ in range(2))
    optimizer = SGD([all_live, partly_frozen], lr=0.1, **chosen)  # type: ignore[arg-type]
    optimizer.freeze(partly_frozen, torch.arange(70) < 35)
    all_live.grad, partly_frozen.grad = torch.ones(70), torch.ones(70)
    optimizer.step()
    assert calls == expected


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere compilers may round otherwise")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_kernel_rounds_as_the_loop(dtype: torch.dtype) -> None:
    assert fused_rounds_as_loop(dtype)


@pytest.mark.parametrize("num", [1, 7, 16, 48, 70])
def test_a_division_holds_every_element_once(num: int) -> None:
    columns = torch.arange(2.0 * num), torch.ones(2 * num), torch.ones(2 * num, dtype=torch.uint8), None
    weights = Weights._make(None if column is None else column[num:] for column in columns)
    part, rest = weights.divide()
    assert part is None or part.param.numel() % 16 == 0
    assert rest is None or rest.param.numel() < 16
    params = [each.param for each in (part, rest) if each is not None]
    assert torch.cat(params).equal(weights.param)


class Subclass(torch.Tensor):
    """Memory of which nobody knows what it means."""


@pytest.mark.parametrize(
    ("change", "is_plain"),
    [
        ({}, True),
        ({"param": nn.Parameter(torch.ones(8, 6))}, True),
        ({"live": None, "momentum": None}, True),
        ({"grad": torch.ones(6, 8).T}, False),
        ({"live": torch.ones(6, 8, dtype=torch.uint8).T}, False),
        ({"grad": torch.ones(8, 6).bfloat16()}, False),
        ({"grad": torch.ones(8, 6).as_subclass(Subclass)}, False),
        ({"grad": torch.ones(8, 6).to_sparse()}, False),
        ({"grad": torch.ones(8, 6, device="meta")}, False),
        ({"grad": torch._neg_view(torch.ones(8, 6))}, False),
    ],
    ids=lambda value: "" if isinstance(value, bool) else ", ".join(value),
)
def test_parts_are_made_of_plain_memory_only(change: dict[str, Any], is_plain: bool) -> None:
    weights = Weights(torch.ones(8, 6), torch.ones(8, 6), torch.ones(8, 6, dtype=torch.uint8), torch.ones(8, 6))
    assert weights._replace(**change).is_plain() == is_plain


def test_sparse_gradients() -> None:
    ours, theirs = (nn.Embedding(40, 2, sparse=True) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    for layer, optimizer in ((ours, SGD(ours.parameters())), (theirs, torch.optim.SGD(theirs.parameters()))):
        for _ in range(2):
            optimizer.zero_grad()
            layer(torch.tensor([3, 3, 39])).sum().backward()
            optimizer.step()
    assert bits(ours.weight) == bits(theirs.weight)


def one_param(**chosen: Any) -> tuple[nn.Parameter, SGD]:
    param = nn.Parameter(torch.tensor([1.0, 0.5, -0.25, 0.0, -0.0, 3.0]))
    return param, SGD([param], lr=0.1, **{"momentum": 0.9, "weight_decay": 0.1, **chosen})


def mask(*places: int) -> Tensor:
    frozen = torch.zeros(6, dtype=torch.bool)
    frozen[list(places)] = True
    return frozen


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_hundred_steps_leave_frozen_bits_alone(form: dict[str, bool]) -> None:
    param, optimizer = one_param(nesterov=True, **form)
    optimizer.freeze(param, mask(0, 2, 3, 4))
    before = bits(param)
    for step in range(100):
        param.grad = torch.full((6,), float(step - 50))
        optimizer.step()
    after = bits(param)
    assert [after[place] for place in (0, 2, 3, 4)] == [before[place] for place in (0, 2, 3, 4)]
    assert after[1] != before[1]


def test_freezing_drops_momentum_and_thawing_starts_from_none() -> None:
    param, optimizer = one_param()
    param.grad = torch.ones(6)
    optimizer.step()
    optimizer.freeze(param, mask(0, 1))
    buffer = optimizer.state[param]["momentum_buffer"]
    assert buffer[:2].tolist() == [0.0, 0.0]
    assert bool((buffer[2:] != 0).all())
    optimizer.freeze(param, torch.ones(6, dtype=torch.bool))
    assert not buffer.any()
    optimizer.freeze(param, mask())
    optimizer.step()
    assert bool((buffer != 0).all())


def test_what_is_not_allowed() -> None:
    param, optimizer = one_param()
    with pytest.raises(ValueError, match=r"frozen must be bool \(6,\), got torch.float32 \(6,\)"):
        optimizer.freeze(param, torch.zeros(6))
    with pytest.raises(ValueError, match=r"frozen must be bool \(6,\), got torch.bool \(5,\)"):
        optimizer.freeze(param, torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="not one of this optimizer's"):
        optimizer.freeze(torch.zeros(6), mask(0))
    half = nn.Parameter(torch.zeros(6, dtype=torch.float16))
    with pytest.raises(ValueError, match="convert them to float32"):
        SGD([half]).freeze(half, mask(0))
    for wrong in (1, 9, 5.0):
        with pytest.raises(ValueError, match="weight bits must be a whole number from 2 to 8"):
            SGD([{"params": [param], "weight_bits": wrong}])
    with pytest.raises(ValueError, match="Nesterov"):
        SGD([param], nesterov=True)


def test_weight_bits_of_groups() -> None:
    one, two, three = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    optimizer = SGD([{"params": [one], "weight_bits": 3}, {"params": [two]}], weight_bits=4)
    optimizer.add_param_group({"params": [three], "weight_bits": None})
    assert [group["weight_bits"] for group in optimizer.param_groups] == [3, 4, None]
    assert SGD([one]).param_groups[0]["weight_bits"] is None


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_added_group_steps_beside_frozen_ones(form: dict[str, bool]) -> None:
    param, optimizer = one_param(**form)
    optimizer.freeze(param, mask(0, 1, 2))
    param.grad = torch.ones(6)
    optimizer.step()
    added, other = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer.add_param_group({"params": [added], "lr": 0.5})
    reference = torch.optim.SGD([other], lr=0.5, momentum=0.9, weight_decay=0.1, **form)  # type: ignore[arg-type]
    for _ in range(3):
        added.grad, other.grad = torch.ones(3), torch.ones(3)
        optimizer.step()
        reference.step()
    assert bits(added) == bits(other)


def test_parameters_without_gradient_are_left_alone() -> None:
    param, optimizer = one_param()
    other = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [other]})
    optimizer.freeze(param, mask(0))
    before = bits(param)
    optimizer.step()
    assert bits(param) == before
    assert not optimizer.state.get(param)


def test_closure() -> None:
    param, optimizer = one_param()
    optimizer.freeze(param, mask(0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    first = optimizer.step(closure)
    assert float(first) == pytest.approx(1 + 0.25 + 0.0625 + 9)
    assert float(optimizer.step(closure)) < float(first)
    assert param[0].item() == 1.0


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("portion", [0.0, 0.5])
def test_grad_scaler(form: dict[str, bool], portion: float) -> None:
    """Scaled steps are the unscaled ones, since the scale is a power of two; a step that overflowed is left out."""
    ours, theirs = random_params(3), random_params(3)
    optimizer = SGD(ours, lr=0.1, momentum=0.9, weight_decay=0.1, **form)  # type: ignore[arg-type]
    reference = SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.1, **form)  # type: ignore[arg-type]
    for params, each in ((ours, optimizer), (theirs, reference)):
        for param, frozen in zip(params, random_frozen(params, portion), strict=True):
            each.freeze(param, frozen)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        for params in (ours, theirs):
            set_gradients(params, step)
        overflows = step == 2
        scaler.scale(torch.zeros(1))
        for param in ours:
            assert param.grad is not None
            param.grad.mul_(1024.0 if step < 3 else scaler.get_scale())
            if overflows:
                param.grad.fill_(math.inf)
        scaler.step(optimizer)
        scaler.update()
        if not overflows:
            reference.step()
    assert scaler.get_scale() == 512.0
    assert same(ours, theirs)


@pytest.mark.filterwarnings("ignore:weight_bits=5 also quantizes 2 tensors of fewer than two dimensions")
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_state_dict_round_trip_goes_on_with_the_same_bits(form: dict[str, bool]) -> None:
    def make(params: list[nn.Parameter]) -> SGD:
        optimizer = SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, weight_bits=5, **form)  # type: ignore[arg-type]
        for param, frozen in zip(params, random_frozen(params, 0.5), strict=True):
            optimizer.freeze(param, frozen)
        return optimizer

    ours = random_params(1)
    optimizer = make(ours)
    for step in range(2):
        set_gradients(ours, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    copied = [nn.Parameter(param.detach().clone()) for param in ours]
    other = make(copied)
    other.load_state_dict(torch.load(file, weights_only=True))
    for step in range(2, 4):
        for params, each in ((ours, optimizer), (copied, other)):
            set_gradients(params, step)
            each.step()
    assert same(ours, copied)
    for buffer, param in zip(buffers(optimizer, ours), ours, strict=True):
        assert buffer is not None
        assert buffer.shape == param.shape


def test_the_state_of_torch_sgd_is_taken_without_its_momentum_of_frozen_weights() -> None:
    param, optimizer = one_param(weight_bits=4)
    theirs = nn.Parameter(param.detach().clone())
    reference = torch.optim.SGD([theirs], lr=0.7, momentum=0.9)
    theirs.grad = torch.ones(6)
    reference.step()
    optimizer.freeze(param, mask(1, 2))
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert optimizer.param_groups[0]["lr"] == 0.7
    assert optimizer.param_groups[0]["weight_bits"] == 4
    assert optimizer.state[param]["momentum_buffer"].tolist() == [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    reference.load_state_dict(optimizer.state_dict())  # and the other way


def test_a_state_never_changes_the_bits_of_a_group() -> None:
    _, floating = one_param()
    _, four = one_param(weight_bits=4)
    _, five = one_param(weight_bits=5)
    four.load_state_dict(floating.state_dict())
    assert four.param_groups[0]["weight_bits"] == 4
    five.param_groups[0]["lr"] = 0.7
    with pytest.raises(ValueError, match="the state's group 0 has weight_bits 5, this optimizer's has 4: create"):
        four.load_state_dict(five.state_dict())
    assert four.param_groups[0]["lr"] != 0.7


def test_a_state_never_changes_the_names_of_parameters() -> None:
    """INQScheduler knows its tensors by them."""
    layer = nn.Linear(2, 2)
    optimizer = SGD([{"params": [(f"{name}", param)]} for name, param in layer.named_parameters()], lr=0.1)
    wrapped = [{"params": [(f"module.{name}", param)]} for name, param in layer.named_parameters()]
    optimizer.load_state_dict(torch.optim.SGD(wrapped, lr=0.7).state_dict())
    assert [group["param_names"] for group in optimizer.param_groups] == [["weight"], ["bias"]]
    assert optimizer.param_groups[0]["lr"] == 0.7
    _, unnamed = one_param()
    unnamed.load_state_dict(torch.optim.SGD([("a", nn.Parameter(torch.zeros(6)))], lr=0.7).state_dict())
    assert "param_names" not in unnamed.param_groups[0]


def test_a_state_of_parameters_in_another_order_is_an_error() -> None:
    """One's momentum would become the other's."""
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
    optimizer = SGD([("a", first), ("b", second)], lr=0.1)
    other = SGD([{"params": [("b", second), ("a", first)]}], lr=0.7)
    with pytest.raises(ValueError, match="the state has 'b' in group 0 where this optimizer has 'a': add the param"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(2)}])
def test_what_is_no_state_of_an_optimizer_is_an_error(state: Any) -> None:
    with pytest.raises(ValueError, match="this is not the state of an optimizer"):
        one_param()[1].load_state_dict(state)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])  # noqa: S301
def test_copies_know_what_is_frozen(duplicate: Callable[[Any], Any]) -> None:
    param, optimizer = one_param(fused=True)
    optimizer.freeze(param, mask(0, 2))
    copied_param, copied = duplicate((param, optimizer))
    for each, by in ((param, optimizer), (copied_param, copied)):
        for _ in range(2):
            each.grad = torch.ones(6)
            by.step()
    assert bits(param) == bits(copied_param)
    assert param is not copied_param
    assert param[0].item() == 1.0
    copied.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert copied.param_groups[1]["weight_bits"] is None


def test_step_hooks() -> None:
    param, optimizer = one_param()
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    param.grad = torch.ones(6)
    optimizer.step()
    assert calls == ["before", "after"]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_learning_rate_in_a_tensor(form: dict[str, bool]) -> None:
    chosen = {"momentum": 0.9, "weight_decay": 0.1, **form}
    ours, theirs = random_params(2), random_params(2)
    frozen = random_frozen(ours, 0.5)
    optimizer = SGD(ours, lr=torch.tensor(0.1), **chosen)  # type: ignore[arg-type]
    reference = torch.optim.SGD(theirs, lr=torch.tensor(0.1), **chosen)  # type: ignore[arg-type]
    for param, each in zip(ours, frozen, strict=True):
        optimizer.freeze(param, each)
    for step in range(3):
        for params, by in ((ours, optimizer), (theirs, reference)):
            set_gradients(params, step)
            by.step()
            by.param_groups[0]["lr"].mul_(0.5)
    for mine, other, each in zip(ours, theirs, frozen, strict=True):
        assert bits(mine[~each]) == bits(other[~each])


def test_bfloat16() -> None:
    param = nn.Parameter(torch.ones(300, dtype=torch.bfloat16))
    optimizer = SGD([param], lr=0.1, momentum=0.9)
    frozen = torch.arange(300) % 2 == 0
    optimizer.freeze(param, frozen)
    param.grad = torch.full_like(param, math.nan)
    param.grad[~frozen] = 1.0
    optimizer.step()
    assert param[0].item() == 1.0
    assert param[1].item() == torch.tensor(0.9, dtype=torch.bfloat16).item()


def test_gradients_of_another_layout() -> None:
    """As DDP may leave them: right, if not in blocks."""
    ours, theirs = (random_params(4, channels_last=channels_last) for channels_last in (True, True))
    chosen = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "fused": True}
    optimizer = SGD(ours, **chosen)  # type: ignore[arg-type]
    reference = torch.optim.SGD(theirs, **{**chosen, "fused": False})  # type: ignore[arg-type]
    frozen = random_frozen(ours, 0.5)
    for param, each in zip(ours, frozen, strict=True):
        optimizer.freeze(param, each)
    for step in range(3):
        for params, by in ((ours, optimizer), (theirs, reference)):
            set_gradients(params, step)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                params[2].grad = params[2].grad.contiguous() if params[2].grad is not None else None
            by.step()
    for mine, other, each in zip(ours, theirs, frozen, strict=True):
        assert bits(mine[~each]) == bits(other[~each])


def test_the_live_gradient_is_what_a_step_goes_by() -> None:
    params = random_params(0)
    set_gradients(params, 0)
    optimizer = SGD(params)
    params[3].grad = None
    frozen = random_frozen(params, 0.5)
    optimizer.freeze(params[1], frozen[1])
    optimizer.freeze(params[2], torch.ones_like(frozen[2]))
    gradient = params[1].grad
    assert gradient is not None
    gradient[frozen[1]] = math.nan
    given = bits(gradient)
    untouched, live = optimizer.live_grads()
    assert untouched is params[0].grad
    assert bits(live) == bits(torch.where(frozen[1], 0.0, gradient))
    assert live.stride() == params[1].stride()
    assert bits(gradient) == given


def test_all_parameters_of_a_network_are_quantized_with_a_warning() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.warns(UserWarning, match=r"also quantizes 3 tensors of fewer than two dimensions.*0\.bias, 1\.weight"):
        SGD(model.named_parameters(), weight_bits=5)
    norms, others = list(model[1].parameters()), list(model[0].parameters())
    with pytest.warns(UserWarning, match="weight_bits=5 also quantizes 3 tensors"):
        SGD([{"params": others}, {"params": norms, "weight_decay": 0.0}], weight_bits=5)
    SGD([{"params": others, "weight_bits": 4}, {"params": norms, "weight_bits": None}], weight_bits=5)
    SGD(model.parameters())


def test_what_is_frozen_is_in_the_state_whatever_other_optimizers_made_of_it() -> None:
    params = random_params(1)
    optimizer, other = SGD(params, momentum=0.9), SGD(random_params(1), momentum=0.9)
    masks = random_frozen(params, 0.5)
    masks[0][...] = True
    for param, frozen in zip(params, masks, strict=True):
        optimizer.freeze(param, frozen)
    reference = torch.optim.SGD(random_params(1), momentum=0.9)
    reference.load_state_dict(optimizer.state_dict())
    for state in (optimizer.state_dict(), reference.state_dict()):
        other = SGD(random_params(1), momentum=0.9)
        other.load_state_dict(state)
        assert all(
            map(torch.equal, masks, (other.frozen(param) for group in other.param_groups for param in group["params"]))
        )
        assert not any("frozen" in other.state[param] for group in other.param_groups for param in group["params"])


def test_a_state_of_other_shapes_is_an_error_and_changes_nothing() -> None:
    param, other = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(4))
    optimizer = SGD([param])
    optimizer.freeze(param, torch.ones(6, dtype=torch.bool))
    fresh = SGD([other], lr=0.5)
    with pytest.raises(ValueError, match=r"a frozen mask of shape \[6\], but this optimizer's parameter has \[4\]"):
        fresh.load_state_dict(optimizer.state_dict())
    assert fresh.param_groups[0]["lr"] == 0.5


def test_a_state_of_inq_pytorch_is_refused() -> None:
    param = nn.Parameter(torch.ones(6))
    state = torch.optim.SGD([param], lr=0.1).state_dict()
    state["param_groups"][0] |= {"weight_bits": 4, "Ts": [torch.zeros(6)]}
    with pytest.raises(ValueError, match=r"INQ-pytorch .*'Ts'.*only the model's weights"):
        SGD([param], weight_bits=4).load_state_dict(state)
