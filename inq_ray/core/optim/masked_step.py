"""What a step of SGD does with masks, and how it goes through memory on a CPU."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from inq_ray.core.codebook import float_format

# Elements of a block, for each thread. Smaller ones cost more calls, larger ones do not stay in the cache (L2).
_BLOCK = 1 << 16

# torch's kernels take 4, 8 or 16 elements at once, and what is left at the end of a tensor one by one.
_TOGETHER = 16

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


class Weights(NamedTuple):
    """What a step reads and writes of a parameter, or of a part of it; all of the parameter's shape.

    Attributes:
        param: float.
        grad: its dtype.
        live: uint8, 1 = live, 0 = frozen; None if all of them are live.
        momentum: its dtype; None if there is no momentum yet, or none at all.
    """

    param: Tensor
    grad: Tensor
    live: Tensor | None
    momentum: Tensor | None

    def is_plain(self) -> bool:
        """Whether they are float32 or float64 in the memory of the CPU, all laid out alike and without gaps.

        Sums of bfloat16 and float16 are rounded in another way in the last elements of a tensor, so they cannot be cut.
        """
        param, strides = self.param, self.param.stride()
        dense = param.is_contiguous() or (param.dim() == 4 and param.is_contiguous(memory_format=torch.channels_last))
        return dense and all(
            type(tensor) in _PLAIN_TYPES
            and tensor.is_cpu
            and tensor.layout == torch.strided
            and not tensor.is_neg()
            and tensor.stride() == strides
            and tensor.dtype in (torch.float32, torch.float64, torch.uint8)
            for tensor in self
            if tensor is not None
        )

    def divide(self) -> "tuple[Weights | None, Weights | None]":
        """Return the elements of plain weights that the kernels take together, and the last few, which they do not."""
        num = self.param.numel()
        rest = num % _TOGETHER
        if rest == 0:
            return self, None
        return self._part(0, num - rest) if num > rest else None, self._part(num - rest, rest)

    def _part(self, start: int, num: int) -> "Weights":
        return Weights._make(
            None if tensor is None else tensor.as_strided((num,), (1,), tensor.storage_offset() + start)
            for tensor in self
        )


@cache
def fused_rounds_as_loop(dtype: torch.dtype) -> bool:
    """Return whether torch's fused step on a CPU gives the bits of its for-loop, the last few elements left aside.

    Both do the same operations, but compilers are free to round a product before it is added or not to.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    start = [torch.randn(64 * _TOGETHER, generator=generator, dtype=dtype, device="cpu") for _ in range(3)]
    ends: list[Tensor] = []
    for fused in (False, True):
        param, grad, momentum = (tensor.clone() for tensor in start)
        for dampening, nesterov in ((0.0, True), (0.3, False)):
            sgd(
                [param],
                [grad],
                [momentum],
                foreach=False,
                fused=fused,
                lr=0.1,
                momentum=0.9,
                dampening=dampening,
                weight_decay=0.07,
                nesterov=nesterov,
                maximize=False,
            )
        ends.append(torch.stack([param, momentum]))
    return ends[0].equal(ends[1])


def step_in_blocks(weights: Weights, *, weight_decay: float, maximize: bool, **options: Any) -> None:
    """Perform torch's fused step with T · (±g + λ W) as gradient, block by block, each of which stays in the cache.

    Gathering the live weights instead, stepping them and scattering them back was no faster down to one live in eight.

    Args:
        weights: partly frozen and plain; their momentum has a value if there is one.
        weight_decay: λ.
        maximize: whether the sign of g is changed.
        options: lr, momentum, dampening and nesterov.
    """
    size = min(_BLOCK * torch.get_num_threads(), weights.param.numel())
    gradient = weights.param.new_empty(size)
    bits = _bits(gradient)
    flat = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in weights if tensor is not None]
    for param, grad, live, *momentum in zip(*(torch.split(tensor, size) for tensor in flat), strict=True):
        if param.numel() < size:  # the last block
            gradient = gradient[: param.numel()]
            bits = _bits(gradient)
        _decay(grad, param, weight_decay=weight_decay, maximize=maximize, out=gradient)
        bits.mul_(live)
        torch._fused_sgd_(
            [param], [gradient], momentum, weight_decay=0.0, maximize=False, is_first_step=False, **options
        )


def live_gradient(weights: Weights, *, weight_decay: float, maximize: bool) -> Tensor:
    """Return T · (±g + λ W), T = 1 on live and 0 on frozen weights, of partly frozen ones; laid out as W."""
    assert weights.live is not None
    gradient = torch.empty_like(weights.param)
    _decay(weights.grad, weights.param, weight_decay=weight_decay, maximize=maximize, out=gradient)
    keep_live(gradient, weights.live)
    return gradient


def _decay(grad: Tensor, param: Tensor, *, weight_decay: float, maximize: bool, out: Tensor) -> None:
    """Write ±g + λ W to ``out``; all float [*]."""
    if maximize:
        torch.neg(grad, out=out)
        if weight_decay != 0:
            out.add_(param, alpha=weight_decay)
    elif weight_decay != 0:
        torch.add(grad, param, alpha=weight_decay, out=out)
    else:
        out.copy_(grad)


def keep_live(values: Tensor, live: Tensor) -> None:
    """Set ``values`` (float [*]) to +0.0 where ``live`` (uint8 [*]) is 0, in place, NaN too.

    Their bits are multiplied as integers, which is ten times as fast as masked_fill_ or where with a random mask.
    """
    _bits(values).mul_(live)


def _bits(values: Tensor) -> Tensor:
    return values.view(float_format(values.dtype).bits_dtype)
