"""Second moments of a convolution's inputs, without unfolding the images.

An output of a convolution sees C channels at K taps of its kernel. What two taps see depends only on the offset between
them, except at the border of the image. So one product of images, [C, C], serves all pairs of taps with an offset and a
kind of border. For a kernel of 3 x 3 there are 29, most of them of few positions, in place of 81.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

# With fewer channels, products of so small matrices are slower than one of unfolded images.
_LEAST_CHANNELS = 32


class ConvolutionMoments:
    """Sums of x xᵀ for the inputs x of each output of a convolution.

    Args:
        module: A convolution for which :meth:`suits` holds.

    Attributes:
        count: Number of outputs so far.
    """

    def __init__(self, module: _ConvNd) -> None:
        self.count = 0
        self._module = module
        self._sums: dict[tuple[int, int], Tensor] = {}  # float64 [C, C] by pair of taps, the first one first

    @staticmethod
    def suits(module: torch.nn.Module) -> bool:
        """Return whether this is a convolution for which products by offset are faster."""
        return (
            isinstance(module, _ConvNd)
            and module.groups == 1
            and module.in_channels >= _LEAST_CHANNELS
            and module.weight[0, 0].numel() > 1
        )

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Add the outputs of images (float [N, C, *] or [C, *])."""
        module, dims = self._module, len(self._module.kernel_size)
        x = widened(x)
        x = x if x.dim() == dims + 2 else x.unsqueeze(0)
        padding = module._reversed_padding_repeated_twice  # noqa: SLF001  # torch's padding, for all modes
        if module.padding_mode != "zeros":
            x, padding = functional.pad(x, padding, mode=module.padding_mode), [0] * len(padding)
        x = x.movedim(1, -1).contiguous()
        sizes = zip(x.shape[1:-1], module.kernel_size, module.stride, module.dilation, strict=True)
        axes = [
            _Axis(*size, before=padding[2 * at], after=padding[2 * at + 1])
            for at, size in zip(reversed(range(dims)), sizes, strict=True)
        ]
        self.count += len(x) * math.prod(axis.outputs for axis in axes)
        for offsets in itertools.product(*(range(1 - taps, taps) for taps in module.kernel_size)):
            if offsets >= (0,) * dims:  # others are transposes of these
                for pairs in itertools.product(*(axis.pairs(by) for axis, by in zip(axes, offsets, strict=True))):
                    self._add_pairs(x, pairs)

    def total(self) -> Tensor:
        """Return the sum, float64 [1, n, n], in the order of the convolution's weight."""
        channels, taps = self._module.in_channels, self._module.weight[0, 0].numel()
        total = torch.zeros(channels, taps, channels, taps, dtype=torch.float64, device=self._module.weight.device)
        for (one, other), products in self._sums.items():
            total[:, one, :, other] = products
            if one != other:
                total[:, other, :, one] = products.mT
        return total.view(1, channels * taps, channels * taps)

    def _add_pairs(self, x: Tensor, pairs: "tuple[_Pairs, ...]") -> None:
        """Add products of pairs of positions, given by dimension, of images (float32 [N, *, C])."""
        first, second = (
            x[(slice(None), *(each[which] for each in pairs))].reshape(-1, x.shape[-1]) for which in range(2)
        )
        product = (first.mT @ second).double()
        for taps in itertools.product(*(each.taps for each in pairs)):
            one, other = (self._flat([tap[which] for tap in taps]) for which in range(2))
            if (one, other) in self._sums:
                self._sums[one, other].add_(product)
            else:
                self._sums[one, other] = product.clone()

    def _flat(self, tap: Sequence[int]) -> int:
        """Return the number of a tap in row-major order."""
        number = 0
        for index, size in zip(tap, self._module.kernel_size, strict=True):
            number = number * size + index
        return number


def widened(x: Tensor) -> Tensor:
    """Return a layer's inputs (float [*]) without their gradient as float32, or as float64 if they are."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


class _Pairs(NamedTuple):
    """Pairs of positions along a dimension.

    Attributes:
        first: First positions.
        second: Second positions.
        taps: Pairs of taps at which an output sees each of these pairs.
    """

    first: slice
    second: slice
    taps: list[tuple[int, int]]


@dataclass(frozen=True)
class _Axis:
    """A dimension of images and of a convolution's kernel.

    Attributes:
        size: Number of positions.
        taps: Size of the kernel.
        stride: Stride of outputs.
        dilation: Distance of neighboring taps.
        before: Zeros before the first position.
        after: Zeros after the last one.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return (self.size + self.before + self.after - self.dilation * (self.taps - 1) - 1) // self.stride + 1

    def pairs(self, offset: int) -> list[_Pairs]:
        """Return all pairs of positions that outputs see at two taps with this offset, by the taps that see them."""
        distance = offset * self.dilation
        taps_of: dict[int, list[int]] = {}
        for tap in range(max(0, -offset), min(self.taps, self.taps - offset)):
            for output in range(self.outputs):
                position = output * self.stride + tap * self.dilation - self.before
                if 0 <= position < self.size and 0 <= position + distance < self.size:
                    taps_of.setdefault(position, []).append(tap)
        positions: dict[tuple[int, ...], list[int]] = {}
        for position, taps in sorted(taps_of.items()):
            positions.setdefault(tuple(taps), []).append(position)
        # Positions with the same taps are a stride apart: others are seen at other taps.
        return [
            _Pairs(
                slice(at[0], at[-1] + 1, self.stride),
                slice(at[0] + distance, at[-1] + distance + 1, self.stride),
                [(tap, tap + offset) for tap in taps],
            )
            for taps, at in positions.items()
        ]
