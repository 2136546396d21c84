"""torch's fused SGD step with T · (g + λ W) as gradient, T = 1 on live and 0 on frozen weights, by torch's operations.

torch has no fused step with a mask: so this costs more than twice a fused step. :mod:`inq_ray.core.one_pass` does it at
the cost of one, with the same bits, where it can.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inq_ray.core.codebook import float_format

# Elements of a block of the fused CPU step: large enough that calls do not count, small enough to stay in the cache.
_BLOCK = 1 << 18

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


class StepOptions(NamedTuple):
    """The options of torch.optim.SGD that a step goes by."""

    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> "StepOptions":
        """The options of a parameter group."""
        return cls(
            lr=float(group["lr"]),
            momentum=float(group["momentum"]),
            dampening=float(group["dampening"]),
            weight_decay=float(group["weight_decay"]),
            nesterov=bool(group["nesterov"]),
            maximize=bool(group["maximize"]),
        )


class PartlyFrozen(NamedTuple):
    """What a step reads and writes of a parameter; all on the CPU, of the same shape and dense strides.

    Attributes:
        param: float.
        grad: its dtype.
        live: uint8, 0 or 1.
        momentum: its dtype; None where there is no momentum.
    """

    param: Tensor
    grad: Tensor
    live: Tensor
    momentum: Tensor | None

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "PartlyFrozen":
        """From three or four tensors, in the order of the attributes."""
        param, grad, live, *momentum = tensors
        return cls(param, grad, live, momentum[0] if momentum else None)

    def tensors(self) -> list[Tensor]:
        """Those that are there."""
        return [tensor for tensor in self if tensor is not None]

    def is_dense(self) -> bool:
        """Whether they are on the CPU and laid out alike, without gaps."""
        param = self.param
        dense = param.is_contiguous() or (param.dim() == 4 and param.is_contiguous(memory_format=torch.channels_last))
        strides = param.stride()
        return dense and param.is_cpu and all(tensor.stride() == strides for tensor in self.tensors())

    def remainder(self, size: int) -> "PartlyFrozen | None":
        """What is left over after as many elements as ``size`` divides; None where that is nothing."""
        count = self.param.numel()
        rest = count % size
        if rest == 0:
            return None
        return PartlyFrozen.of(
            [tensor.as_strided((rest,), (1,), tensor.storage_offset() + count - rest) for tensor in self.tensors()]
        )

    def is_plain(self) -> bool:
        """Whether they are float32 at the addresses that they name."""
        param, grad, _, momentum = self
        return _is_plain(param) and _is_plain(grad) and (momentum is None or _is_plain(momentum))


def step_in_blocks(weights: PartlyFrozen, options: StepOptions, *, is_first_step: bool) -> None:
    """The step by torch's operations, in blocks so that decaying and masking the gradient cost no way to memory.

    More than twice torch's time. Gathering the live weights instead, stepping them and scattering them back was no
    faster down to one live in eight; int32 masks, kept, were no faster than uint8 ones.
    """
    flat = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in weights.tensors()]
    blocks = zip(*(torch.split(tensor, _BLOCK) for tensor in flat), strict=True)
    gradient = weights.param.new_empty(min(_BLOCK, weights.param.numel()))
    for param, grad, live, *momentum in blocks:
        out = gradient[: len(param)]
        live_gradient(grad, param, live, weight_decay=options.weight_decay, maximize=options.maximize, out=out)
        torch._fused_sgd_(
            [param],
            [out],
            momentum,
            weight_decay=0.0,
            momentum=options.momentum,
            lr=options.lr,
            dampening=options.dampening,
            nesterov=options.nesterov,
            maximize=False,
            is_first_step=is_first_step,
        )


def live_gradient(
    grad: Tensor, param: Tensor, live: Tensor, *, weight_decay: float, maximize: bool, out: Tensor
) -> None:
    """T · (±g + λ W) into ``out``; all float [*] but ``live``, which is uint8 [*]."""
    if maximize:
        torch.neg(grad, out=out)
        if weight_decay != 0:
            out.add_(param, alpha=weight_decay)
    elif weight_decay != 0:
        torch.add(grad, param, alpha=weight_decay, out=out)
    else:
        out.copy_(grad)
    keep_live(out, live)


def keep_live(values: Tensor, live: Tensor) -> None:
    """Sets ``values`` (float [*]) to +0.0 where ``live`` (uint8 [*]) is 0, in place, NaN too.

    Their bits are multiplied as integers, five times as fast as masked_fill_ by a mask without a pattern.
    """
    values.view(float_format(values.dtype).bits_dtype).mul_(live)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and type(tensor) in _PLAIN_TYPES and not tensor.is_neg()
