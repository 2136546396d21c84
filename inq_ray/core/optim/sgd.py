"""SGD that leaves frozen weights alone."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from inq_ray.core.channels import Per, check_per
from inq_ray.core.codebook import Levels, check_levels, check_num_bits, float_format
from inq_ray.core.optim.masked_step import Weights, fused_rounds_as_loop, keep_live, live_gradient, step_in_blocks

# What a group keeps of its own when a state is loaded.
_KEPT = ("weight_bits", "levels", "codebook_per", "param_names")

# How deep an optimizer or scheduler is looked for in wrappers of trainers.
MOST_WRAPPERS = 10


class SGD(torch.optim.SGD):
    r"""torch.optim.SGD that updates live weights only (re-training of Zhou et al., ICLR 2017).

    With T = 1 on live and 0 on frozen weights, every step is torch's own with the gradient T · (g + λ W) in place of
    g + λ W. So a live weight moves as torch.optim.SGD moves it, and a frozen one keeps its bits and has no momentum.
    With nothing frozen the two are equal bit for bit. ``param.grad`` is read, never changed.

    Torch has three forms of the step: a for-loop over the tensors, foreach over lists of tensors, and fused.
    ``foreach`` and ``fused`` choose one, as in torch.optim.SGD. If you choose none, the bits are those of
    torch.optim.SGD's default, which is foreach on GPUs and the for-loop on CPUs. On CPUs, though, the fused kernel does
    the work, the fastest that torch has: for float32 and float64, and for all but the last numel % 16 elements of a
    tensor, it gives the bits of the for-loop. A partly frozen tensor takes about twice the time of an all-live one.

    Args:
        params: parameters or groups, best those of :func:`inq_ray.param_groups`. A group's ``weight_bits`` says at how
            many bits :class:`inq_ray.INQScheduler` quantizes its parameters; None leaves them float.
        lr: learning rate, float or one-element tensor.
        momentum: momentum factor.
        dampening: dampening of the momentum.
        weight_decay: L2 penalty λ, of live weights only.
        nesterov: whether momentum is Nesterov's.
        weight_bits: for groups that name none, 2 to 8 or None; of all parameters in them. Biases and normalization
            among them are quantized too, with a warning: :func:`inq_ray.param_groups` leaves them float.
        levels: for groups that name none, which levels a codebook has: "paper" or "full".
        codebook_per: for groups that name none, whether one largest power holds for a "tensor" or a "channel".
        maximize: whether to go up the gradient.
        foreach: whether to take torch's foreach form; None = the default, see above.
        fused: whether to take torch's fused form; None = the default, see above.

    Raises:
        ValueError: an option is out of range.

    Examples:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, 0.3]]))
        >>> optimizer = SGD(layer.parameters(), lr=0.1)
        >>> optimizer.freeze(layer.weight, torch.tensor([[True, False]]))
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.tolist() == [[0.5, layer.weight[0, 1].item()]], round(layer.weight[0, 1].item(), 6)
        (True, 0.2)
    """

    # Whether what is frozen comes from load_state_dict, and no INQScheduler has confirmed it since.
    has_loaded_frozen = False
    # Whether it was made by deepcopy or pickle: its parameters are then others than those of the model it was made for.
    is_copy = False

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
        levels: Levels = "paper",
        codebook_per: Per = "tensor",
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        self._defaults = {"weight_bits": weight_bits, "levels": levels, "codebook_per": codebook_per}
        given: Any = params if isinstance(params, Tensor) else list(params)  # torch refuses a tensor
        has_own_bits = [isinstance(each, dict) and "weight_bits" in each for each in given]
        # Live masks (uint8 0 or 1, the parameter's strides) by parameter; None where all of it is frozen. A parameter
        # of which nothing is frozen is not in it.
        self._live: dict[Tensor, Tensor | None] = {}
        super().__init__(
            given,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            fused=fused,
        )
        if weight_bits is not None:
            groups = zip(self.param_groups, has_own_bits, strict=False)  # one group of parameters without groups
            _warn_of_vectors([group for group, has_own in groups if not has_own], weight_bits)
        # GradScaler must unscale before the step: a fused kernel would unscale the decayed gradient, not the gradient.
        self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; see torch.optim.Optimizer.add_param_group.

        Raises:
            ValueError: ``weight_bits`` is neither None nor 2 to 8, or ``levels`` or ``codebook_per`` is not allowed.
        """
        for option, default in self._defaults.items():
            param_group.setdefault(option, default)
        if param_group["weight_bits"] is not None:
            check_num_bits(param_group["weight_bits"])
        check_levels(param_group["levels"])
        check_per(param_group["codebook_per"])
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
        self.has_loaded_frozen = False
        self._live.pop(param, None)
        if bool(frozen.all()):
            self._live[param] = None
        elif bool(frozen.any()):
            self._live[param] = torch.empty_like(param, dtype=torch.uint8).copy_(~frozen)
        if param in self._live:
            self._drop_momentum(param)

    def frozen(self, param: Tensor) -> Tensor:
        """Return which weights of a parameter are frozen: bool, its shape, contiguous; True = frozen."""
        if param not in self._live:
            return torch.zeros(param.shape, dtype=torch.bool, device=param.device)
        live = self._live[param]
        if live is None:
            return torch.ones(param.shape, dtype=torch.bool, device=param.device)
        return (live == 0).to(param.device).contiguous()

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
        keep_live(grad, live)
        return grad

    def state_dict(self) -> dict[str, Any]:
        """Return torch.optim.SGD's state, and ``frozen`` (bool, its shape) of each parameter with frozen weights."""
        state_dict = super().state_dict()
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for index, param in zip(saved["params"], group["params"], strict=True):
                if param in self._live:
                    state_dict["state"][index] = {**state_dict["state"].get(index, {}), "frozen": self.frozen(param)}
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads hyperparameters, momentum and what is frozen; torch.optim.SGD's state too.

        By a state without frozen weights, such as torch.optim.SGD's, what is frozen stays as it is, and momentum that
        it brings for frozen weights is dropped. Each group keeps its ``weight_bits``, of which a state from before
        anything was quantized has none, and its parameters' names, by which INQScheduler knows them: under DDP others
        begin them with "module.".

        Raises:
            ValueError: it is no optimizer's state, the groups are others, one names other ``weight_bits``, the
                parameters are in another order, it is INQ-pytorch's, or what is frozen does not fit a parameter;
                nothing was changed then.
        """
        if not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError("this is not the state of an optimizer: it has no 'state' and 'param_groups'")
        own = [{key: group[key] for key in _KEPT if key in group} for group in self.param_groups]
        known = {name for group in own for name in group.get("param_names", ())}
        for index, (saved, group) in enumerate(zip(state_dict["param_groups"], own, strict=False)):  # torch counts them
            _check_group(index, saved, group, known)
        frozen = self._frozen_in(state_dict)
        state = {
            index: {key: value for key, value in each.items() if key != "frozen"} if isinstance(each, dict) else each
            for index, each in state_dict["state"].items()
        }
        super().load_state_dict({**state_dict, "state": state})
        for group, kept in zip(self.param_groups, own, strict=True):
            group.pop("param_names", None)
            group.update(kept)
        if frozen:
            for param in [*self._live]:
                if param not in frozen:
                    del self._live[param]
            for param, mask in frozen.items():
                self.freeze(param, mask)
            self.has_loaded_frozen = True
        for param in self._live:
            self._drop_momentum(param)

    def _frozen_in(self, state_dict: dict[str, Any]) -> dict[Tensor, Tensor]:
        """Return what a state has frozen, by parameter; optimizers that do not know it may have changed its dtype."""
        frozen: dict[Tensor, Tensor] = {}
        for number, (saved, group) in enumerate(zip(state_dict["param_groups"], self.param_groups, strict=False)):
            for place, (index, param) in enumerate(zip(saved["params"], group["params"], strict=False)):
                mask = state_dict["state"].get(index, {}).get("frozen")
                if mask is None:
                    continue
                if not isinstance(mask, Tensor) or mask.shape != param.shape:
                    shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
                    raise ValueError(
                        f"the state's group {number} has at {place} what is frozen of a tensor {shape}, this "
                        f"optimizer's is {list(param.shape)}: the state is of another network"
                    )
                frozen[param] = mask.to(device=param.device, dtype=torch.bool)
        return frozen

    def __getstate__(self) -> dict[str, Any]:
        own = ("_live", "_defaults", "has_loaded_frozen")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}, "is_copy": True}

    def __repr__(self) -> str:
        num_frozen = sum(int(self.frozen(param).sum()) for param in self._live)
        num_weights = sum(
            param.numel() for group in self.param_groups if group["weight_bits"] for param in group["params"]
        )
        share = num_frozen / max(1, num_weights)
        return f"{super().__repr__()}\nfrozen: {num_frozen:,} of {num_weights:,} weights with weight_bits ({share:.1%})"

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
            weights = [self._weights(group, param) for param in group["params"] if self._is_stepped(param)]
            self._step_group(group, weights)
        return loss

    def _step_group(self, group: dict[str, Any], weights: list[Weights]) -> None:
        all_live = [each for each in weights if each.live is None]
        partly_frozen = [each for each in weights if each.live is not None]
        foreach, fused = group["foreach"], group["fused"]
        may_be_fused = fused or (fused is None and foreach is None)
        if not may_be_fused or not all(each.param.is_cpu for each in weights):
            self._torch_step(group, all_live, foreach=foreach, fused=fused)
            self._torch_step(group, partly_frozen, foreach=foreach, fused=fused)
            return
        divided = [_divide(group, each) for each in all_live]
        self._torch_step(group, [part for part, _ in divided if part is not None], foreach=False, fused=True)
        self._torch_step(group, [rest for _, rest in divided if rest is not None], foreach=False, fused=fused)
        options = {key: group[key] for key in ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize")}
        for part, rest in (_divide(group, each) for each in partly_frozen):
            if part is not None:
                step_in_blocks(part, **options)
            if rest is not None:
                self._torch_step(group, [rest], foreach=False, fused=fused)

    def _is_stepped(self, param: Tensor) -> bool:
        is_all_frozen = param in self._live and self._live[param] is None
        return param.grad is not None and not is_all_frozen

    def _weights(self, group: dict[str, Any], param: Tensor) -> Weights:
        assert param.grad is not None
        momentum = self.state[param].get("momentum_buffer") if group["momentum"] != 0 else None
        live = self._live.get(param)
        if live is not None and live.device != param.device:  # the model was moved since
            live = self._live[param] = live.to(param.device)
        return Weights(param, param.grad, live, momentum)

    def _torch_step(
        self, group: dict[str, Any], weights: Sequence[Weights], *, foreach: bool | None, fused: bool | None
    ) -> None:
        """Perform torch's step, either of weights that are all live, or of partly frozen ones with T · (g + λ W)."""
        if not weights:
            return
        weight_decay, maximize = group["weight_decay"], group["maximize"]
        if weights[0].live is not None:
            grads = [live_gradient(each, weight_decay=weight_decay, maximize=maximize) for each in weights]
            weight_decay, maximize = 0.0, False
        else:
            grads = [each.grad for each in weights]
            is_plain = weight_decay == 0 and not maximize
            if group["nesterov"] and is_plain and not fused and foreach is not False:
                grads = [grad.clone() for grad in grads]  # torch's foreach form would add the momentum to them
        momenta = [each.momentum for each in weights] if group["momentum"] != 0 else []
        sgd(
            [each.param for each in weights],
            grads,
            momenta,
            has_sparse_grad=any(grad.is_sparse for grad in grads),
            foreach=foreach,
            fused=fused,
            weight_decay=weight_decay,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=maximize,
        )
        for each, momentum in zip(weights, momenta, strict=False):
            if each.momentum is None:
                self.state[each.param]["momentum_buffer"] = momentum

    def _drop_momentum(self, param: Tensor) -> None:
        buffer = self.state[param].get("momentum_buffer") if param in self.state else None
        if buffer is None:
            return
        live = self._live[param]
        if live is None:
            buffer.zero_()
        else:
            keep_live(buffer, live)


