"""A masked step in one pass over memory, where a loop for it can be made; else by torch's operations, the same bits.

Before a loop is used, it is tried against torch's operations: so what is installed, and when a loop is made, changes
speed and no result. A NaN is a NaN in both, with bits that may differ.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from inq_ray.core.crew import Piece, run_on_threads, shares
from inq_ray.core.optim.masked_step import PartlyFrozen, StepOptions, step_in_blocks
from inq_ray.core.step_kernel import Form, StepKernel, make_kernel

# A loop is made once it would have saved what it costs: 0.2 s, against 1 ns an element and 60 µs of calls a tensor.
_WORTHWHILE = 200_000_000
_ELEMENTS_OF_CALLS = 60_000

# Waking a thread takes as long as 100,000 elements.
_ELEMENTS_OF_THREAD = 1 << 18

# torch's kernels take so many elements at once, or a part of so many, and round what is left over in another way.
_TOGETHER = 16

# Sizes of the tensors on which a loop is tried: with every kind of remainder.
_TRIALS = [4096, *[63] * 16]

_LOG = logging.getLogger(__name__)


def masked_step(weights: Sequence[PartlyFrozen], options: StepOptions, *, is_first_step: bool) -> None:
    """Moves live weights as torch's fused step does, and leaves frozen ones; updates the momentum.

    Args:
        weights: dense ones.
        options: of their group.
        is_first_step: whether the momentum has no value yet.
    """
    plain: list[PartlyFrozen] = []
    others: list[PartlyFrozen] = []
    for each in weights:
        (plain if each.is_plain() else others).append(each)
    kernel = kernels.find(_form(options, is_first_step=is_first_step), plain) if plain else None
    if kernel is not None:
        step_in_one_pass(kernel, plain, options, is_first_step=is_first_step)
    else:
        others += plain
    for each in others:
        step_in_blocks(each, options, is_first_step=is_first_step)


def step_in_one_pass(
    kernel: StepKernel, weights: Sequence[PartlyFrozen], options: StepOptions, *, is_first_step: bool
) -> None:
    """The step by the loop of these options, on as many threads as torch uses; the last few elements as torch's own.

    Args:
        kernel: the loop.
        weights: dense and plain ones.
        options: of their group.
        is_first_step: whether the momentum has no value yet; what the loop was made for.
    """
    counts = [each.param.numel() - each.param.numel() % _TOGETHER for each in weights]
    num_threads = max(1, min(torch.get_num_threads(), sum(counts) // _ELEMENTS_OF_THREAD))
    factors = (options.lr, options.weight_decay, options.momentum, 1.0 - options.dampening)
    addresses = [_addresses(each) for each in weights]

    def run(pieces: list[Piece]) -> None:
        for which, start, stop in pieces:
            param, grad, live, momentum = addresses[which]
            kernel.loop(
                param + 4 * start, grad + 4 * start, live + start, momentum + 4 * start, stop - start, *factors
            )  # the momentum's address is nobody's where there is none, and is not used

    run_on_threads([partial(run, share) for share in shares(counts, num_threads)])
    for each in weights:
        remainder = each.remainder(_TOGETHER)
        if remainder is not None:
            step_in_blocks(remainder, options, is_first_step=is_first_step)


class Kernels:
    """The loops of a process: each is made once its form has gone through so many elements that it is worth it.

    Args:
        worthwhile: that many elements; infinity for no loops at all.
    """

    def __init__(self, worthwhile: float = _WORTHWHILE) -> None:
        self._worthwhile = worthwhile
        self._stepped: dict[Form, int] = {}
        self._found: dict[Form, StepKernel | None] = {}

    def find(self, form: Form, weights: Sequence[PartlyFrozen]) -> StepKernel | None:
        """The loop for a step of these tensors; None while, or where, there is none."""
        if form not in self._found:
            elements = sum(each.param.numel() + _ELEMENTS_OF_CALLS for each in weights)
            self._stepped[form] = self._stepped.get(form, 0) + elements
            if self._stepped[form] < self._worthwhile:
                return None
            self._found[form] = find_kernel(form)
        return self._found[form]


kernels = Kernels()


def find_kernel(form: Form) -> StepKernel | None:
    """Makes the loop of ``form``; None where llvmlite is missing or too old, or torch's operations give other bits."""
    try:
        kernel = make_kernel(form)
    except ImportError:
        return None
    except (AttributeError, OSError, RuntimeError) as error:  # of llvmlite, which may be there for somebody else
        _LOG.warning("this llvmlite cannot make the fast step, so that torch's operations do it: %s", error)
        return None
    if not agrees(kernel, form):
        _LOG.info("torch rounds a step in another way than the loop of %s: it is not used", form)
        return None
    return kernel


@torch.no_grad()
def agrees(kernel: StepKernel, form: Form) -> bool:
    """Whether the loop gives the bits of torch's operations, on numbers where every way of rounding shows."""
    options = StepOptions(
        lr=0.1,
        momentum=0.9 if form.has_momentum else 0.0,
        dampening=0.3,
        weight_decay=0.07 if form.has_decay else 0.0,
        nesterov=form.nesterov,
        maximize=form.maximize,
    )
    ours, theirs = _trials(form), _trials(form)
    step_in_one_pass(kernel, ours, options, is_first_step=form.is_first_step)
    for each in theirs:
        step_in_blocks(each, options, is_first_step=form.is_first_step)
    pairs = zip(ours, theirs, strict=True)
    return all(
        torch.equal(mine.view(torch.uint8), other.view(torch.uint8))
        for our_weights, their_weights in pairs
        for mine, other in zip(our_weights.tensors(), their_weights.tensors(), strict=True)
    )


def _trials(form: Form) -> list[PartlyFrozen]:
    """The same ones at each call: weights of many magnitudes, seven in ten of them live."""
    count = sum(_TRIALS)
    chance: dict[str, Any] = {"generator": torch.Generator("cpu").manual_seed(0), "device": "cpu"}
    magnitudes = torch.tensor([1.0, 1e-3, 1e-20, 1e-39, 0.0, 1e30], dtype=torch.float32, device="cpu")
    magnitude = magnitudes[torch.randint(len(magnitudes), (count,), **chance)]
    param, grad, momentum = (torch.randn(count, dtype=torch.float32, **chance) * magnitude for _ in range(3))
    live = torch.rand(count, **chance) < 0.7
    grad[~live] = torch.inf
    columns = [param, grad, live.to(torch.uint8), *([momentum] if form.has_momentum else [])]
    return [PartlyFrozen.of(trial) for trial in zip(*(torch.split(each, _TRIALS) for each in columns), strict=True)]


def _form(options: StepOptions, *, is_first_step: bool) -> Form:
    has_momentum = options.momentum != 0
    return Form(
        maximize=options.maximize,
        has_decay=options.weight_decay != 0,
        has_momentum=has_momentum,
        is_first_step=has_momentum and is_first_step,
        nesterov=has_momentum and options.nesterov,
    )


def _addresses(weights: PartlyFrozen) -> tuple[int, int, int, int]:
    param, grad, live, momentum = weights
    return param.data_ptr(), grad.data_ptr(), live.data_ptr(), 0 if momentum is None else momentum.data_ptr()
