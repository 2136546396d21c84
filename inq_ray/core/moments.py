"""Second moments of layers' inputs, gathered while a network runs."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from inq_ray.core.convolution_moments import ConvolutionMoments, widened
from inq_ray.core.unwrap import uncompiled

# Largest number of inputs of a row, whose float64 matrix takes 512 MB.
MOST_INPUTS = 8192
# Largest number of input values processed at once: 128 MB of float32.
_MOST_VALUES = 1 << 25
_PROJECTIONS = {"q_proj_weight": 0, "k_proj_weight": 1, "v_proj_weight": 2}


class Layer(NamedTuple):
    """A layer's weight as rows of a linear map: float [groups, rows, n] for inputs [groups, samples, n].

    Attributes:
        module: The layer.
        key: Name of its parameter.
        groups: Number of groups; an attention's input projection has three: for queries, keys and values.
        inputs: Number n of inputs per row.
    """

    module: nn.Module
    key: str
    groups: int
    inputs: int

    @property
    def weight(self) -> Tensor:
        """The parameter."""
        weight: Tensor = getattr(self.module, self.key)
        return weight

    def rows(self, weight: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as [groups, rows, n]."""
        return weight.reshape(self.groups, -1, self.inputs)

    def rows_of_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], every: int = 1) -> list[Tensor]:
        """Return the module's arguments as inputs of rows: pieces [groups, samples, n] of bounded size.

        They are float32, or float64 if the arguments are: sums of products in bfloat16 would not be positive definite.

        Args:
            args: Arguments of the call.
            kwargs: Named arguments.
            every: Stride of the samples along the last dimension of a convolution's outputs; 1 uses all.
        """
        if isinstance(self.module, nn.MultiheadAttention):
            given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
            parts = [widened(given[name].flatten(0, -2)) for name in ("query", "key", "value")]
            if self.key in _PROJECTIONS:
                return [parts[_PROJECTIONS[self.key]].unsqueeze(0)]
            # In cross-attention there may be fewer queries than keys: zeros add nothing to a group's sum.
            return [nn.utils.rnn.pad_sequence(parts, batch_first=True)]
        x = widened(args[0] if args else kwargs["input"])
        if isinstance(self.module, nn.Linear):
            return [x.reshape(1, -1, self.inputs)]
        assert isinstance(self.module, _ConvNd)
        dims = len(self.module.kernel_size)
        x = x if x.dim() == dims + 2 else x.unsqueeze(0)
        taps = self.weight[0, 0].numel() * x[0].numel()
        pieces = torch.split(x, max(1, every * _MOST_VALUES // max(1, taps)))
        return [_unfolded(self.module, piece, every) for piece in pieces]

    def num_samples(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """Return the approximate number of samples of :meth:`rows_of_inputs`."""
        given = args[0] if args else next(iter(kwargs.values()))
        if not isinstance(self.module, _ConvNd):
            return int(given.numel()) // self.inputs
        return int(given.numel()) // (self.module.in_channels * math.prod(self.module.stride))


def _unfolded(module: _ConvNd, x: Tensor, every: int) -> Tensor:
    """Return a convolution's inputs (float [N, C, *]) as [groups, samples, n], in the order of its weight."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)  # noqa: SLF001  # torch's padding, for all modes
    for dim, (size, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), start=2
    ):
        # Each dimension becomes one of outputs, with the taps in a new last dimension.
        x = x.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
    dims = len(module.kernel_size)
    if every > 1:
        x = x.transpose(1 + dims, -1)[..., ::every].transpose(1 + dims, -1)
    x = x.reshape(len(x), module.groups, -1, *x.shape[2:])  # [N, groups, C / groups, outputs, taps]
    order = (1, 0, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims))
    return x.permute(order).reshape(module.groups, -1, x.shape[2] * x.shape[3 + dims :].numel())


def layers_of(model: nn.Module, params: Mapping[str, Tensor]) -> tuple[dict[str, Layer], dict[str, str]]:
    """Return the layers that have moments, by their parameter's name, and why other parameters have none.

    Args:
        model: The network.
        params: Requested parameters, by name.
    """
    names = {param: name for name, param in params.items()}
    layers: dict[str, Layer] = {}
    reasons = dict.fromkeys(params, "is not a weight of a convolution, linear layer or attention's input projection")
    num_holders: Counter[str] = Counter()
    for module in model.modules():
        for key, param in module.named_parameters(recurse=False):
            if param not in names:
                continue
            name = names[param]
            num_holders[name] += 1
            layer, reason = _layer(module, key)
            if num_holders[name] > 1:
                reason = "is shared by several layers"
                layers.pop(name, None)
            elif layer is not None and layer.inputs > MOST_INPUTS:
                reason = f"has rows of {layer.inputs} inputs, more than {MOST_INPUTS}"
            elif layer is not None:
                layers[name] = layer
            reasons[name] = reason
    return layers, {name: reason for name, reason in reasons.items() if name not in layers}


def _layer(module: nn.Module, key: str) -> tuple[Layer | None, str]:
    """Return a module's parameter as a layer, or why it cannot be one."""
    weight = getattr(module, key)
    if isinstance(module, _ConvTransposeNd):
        return None, "is a transposed convolution"
    if isinstance(module, nn.MultiheadAttention) and (key == "in_proj_weight" or key in _PROJECTIONS):
        groups = 1 if key in _PROJECTIONS else 3
        return Layer(module, key, groups, weight.shape[1]), ""
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return None, "is an attention's output projection, which is not called as a module"
    if isinstance(module, _ConvNd) and key == "weight":
        return Layer(module, key, module.groups, weight[0].numel()), ""
    if isinstance(module, nn.Linear) and key == "weight":
        return Layer(module, key, 1, weight.shape[1]), ""
    return None, f"is not a weight that {type(module).__name__} multiplies its input with"


class Moments:
    """Context in which second moments of layers' inputs are summed over all samples that run through a network.

    Args:
        model: The network. Its outputs are not changed; torch.compile's code is not used in the context.
        params: Parameters whose layers are included, by name.

    Attributes:
        left_out: Why parameters have no moments, by name; after the context also those whose layers were not called.
        sums: Sums of x xᵀ, float64 [groups, n, n] on the layer's device, by parameter name; empty if nothing ran.
        counts: Number of samples in each sum.
        num_calls: Number of calls of the network in the context.

    Sums and counts are complete once the context is left.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> with Moments(model, dict(model.named_parameters())) as moments:
        ...     outputs = model(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> moments.sums["0.weight"]
        tensor([[[10., 14.],
                 [14., 20.]]], dtype=torch.float64)
        >>> moments.counts["0.weight"]
        2
    """

    def __init__(self, model: nn.Module, params: Mapping[str, Tensor]) -> None:
        self.layers, self.left_out = layers_of(model, params)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.num_calls = 0
        self._model = model
        self._context = ExitStack()
        self._convolutions: dict[str, ConvolutionMoments] = {}

    def __enter__(self) -> Self:
        def called(*_: Any) -> None:
            self.num_calls += 1

        self._context.enter_context(uncompiled())
        self._context.callback(self._model.register_forward_pre_hook(called).remove)
        by_module: dict[nn.Module, list[str]] = {}
        for name, layer in self.layers.items():
            by_module.setdefault(layer.module, []).append(name)
            if isinstance(layer.module, _ConvNd) and ConvolutionMoments.suits(layer.module):
                self._convolutions[name] = ConvolutionMoments(layer.module)
        for module, names in by_module.items():

            def gather(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str] = names) -> None:
                for name in names:
                    if name in self._convolutions:
                        self._convolutions[name].add(args[0] if args else kwargs["input"])
                    else:
                        self.add(name, self.layers[name].rows_of_inputs(args, kwargs))

            self._context.callback(module.register_forward_pre_hook(gather, with_kwargs=True).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()
        for name, convolution in self._convolutions.items():
            if convolution.count:
                self._add_sum(name, convolution.total(), convolution.count)
        self._convolutions.clear()
        for name in self.layers:
            if name in self.counts:
                self.left_out.pop(name, None)
            else:
                self.left_out[name] = "was not called with any image"

    @torch.no_grad()
    def add(self, name: str, pieces: Iterable[Tensor]) -> None:
        """Add samples (float [groups, samples, n]) to the sums of a layer."""
        for piece in pieces:
            self._add_sum(name, (piece.transpose(-1, -2) @ piece).double(), piece.shape[-2])

    def of(self, name: str) -> Tensor | None:
        """Return the moments of a parameter's inputs, float64 [groups, n, n]; None if there are none."""
        return self.sums[name] / self.counts[name] if name in self.sums else None

    def _add_sum(self, name: str, added: Tensor, count: int) -> None:
        self.sums[name] = self.sums[name].add_(added) if name in self.sums else added
        self.counts[name] = self.counts.get(name, 0) + count
