"""Post-training quantization: quantizes a trained network from a few hundred images without labels.

The layers are quantized in the order of one forward pass over all images. Each layer's inputs come from the layers
before, which are already quantized:

1. Its weights are refitted, so that its outputs on these inputs are closest to the float network's.
2. They are rounded in turn, each taking earlier errors into account (:mod:`inq_ray.core.compensation`).
3. The mean of the remaining error is removed by BatchNorm's statistics, or by the layer's bias. BatchNorm also corrects
   the scale of each output, so the scale of each row may be chosen before rounding.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inq_ray.core.batchnorm import adjust, followers, takes_any_scale
from inq_ray.core.channels import AnyCodebook, Per, codebook_of, decided, rounding
from inq_ray.core.codebook import MAX_EXPONENT, MIN_EXPONENT, Levels, max_magnitude
from inq_ray.core.compensation import damped, refit, round_in_turn
from inq_ray.core.moments import Layer, layers_of
from inq_ray.core.passes import Pass
from inq_ray.core.stage import StageUpdate, apply, round_all
from inq_ray.core.state import TensorState
from inq_ray.core.unwrap import uncompiled, unwrap
from inq_ray.models.selection import param_groups

# Exponents of the scales of a row that are tried before a BatchNorm: scale = 2^exponent.
_SCALES = tuple(step / 4 for step in range(-4, 5))
# Smallest scale for BatchNorm, for a row that is nearly all zeros.
_LEAST_SCALE = 1e-3
_BATCH_SIZE = 128
# Error of covariances that are differences of float32 moments, as a part of these and of the root of inputs per row.
_NOISE = 2.0**-20
# Enough samples per input of a row: neighboring outputs of a convolution are highly correlated.
_ENOUGH = 256


@dataclass(kw_only=True)
class PostTraining:
    """Result of :func:`quantize_`.

    Attributes:
        state: Codebook, codes and frozen mask by parameter name, for :func:`inq_ray.float_state`.
        errors: Mean squared error of each layer's outputs, relative to their mean square, by parameter name.
        left_out: Why a parameter was rounded to nearest, without moments of its inputs, by name.
        num_images: Number of images.
    """

    state: dict[str, TensorState]
    errors: dict[str, float]
    left_out: dict[str, str]
    num_images: int


def quantize_(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    weight_bits: int = 5,
    *,
    levels: Levels = "paper",
    codebook_per: Per = "tensor",
    skip: Iterable[str] = (),
    bits: Mapping[str, int] | None = None,
    include: Iterable[str] = (),
    keep_zeros: bool = False,
) -> PostTraining:
    """Quantize a trained network in place, without training: every weight becomes 0 or a power of two.

    Args:
        model: The trained network, also one wrapped by DDP or torch.compile. BatchNorm's statistics and biases of
            quantized layers are adjusted; other float tensors do not change.
        images: Inputs of the network: a tensor of a few hundred images, float [N, ...], or batches of them. Of a batch
            that is a list or tuple, such as a DataLoader's, the first entry is used. Labels are not needed. The
            activations of all images between two layers must fit in memory twice. Each batch takes two threads, so
            batches of one image are slow.
        weight_bits: Bits per quantized weight, 2 to 8.
        levels: As for :func:`inq_ray.param_groups`.
        codebook_per: As for :func:`inq_ray.param_groups`.
        skip: As for :func:`inq_ray.param_groups`.
        bits: As for :func:`inq_ray.param_groups`.
        include: As for :func:`inq_ray.param_groups`.
        keep_zeros: Whether weights that are 0 stay 0, as in a pruned network.

    Returns:
        States of the quantized weights, errors of layers, and parameters that were rounded to nearest.

    Raises:
        ValueError: There are no images, or a condition of :func:`inq_ray.param_groups` is not met.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> done = quantize_(model, torch.randn(64, 8), weight_bits=4, levels="full")
        >>> sorted(done.state)
        ['0.weight', '2.weight']
        >>> set(model[0].weight.abs().log2().flatten().tolist()) <= {-float("inf"), *range(-20, 10)}
        True
    """
    groups = param_groups(
        model, weight_bits, skip=skip, bits=bits, include=include, levels=levels, codebook_per=codebook_per
    )
    chosen = {name: (param, group["weight_bits"]) for group in groups for name, param in group["params"]}
    params = {name: param for name, (param, num_bits) in chosen.items() if num_bits}
    states = {name: TensorState.live(param, chosen[name][1], levels, codebook_per) for name, param in params.items()}
    return quantize_params_(unwrap(model), images, params, states, keep_zeros=keep_zeros)


@torch.no_grad()
def quantize_params_(
    network: nn.Module,
    images: Tensor | Iterable[Any],
    params: Mapping[str, Tensor],
    live: Mapping[str, TensorState],
    *,
    keep_zeros: bool = False,
) -> PostTraining:
    """Quantize the given parameters of a network in place, see :func:`quantize_`.

    Args:
        network: The network, not wrapped.
        images: As for :func:`quantize_`.
        params: Parameters to quantize, by name.
        live: Their states, with nothing frozen; not changed.
        keep_zeros: As for :func:`quantize_`.

    Raises:
        ValueError: There are no images, or weights are NaN or infinite, which names the tensor.
    """
    for name, param in params.items():
        try:
            max_magnitude(param)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    states = copy.deepcopy(dict(live))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with uncompiled():
            run = _Run(network, params, images, keep_zeros=keep_zeros)
            errors = run.quantize(states)
    finally:
        for module, mode in modes.items():
            module.training = mode
    left_out = {name: run.left_out.get(name, "was not called with any image") for name in params if name not in errors}
    for name in left_out:
        round_all(params[name], states[name], "mse")
    return PostTraining(state=states, errors=errors, left_out=left_out, num_images=sum(map(len, run.batches)))


class _Moments(NamedTuple):
    """Moments of a layer's inputs: x as they are now, y as in the float network.

    Attributes:
        now: E[x xᵀ], float64 [groups, n, n].
        cross: E[y xᵀ], likewise.
        mean: E[x], float64 [groups, n, 1].
        float_mean: E[y], likewise.
    """

    now: Tensor
    cross: Tensor
    mean: Tensor
    float_mean: Tensor

    def centered(self) -> "_Moments":
        """Return covariances in place of second moments."""
        now = self.now - self.mean @ self.mean.transpose(-1, -2)
        return self._replace(now=now, cross=self.cross - self.float_mean @ self.mean.transpose(-1, -2))


class _Rounded(NamedTuple):
    """A layer's rows at levels.

    Attributes:
        codebook: The levels.
        rows: float64 [groups, rows, n].
        scales: float64 [groups, rows], by which the outputs of each row are to be multiplied.
        errors: float64 [groups, rows], remaining mean squared error.
    """

    codebook: AnyCodebook
    rows: Tensor
    scales: Tensor
    errors: Tensor


class _Run:
    """A network that is being quantized layer by layer, and its float original."""

    def __init__(
        self, network: nn.Module, params: Mapping[str, Tensor], images: Tensor | Iterable[Any], *, keep_zeros: bool
    ) -> None:
        self.network, self.keep_zeros = network, keep_zeros
        self.reference = copy.deepcopy(network)
        self.batches = list(_batches(images, next(iter(params.values()))))
        if not self.batches:
            raise ValueError("quantize_ needs images to quantize by: give some hundred, without labels")
        self.layers, self.left_out = layers_of(network, params)
        reference: dict[nn.Module, Any] = dict(zip(network.modules(), self.reference.modules(), strict=True))
        self.float_modules = {layer.module: reference[layer.module] for layer in self.layers.values()}
        example = self.batches[0][:2]
        following = followers(network, example, self.float_modules)
        self.batchnorms = {
            module: (batchnorm, cast(_BatchNorm, reference[batchnorm]))
            for module, batchnorm in following.items()
            if takes_any_scale(network, example, module, batchnorm)
        }

    def quantize(self, states: Mapping[str, TensorState]) -> dict[str, float]:
        """Quantize the layers as passes of all images come to them, in both networks; return their errors by name."""
        errors: dict[str, float] = {}
        with ExitStack() as stack:
            pairs = [
                (
                    stack.enter_context(Pass(self.network, batch, self.float_modules)),
                    stack.enter_context(Pass(self.reference, batch, self.float_modules.values())),
                )
                for batch in self.batches
            ]
            while True:
                calls = [(now.advance(), before.advance()) for now, before in pairs]
                if calls[0][0] is None:
                    return errors
                module = calls[0][0].module
                if any(now is None or before is None or now.module is not module for now, before in calls):
                    raise ValueError("quantize_ needs a network that calls the same layers for all images")
                for name, layer in self.layers.items():
                    if layer.module is module:
                        errors[name] = self._quantize(name, states[name], _moments(layer, calls))

    def _quantize(self, name: str, state: TensorState, moments: _Moments) -> float:
        """Quantize a layer, and return its error as a part of its outputs."""
        layer, bias = self.layers[name], getattr(self.layers[name].module, "bias", None)
        batchnorms = self.batchnorms.get(layer.module)
        takes_mean = batchnorms is not None or (layer.key == "weight" and bias is not None)
        centered = moments.centered() if takes_mean else moments
        rows = layer.rows(layer.weight.detach()).double()
        live = rows != 0 if self.keep_zeros else torch.ones_like(rows, dtype=torch.bool)
        noise = _NOISE * math.sqrt(layer.inputs) * moments.now.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        matrix = damped(centered.now, least=noise)
        wanted = refit(rows, live, matrix, centered.cross + (matrix - centered.now))
        codebook = decided(state.codebook, wanted.reshape(layer.weight.shape), "mse")
        if batchnorms:  # a scale of two is as good as another largest exponent
            found = _rounded(wanted, live, matrix, codebook, _SCALES)
        else:
            tried = [_rounded(wanted, live, matrix, each, (0.0,)) for each in _neighbors(codebook)]
            found = min(tried, key=lambda each: float(each.errors.sum()))
        if takes_mean:
            before, now = (rows @ moments.float_mean).reshape(-1), (found.rows @ moments.mean).reshape(-1)
            if batchnorms is not None:
                shift = 0.0 if bias is None else bias.double()
                adjust(*batchnorms, before + shift, now + shift, found.scales.reshape(-1))
            else:
                assert bias is not None
                bias.add_((before - now).to(bias.dtype))
        _freeze(layer.weight, state, found.codebook, found.rows.reshape(layer.weight.shape).to(layer.weight.dtype))
        return float(found.errors.sum()) / max(float(((wanted @ matrix) * wanted).sum()), math.ulp(0.0))


def _moments(layer: Layer, calls: Iterable[tuple[Any, Any]]) -> _Moments:
    """Return the moments of a layer's inputs over all images; calls are those of both networks, batch by batch."""
    calls = list(calls)
    surplus = sum(layer.num_samples(*now[1:]) for now, _ in calls) // (_ENOUGH * layer.inputs)
    every = max(1, surplus - (surplus + 1) % 2)  # odd, so that samples cover the inputs of later layers with stride 2
    sums, count = None, 0
    for pair in calls:
        for now, before in zip(*(layer.rows_of_inputs(call.args, call.kwargs, every) for call in pair), strict=True):
            terms = (now.mT @ now, before.mT @ now, now.mT.sum(-1, keepdim=True), before.mT.sum(-1, keepdim=True))
            added = [term.double() for term in terms]
            sums = added if sums is None else [one + other for one, other in zip(sums, added, strict=True)]
            count += now.shape[1]
    assert sums is not None
    return _Moments(*(each / count for each in sums))


