"""SGD that leaves frozen weights alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from inq_ray.core.codebook import check_num_bits, float_format

# Elements of a block of the fused CPU step: large enough that calls do not count, small enough to stay in the cache.
_BLOCK = 1 << 18


class SGD(torch.optim.SGD):
    r"""torch.optim.SGD that updates live weights only (re-training of Zhou et al., ICLR 2017).

    With T = 1 on live and 0 on frozen weights, every step is torch's own with the gradient T · (g + λ W) in place of
    g + λ W. So a live weight moves as torch.optim.SGD moves it, and a frozen one keeps its bits and has no momentum.
    With nothing frozen the two are equal bit for bit. ``param.grad`` is read, never changed.

    Args:
        params: parameters or groups, best those of :func:`inq_ray.param_groups`. A group's ``weight_bits`` says at how
            many bits :class:`inq_ray.INQScheduler` quantizes its parameters; None leaves them float.
        lr: learning rate, float or one-element tensor.
        momentum: momentum factor.
        dampening: dampening of the momentum.
        weight_decay: L2 penalty λ, of live weights only.
        nesterov: whether momentum is Nesterov's.
        weight_bits: for groups that name none, 2 to 8 or None.
        maximize: whether to go up the gradient.
        foreach: torch's form over lists of tensors; None lets torch choose, as in torch.optim.SGD.
        fused: torch's fused form.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        weight_bits: int | None = None,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        self._default_weight_bits = weight_bits
        # Live masks (uint8 0 or 1, the parameter's strides) by parameter; None where all of it is frozen. A parameter
        # of which nothing is frozen is not in it.
        self._live: dict[Tensor, Tensor | None] = {}
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            fused=fused,
        )
        # GradScaler must unscale before the step: a fused kernel would unscale the decayed gradient, not the gradient.
        self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; see torch.optim.Optimizer.add_param_group. Its ``weight_bits`` is checked.

        Raises:
            ValueError: ``weight_bits`` is neither None nor 2 to 8.
        """
        weight_bits = param_group.setdefault("weight_bits", self._default_weight_bits)
        if weight_bits is not None:
            check_num_bits(weight_bits)
        super().add_param_group(param_group)

    def freeze(self, param: Tensor, frozen: Tensor) -> None:
        """From now on leaves the frozen weights of ``param`` alone, and drops their momentum.

        Args:
            param: a parameter of this optimizer.
            frozen: bool, its shape; True = frozen. Replaces what was frozen before.

        Raises:
            ValueError: the shape or dtype of ``frozen`` is another, or ``param`` is not in this optimizer or of a dtype
                that cannot be quantized.
        """
        float_format(param.dtype)
        if frozen.shape != param.shape or frozen.dtype != torch.bool:
            raise ValueError(f"frozen must be bool {tuple(param.shape)}, got {frozen.dtype} {tuple(frozen.shape)}")
        if not any(param is known for group in self.param_groups for known in group["params"]):
            raise ValueError(f"a parameter of shape {tuple(param.shape)} is not one of this optimizer's")
        self._live.pop(param, None)
        if bool(frozen.all()):
            self._live[param] = None
        elif bool(frozen.any()):
            self._live[param] = torch.empty_like(param, dtype=torch.uint8).copy_(~frozen)
        if param in self._live:
            self._drop_momentum(param)

    def live_grad(self, param: Tensor) -> Tensor | None:
        """The gradient of live weights: ``param.grad`` with +0.0 at frozen ones, which is what a step goes by.

        Args:
            param: a parameter of this optimizer.

        Returns:
            float, the parameter's shape: a copy where some of it is frozen, ``param.grad`` itself where nothing is.
            None where there is no gradient, or no live weight.
        """
        if param.grad is None or param not in self._live:
            return param.grad
        live = self._live[param]
        if live is None:
            return None
        grad = torch.empty_like(param).copy_(param.grad)
        _keep_live(grad, live)
        return grad

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads hyperparameters and momentum, torch.optim.SGD's too; what is frozen stays as it is.

        Momentum that it brings for frozen weights is dropped. INQScheduler keeps what is frozen.
        """
        weight_bits = [group["weight_bits"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, bits in zip(self.param_groups, weight_bits, strict=True):
            group.setdefault("weight_bits", bits)
        for param in self._live:
            self._drop_momentum(param)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_live": self._live, "_default_weight_bits": self._default_weight_bits}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Performs one step.

        Args:
            closure: reevaluates the model and returns the loss.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_grad = [param for param in group["params"] if param.grad is not None]
            self._step_all_live(group, [param for param in with_grad if param not in self._live])
            self._step_partly_frozen(group, [param for param in with_grad if self._live.get(param) is not None])
        return loss

    def _step_all_live(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Torch's step."""
        grads = [_grad(param) for param in params]
        is_plain = group["weight_decay"] == 0 and not group["maximize"]
        if group["nesterov"] and is_plain and not group["fused"] and group["foreach"] is not False:
            grads = [grad.clone() for grad in grads]  # torch's foreach form would add the momentum to the gradients
        self._torch_step(group, params, grads, group["weight_decay"], group["maximize"])

    def _step_partly_frozen(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Torch's step with T · (g + λ W) as gradient, in blocks of cache size where the form is fused on the CPU."""
        others: list[Tensor] = []
        gradients: list[Tensor] = []
        for param in params:
            if group["fused"] and self._step_in_blocks(group, param):
                continue
            gradient = torch.empty_like(param)
            _live_gradient(_grad(param), param, self._live_mask(param), group, out=gradient)
            others.append(param)
            gradients.append(gradient)
        self._torch_step(group, others, gradients, 0.0, False)

    def _torch_step(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], weight_decay: float, maximize: bool
    ) -> None:
        if not params:
            return
        has_momentum = group["momentum"] != 0
        buffers = [self.state[param].get("momentum_buffer") for param in params] if has_momentum else []
        sgd(
            params,
            grads,
            buffers,
            has_sparse_grad=any(grad.is_sparse for grad in grads),
            foreach=group["foreach"],
            fused=group["fused"],
            weight_decay=weight_decay,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=maximize,
        )
        if has_momentum:
            for param, buffer in zip(params, buffers, strict=True):
                self.state[param]["momentum_buffer"] = buffer

    def _step_in_blocks(self, group: dict[str, Any], param: Tensor) -> bool:
        """The fused step block by block, so that decaying and masking the gradient cost no way to memory.

        About twice torch's time (`make bench`). Gathering the live weights instead, stepping them and scattering them
        back was no faster down to one live in eight; int32 masks, kept, were no faster than uint8 ones.

        Returns:
            False, and nothing was done, where the tensors are not on the CPU or not laid out alike.
        """
        grad, live = _grad(param), self._live_mask(param)
        has_momentum = group["momentum"] != 0
        buffer = self.state[param].get("momentum_buffer") if has_momentum else None
        is_first_step = has_momentum and buffer is None
        if is_first_step:
            buffer = torch.empty_like(param)
        tensors = [param, grad, live] if buffer is None else [param, grad, live, buffer]
        if param.device.type != "cpu" or not _same_dense_layout(tensors):
            return False
        if is_first_step:
            self.state[param]["momentum_buffer"] = buffer
        blocks = zip(*(tensor.as_strided((tensor.numel(),), (1,)).split(_BLOCK) for tensor in tensors), strict=True)
        gradient = param.new_empty(min(_BLOCK, param.numel()))
        for param_block, grad_block, live_block, *buffer_block in blocks:
            out = gradient[: len(param_block)]
            _live_gradient(grad_block, param_block, live_block, group, out=out)
            torch._fused_sgd_(
                [param_block],
                [out],
                buffer_block,
                weight_decay=0.0,
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=False,
                is_first_step=is_first_step,
            )
        return True

    def _drop_momentum(self, param: Tensor) -> None:
        buffer = self.state[param].get("momentum_buffer") if param in self.state else None
        if buffer is None:
            return
        if self._live[param] is None:
            buffer.zero_()
        else:
            _keep_live(buffer, self._live_mask(param))

    def _live_mask(self, param: Tensor) -> Tensor:
        live = self._live[param]
        assert live is not None, "all of it is frozen"
        return live


def _grad(param: Tensor) -> Tensor:
    assert param.grad is not None
    return param.grad


def _live_gradient(grad: Tensor, param: Tensor, live: Tensor, group: dict[str, Any], *, out: Tensor) -> None:
    """T · (±g + λ W) into ``out``; all float [*] but ``live``, which is uint8 [*]."""
    weight_decay = float(group["weight_decay"])
    if group["maximize"]:
        torch.neg(grad, out=out)
        if weight_decay != 0:
            out.add_(param, alpha=weight_decay)
    elif weight_decay != 0:
        torch.add(grad, param, alpha=weight_decay, out=out)
    else:
        out.copy_(grad)
    _keep_live(out, live)


def _keep_live(values: Tensor, live: Tensor) -> None:
    """Sets ``values`` (float [*]) to +0.0 where ``live`` (uint8 [*]) is 0, in place, NaN too.

    Their bits are multiplied as integers, five times as fast as masked_fill_ by a mask without a pattern.
    """
    values.view(float_format(values.dtype).bits_dtype).mul_(live)


def _same_dense_layout(tensors: list[Tensor]) -> bool:
    first = tensors[0]
    dense = first.is_contiguous() or (first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last))
    return dense and all(tensor.stride() == first.stride() for tensor in tensors)
