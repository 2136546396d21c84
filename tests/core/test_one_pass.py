"""The masked step in its two ways, one loop over memory and torch's operations, which give the same bits."""

import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inq_ray.core import one_pass, step_kernel
from inq_ray.core.one_pass import Kernels, agrees, find_kernel, masked_step
from inq_ray.core.optim import masked_step as masked_step_module
from inq_ray.core.optim.masked_step import PartlyFrozen, StepOptions
from inq_ray.core.step_kernel import Form, make_kernel
from tests.core.weights import bits

LOOPS = Kernels(worthwhile=0)
OPERATIONS = Kernels(worthwhile=math.inf)

FORMS = [
    Form(maximize, has_decay, has_momentum, is_first_step, nesterov)
    for maximize, has_decay, has_momentum, is_first_step, nesterov in itertools.product([False, True], repeat=5)
    if has_momentum or not (is_first_step or nesterov)
]

FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 2.0**-126, -(2.0**-149), 3e-41, 3e38, math.inf])

needs_loops = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="on this processor torch may round twice where a loop rounds once: then no loop is used",
)


@contextmanager
def using(kernels: Kernels, *, block: int = 1 << 18, elements_of_thread: int = 1 << 18) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_pass, "kernels", kernels)
        patch.setattr(one_pass, "_ELEMENTS_OF_THREAD", elements_of_thread)
        patch.setattr(masked_step_module, "_BLOCK", block)
        yield


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@st.composite
def step_options(draw: st.DrawFn) -> StepOptions:
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9, 0.99]))
    dampening = draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))
    return StepOptions(
        lr=draw(st.sampled_from([0.0, 1e-3, 0.1, 0.3, 1.0])),
        momentum=momentum,
        dampening=dampening,
        weight_decay=draw(st.sampled_from([0.0, 1e-4, 0.1])),
        nesterov=momentum > 0 and dampening == 0 and draw(st.booleans()),
        maximize=draw(st.booleans()),
    )


@st.composite
def columns(draw: st.DrawFn, count: int) -> list[Tensor]:
    """Param, grad, live and momentum of a tensor; a gradient of frozen weights is anything."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    param, grad, momentum = (torch.randn(count, generator=generator) for _ in range(3))
    for column in (param, grad, momentum):
        for value in draw(st.lists(FLOATS, max_size=4)):
            column[draw(st.integers(0, count - 1))] = value
    live = torch.rand(count, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    grad[~live] = draw(st.sampled_from([math.nan, math.inf, -math.inf, 1.0]))
    momentum[~live] = 0.0
    return [param, grad, live.to(torch.uint8), momentum]


def copies(tensors: list[list[Tensor]], *, has_momentum: bool) -> list[PartlyFrozen]:
    return [PartlyFrozen.of([each.clone() for each in four[: 4 if has_momentum else 3]]) for four in tensors]


def numbers(weights: list[PartlyFrozen]) -> list[int]:
    """Bits, the same ones for every NaN."""
    floats = [each for group in weights for each in group.tensors() if each is not group.live]
    return [bit for each in floats for bit in bits(torch.where(each.isnan(), math.nan, each))]


@needs_loops
@settings(max_examples=100)
@given(
    step_options(),
    st.lists(st.integers(1, 70).flatmap(columns), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([16, 1 << 18]),
    st.sampled_from([20, 1 << 18]),
)
def test_both_ways_give_the_same_bits(
    options: StepOptions, tensors: list[list[Tensor]], has_momentum_from_before: bool, block: int, a_thread: int
) -> None:
    pytest.importorskip("llvmlite")
    has_momentum = options.momentum != 0
    ours, theirs = (copies(tensors, has_momentum=has_momentum) for _ in range(2))
    with num_threads(3):
        for step in range(3):
            is_first_step = step == 0 and not has_momentum_from_before
            with using(LOOPS, elements_of_thread=a_thread):
                masked_step(ours, options, is_first_step=is_first_step)
            with using(OPERATIONS, block=block):
                masked_step(theirs, options, is_first_step=is_first_step)
            assert numbers(ours) == numbers(theirs)
    for each, (param, grad, live, _) in zip(ours, tensors, strict=True):
        assert bits(each.param[live == 0]) == bits(param[live == 0]), "frozen weights keep their bits"
        assert bits(each.grad) == bits(grad), "gradients are read, never changed"


@needs_loops
@pytest.mark.parametrize("form", FORMS, ids=lambda form: ",".join(name for name, has in form._asdict().items() if has))
def test_a_loop_of_every_form_stands_its_trial(form: Form) -> None:
    pytest.importorskip("llvmlite")
    assert find_kernel(form) is not None


def test_a_loop_that_rounds_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding the products too is what another processor, or another torch, might do: one of the two is refused."""
    pytest.importorskip("llvmlite")
    form = Form(maximize=False, has_decay=False, has_momentum=False, is_first_step=False, nesterov=False)
    once = agrees(make_kernel(form), form)
    twice = """
define float @twice(float %a, float %b, float %c) {
  %product = fmul float %a, %b
  %sum = fadd float %product, %c
  ret float %sum
}"""
    text = step_kernel.source(form)
    rounding_twice = twice + text.replace("declare float @llvm.fma.f32(float, float, float)", "").replace(
        "@llvm.fma.f32", "@twice"
    )
    monkeypatch.setattr(step_kernel, "source", lambda _: rounding_twice)
    assert (find_kernel(form) is not None) == (not once)