def _divide(group: dict[str, Any], weights: Weights) -> tuple[Weights | None, Weights | None]:
    """Return the part of CPU tensors that torch's fused kernel steps, and what is left to the group's own form."""
    if group["fused"] and weights.live is None:
        return weights, None
    is_first_step = group["momentum"] != 0 and weights.momentum is None  # at which torch makes the momentum
    if is_first_step or not weights.is_plain():
        return None, weights
    if group["fused"]:
        return weights, None
    return weights.divide() if fused_rounds_as_loop(weights.param.dtype) else (None, weights)


def unwrapped(optimizer: object) -> SGD:
    """Return the SGD itself, or that inside what a trainer has wrapped around it (its attribute ``optimizer``).

    Raises:
        ValueError: there is none.
    """
    inner, seen = optimizer, 0
    while not isinstance(inner, SGD) and hasattr(inner, "optimizer") and seen < MOST_WRAPPERS:
        inner, seen = inner.optimizer, seen + 1
    if not isinstance(inner, SGD):
        raise ValueError(
            f"optimizer must be an inq_ray.SGD, which leaves frozen weights alone, or wrap one as its attribute "
            f"'optimizer'; got {type(optimizer)}"
        )
    return inner


def _warn_of_vectors(groups: list[dict[str, Any]], weight_bits: int) -> None:
    """Warn of biases and normalization where all parameters of a network are to be quantized."""
    params = [
        (name, param)
        for group in groups
        for name, param in zip(group.get("param_names") or [""] * len(group["params"]), group["params"], strict=True)
    ]
    vectors = [name or f"shape {list(param.shape)}" for name, param in params if param.dim() < 2]
    if 0 < len(vectors) < len(params):
        shown = ", ".join(vectors[:3])[:100] + (", ..." if len(vectors) > 3 else "")
        warnings.warn(
            f"{weight_bits=} quantizes {len(vectors)} tensors of fewer than two dimensions too, such as biases and "
            f"normalization ({shown}): inq_ray.param_groups(model, {weight_bits}) leaves them float",
            stacklevel=3,
        )