def _batches(images: Tensor | Iterable[Any], like: Tensor) -> Iterator[Tensor]:
    """Yield the images in batches, on the device and in the dtype of the network."""
    for batch in torch.split(images, _BATCH_SIZE) if isinstance(images, Tensor) else images:
        first = batch[0] if isinstance(batch, list | tuple) else batch
        if not isinstance(first, Tensor) or not first.dim():
            raise ValueError(f"images must be a tensor or batches of them, got a batch of {type(first).__name__}")
        if first.is_floating_point() and not bool(first.isfinite().all()):
            raise ValueError("images contain NaN or infinite values: leave those out, or check how they are normalized")
        if len(first):
            yield first.to(like.device, like.dtype if first.is_floating_point() else None)


def _neighbors(codebook: AnyCodebook) -> Iterator[AnyCodebook]:
    """Yield a codebook and those of one largest exponent more and less; channels are left as they are."""
    yield codebook
    if isinstance(codebook.n_1, int):
        for n_1 in (codebook.n_1 + 1, codebook.n_1 - 1):
            if MIN_EXPONENT <= n_1 <= MAX_EXPONENT:
                yield codebook_of(codebook.num_bits, n_1, codebook.levels)


def _rounded(
    wanted: Tensor, live: Tensor, matrix: Tensor, codebook: AnyCodebook, scales: tuple[float, ...]
) -> _Rounded:
    """Return rows rounded to a codebook's levels, each at the scale with the smallest error."""
    groups, num_rows, n = wanted.shape
    factors = wanted.new_tensor(scales).exp2().view(1, -1, 1, 1)
    stacked = (wanted.unsqueeze(1) * factors).view(groups, -1, n)
    rounded = round_in_turn(stacked, matrix, rounding(codebook, groups), live.repeat(1, len(scales), 1))
    target, own = wanted @ matrix, ((rounded @ matrix) * rounded).sum(-1).view(groups, -1, num_rows)
    rounded = rounded.view(groups, -1, num_rows, n)
    common = (target.unsqueeze(1) * rounded).sum(-1)
    scale = torch.ones_like(own)
    if len(scales) > 1:  # that scale of the outputs is free by which they are closest
        scale = torch.where(own > 0, common / own.clamp_min(torch.finfo(own.dtype).tiny), 1.0).clamp_min(_LEAST_SCALE)
    errors = (target * wanted).sum(-1).unsqueeze(1) - 2 * scale * common + scale * scale * own
    least, best = errors.min(dim=1, keepdim=True)
    rows = rounded.gather(1, best.unsqueeze(-1).expand(-1, -1, -1, n)).squeeze(1)
    return _Rounded(codebook, rows, scale.gather(1, best).squeeze(1), least.squeeze(1))


def _freeze(param: Tensor, state: TensorState, codebook: AnyCodebook, levels: Tensor) -> None:
    """Write levels into a parameter, and freeze all of its weights in the state."""
    codes = codebook.encode(levels)
    apply(param, state, StageUpdate(codebook, torch.ones_like(state.frozen), codes))
