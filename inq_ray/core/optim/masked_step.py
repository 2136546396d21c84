"""Step of SGD with masks: block by block on a CPU, in a few launches for many tensors elsewhere."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from inq_ray.core.codebook import float_format

# Elements per block and thread. Smaller blocks cost more calls, larger ones do not stay in the cache (L2).
_BLOCK = 1 << 16

# Elements, or one tensor, whose masked gradients are held at once elsewhere: 64 MB of float32.
_PACK = 1 << 24

# torch's kernels process 4, 8 or 16 elements at once, and the rest at the end of a tensor one by one.
_TOGETHER = 16

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


class Weights(NamedTuple):
    """Tensors that a step reads and writes for a parameter, or a part of it; all of the parameter's shape.

    Attributes:
        param: Float tensor.
        grad: Gradient, of the same dtype.
        live: uint8, 1 = live, 0 = frozen; None if all are live.
        momentum: Momentum, of the same dtype; None if there is none (yet).
    """

    param: Tensor
    grad: Tensor
    live: Tensor | None
    momentum: Tensor | None

    def is_plain(self) -> bool:
        """Return whether they are float32 or float64 on the CPU, all with the same layout and without gaps.

        Sums of bfloat16 and float16 are rounded differently in the last elements of a tensor, so they cannot be
        divided.
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
        """Return the elements of plain weights that the kernels process together, and the last few that they do not."""
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
    """Return whether torch's fused step on a CPU gives the bits of its for-loop, except for the last few elements.

    Both perform the same operations, but compilers may or may not round a product before it is added.
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
    """Perform torch's fused step with the gradient T · (±g + λ W), block by block, so that blocks stay in the cache.

    Gathering the live weights, stepping them and scattering them back was not faster down to one live weight in eight.

    Args:
        weights: Partly frozen and plain; their momentum is initialized if there is one.
        weight_decay: λ.
        maximize: Whether to negate g.
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


def packs(weights: Sequence[Weights]) -> Iterator[list[Weights]]:
    """Yield weights that one call can step: of one device and dtype, with momentum or without, and not too many."""
    alike: dict[Any, list[Weights]] = {}
    for each in weights:
        alike.setdefault((each.param.device, each.param.dtype, each.momentum is None), []).append(each)
    for those in alike.values():
        pack: list[Weights] = []
        num = 0
        for each in those:
            num += each.param.numel()
            if pack and num > _PACK:
                yield pack
                pack, num = [], each.param.numel()
            pack.append(each)
        yield pack


def live_gradients(weights: Sequence[Weights], *, weight_decay: float = 0.0, maximize: bool = False) -> list[Tensor]:
    """Return T · (±g + λ W) of partly frozen weights, T = 1 on live and 0 on frozen ones, in the layout of T.

    The number of launches on a GPU does not grow with the number of tensors. They share new memory.

    Args:
        weights: Partly frozen, of one device and dtype.
        weight_decay: λ.
        maximize: Whether to negate g.
    """
    lives = [each.live for each in weights if each.live is not None]
    memory = weights[0].param.new_empty(sum(live.numel() for live in lives))
    pieces = torch.split(memory, [live.numel() for live in lives])
    gradients = [piece.as_strided(live.shape, live.stride()) for piece, live in zip(pieces, lives, strict=True)]
    torch._foreach_copy_(gradients, [each.grad for each in weights])
    if maximize:
        memory.neg_()
    if weight_decay != 0:
        torch._foreach_add_(gradients, [each.param for each in weights], alpha=weight_decay)
    keep_live(memory, torch.cat([live.as_strided((live.numel(),), (1,)) for live in lives]))
    return gradients


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