def _check_group(index: int, saved: dict[str, Any], own: dict[str, Any], known: set[str]) -> None:
    """Refuse a saved group whose bits are others, or that has another of this optimizer's parameters at some place.

    INQ-pytorch's too: its masks tell what is frozen, but nothing tells of which stage and of which codebook.
    """
    if "Ts" in saved:
        raise ValueError(
            "this is the state of an optimizer of INQ-pytorch (its groups have masks 'Ts'), which cannot be taken "
            "over: load the model's weights alone, and begin INQ again with a new SGD and INQScheduler"
        )
    bits = (saved.get("weight_bits"), own["weight_bits"])
    if None not in bits and bits[0] != bits[1]:
        raise ValueError(
            f"the state's group {index} has weight_bits {bits[0]}, this optimizer's {bits[1]}: make the optimizer "
            "with those of the state"
        )
    for option in ("levels", "codebook_per"):
        if bits[0] is not None and saved.get(option, own[option]) != own[option]:
            raise ValueError(
                f"the state's group {index} has {option} {saved[option]!r}, this optimizer's {own[option]!r}: make the "
                "optimizer with those of the state"
            )
    for there, here in zip(saved.get("param_names", ()), own.get("param_names", ()), strict=False):
        if there != here and there in known:
            raise ValueError(
                f"the state has {there!r} in group {index} where this optimizer has {here!r}: add the parameters in "
                "the order of the state"
            )