class Subclass(torch.Tensor):
    """Memory of which nobody knows what it means."""


@pytest.mark.parametrize(
    ("param", "grad", "is_plain"),
    [
        (torch.ones(8), torch.ones(8), True),
        (nn.Parameter(torch.ones(8)), torch.ones(8), True),
        (torch.ones(8, dtype=torch.float64), torch.ones(8, dtype=torch.float64), False),
        (torch.ones(8, dtype=torch.bfloat16), torch.ones(8, dtype=torch.bfloat16), False),
        (torch.ones(8), torch.ones(8, dtype=torch.float64), False),
        (torch.ones(8), torch.ones(8).as_subclass(Subclass), False),
        (torch.ones(8), torch._neg_view(torch.ones(8)), False),
    ],
)
def test_a_loop_is_given_nothing_but_plain_float32(param: Tensor, grad: Tensor, is_plain: bool) -> None:
    live = torch.ones(8, dtype=torch.uint8)
    assert PartlyFrozen(param, grad, live, None).is_plain() == is_plain
    assert PartlyFrozen(param, grad, live, param.detach()).is_plain() == is_plain


def made(monkeypatch: pytest.MonkeyPatch) -> list[Form]:
    """The forms that loops are asked for, each of which is refused."""
    forms: list[Form] = []
    monkeypatch.setattr(one_pass, "find_kernel", forms.append)
    return forms


def test_a_loop_is_made_when_it_is_worth_it_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = made(monkeypatch)
    weights = [PartlyFrozen(torch.ones(40_000), torch.ones(40_000), torch.ones(40_000, dtype=torch.uint8), None)]
    kernels = Kernels(worthwhile=300_000)
    for expected in (0, 0, 1, 1, 1):
        assert kernels.find(FORMS[0], weights) is None
        assert len(forms) == expected, "each step counts 40,000 elements and 60,000 for its calls"
    kernels.find(FORMS[1], weights)
    assert len(forms) == 1, "every form is counted by itself"


def test_an_llvmlite_that_cannot_make_loops_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An old one, say, that another library has brought."""
    pytest.importorskip("llvmlite")
    monkeypatch.setattr(step_kernel, "source", lambda _: "a language of another version")
    assert find_kernel(FORMS[0]) is None
    assert "this llvmlite cannot make the fast step" in caplog.text


def test_without_llvmlite_torch_does_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert find_kernel(FORMS[0]) is None
    tensors = [[torch.randn(64), torch.randn(64), torch.arange(64, dtype=torch.uint8) % 2, torch.randn(64)]]
    options = StepOptions(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.1, nesterov=False, maximize=False)
    ours, theirs = (copies(tensors, has_momentum=True) for _ in range(2))
    with using(Kernels(worthwhile=0)):
        masked_step(ours, options, is_first_step=False)
    with using(OPERATIONS):
        masked_step(theirs, options, is_first_step=False)
    assert numbers(ours) == numbers(theirs)
    assert bits(ours[0].param) != bits(tensors[0][0])
