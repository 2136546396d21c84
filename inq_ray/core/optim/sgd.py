"""SGD that leaves frozen weights unchanged."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from inq_ray.core.channels import Per, check_per
from inq_ray.core.codebook import Levels, check_levels, check_num_bits, float_format
from inq_ray.core.optim.group_step import step_group
from inq_ray.core.optim.masked_step import Weights, keep_live, live_gradients, packs

# Values that a group keeps when a state is loaded.
_KEPT = ("weight_bits", "levels", "codebook_per", "param_names")

# Maximum depth of a trainer's wrappers around an optimizer or scheduler.
MOST_WRAPPERS = 10


class SGD(torch.optim.SGD):
    r"""torch.optim.SGD that updates live weights only (re-training of Zhou et al., ICLR 2017).

    With T = 1 on live and 0 on frozen weights, every step is torch's own with the gradient T · (g + λ W) instead of
    g + λ W. So live weights are updated as by torch.optim.SGD, and frozen ones keep their bits and have no momentum.
    Without frozen weights both are equal bit for bit. ``param.grad`` is read, never changed.

    Torch has three implementations of the step: a for-loop over the tensors, foreach over lists of tensors, and fused.
    ``foreach`` and ``fused`` choose one, as in torch.optim.SGD. By default the bits are those of torch.optim.SGD's
    default, which is foreach on GPUs and the for-loop on CPUs. On CPUs, though, the fused kernel is used, torch's
    fastest: for float32 and float64, and for all but the last numel % 16 elements of a tensor, it gives the bits of the
    for-loop. A partly frozen tensor takes about twice as long as an all-live one. On GPUs all partly frozen tensors of
    a group are masked together, in a few launches for each 64 MB.

    Args:
        params: Parameters or groups, preferably from :func:`inq_ray.param_groups`. A group's ``weight_bits`` is the
            number of bits to which :class:`inq_ray.INQScheduler` quantizes its parameters; None leaves them float.
        lr: Learning rate, float or one-element tensor.
        momentum: Momentum factor.
        dampening: Dampening of the momentum.
        weight_decay: Weight decay (L2 penalty) λ, for live weights only.
        nesterov: Whether to use Nesterov momentum.
        weight_bits: For groups without their own, 2 to 8 or None; applies to all their parameters. Biases and
            normalization are then quantized too, with a warning: :func:`inq_ray.param_groups` leaves them float.
        levels: For groups without their own, the levels of codebooks: "paper" or "full".
        codebook_per: For groups without their own, whether there is one largest power per "tensor" or "channel".
        maximize: Whether to maximize the objective.
        foreach: Whether to use torch's foreach implementation; None = the default, see above.
        fused: Whether to use torch's fused implementation; None = the default, see above.

    Raises:
        ValueError: An option is out of range.

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

    # Whether frozen weights come from load_state_dict, and no INQScheduler has confirmed them since.
    has_loaded_frozen = False
    # Number of calls of `freeze`: what is derived from the masks is out of date once it has changed.
    num_freezes = 0
    # Whether it was created by deepcopy or pickle: its parameters then differ from those of the model it was made for.
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
        # Live masks (uint8 0 or 1, the parameter's strides) by parameter; None if it is fully frozen. Parameters
        # without frozen weights are not included.
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
        """Add a group; see torch.optim.Optimizer.add_param_group.

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
        """Leave the frozen weights of ``param`` unchanged from now on, and drop their momentum.

        Args:
            param: A parameter of this optimizer.
            frozen: bool, its shape; True = frozen. Replaces the previous mask.

        Raises:
            ValueError: The shape or dtype of ``frozen`` is wrong, or ``param`` is not in this optimizer or has a dtype
                that cannot be quantized.
        """
        float_format(param.dtype)
        if frozen.shape != param.shape or frozen.dtype != torch.bool:
            raise ValueError(f"frozen must be bool {tuple(param.shape)}, got {frozen.dtype} {tuple(frozen.shape)}")
        if not any(param is known for group in self.param_groups for known in group["params"]):
            raise ValueError(f"a parameter of shape {tuple(param.shape)} is not one of this optimizer's")
        self.has_loaded_frozen = False
        self.num_freezes += 1
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

    def live_grads(self) -> list[Tensor]:
        """Return the gradients of live weights, which a step uses: with +0.0 for frozen weights.

        Returns:
            For each parameter that has a gradient and a live weight, in order, float, its shape: ``param.grad`` itself
            if nothing is frozen, else a copy.
        """
        weights = [each for group in self.param_groups for each in self._weights(group)]
        masked: dict[Tensor, Tensor] = {}
        for pack in packs([each for each in weights if each.live is not None]):
            masked.update(zip((each.param for each in pack), live_gradients(pack), strict=True))
        return [masked.get(each.param, each.grad) for each in weights]

    def state_dict(self) -> dict[str, Any]:
        """Return torch.optim.SGD's state, and ``frozen`` (bool, its shape) of each parameter with frozen weights."""
        state_dict = super().state_dict()
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for index, param in zip(saved["params"], group["params"], strict=True):
                if param in self._live:
                    state_dict["state"][index] = {**state_dict["state"].get(index, {}), "frozen": self.frozen(param)}
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load hyperparameters, momentum and frozen masks; torch.optim.SGD's state is accepted too.

        A state without frozen masks, such as torch.optim.SGD's, leaves the masks unchanged, and its momentum for frozen
        weights is dropped. Each group keeps its ``weight_bits``, which may be missing in older states, and its
        parameters' names, by which INQScheduler identifies them: under DDP, names in a state may begin with "module.".

        Raises:
            ValueError: It is not an optimizer's state, the groups differ, one has other ``weight_bits``, the parameters
                are in another order, it is INQ-pytorch's, or a frozen mask does not fit its parameter; nothing is
                changed then.
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
        """Return the frozen masks in a state, by parameter; other optimizers may have changed their dtype."""
        frozen: dict[Tensor, Tensor] = {}
        for number, (saved, group) in enumerate(zip(state_dict["param_groups"], self.param_groups, strict=False)):
            for place, (index, param) in enumerate(zip(saved["params"], group["params"], strict=False)):
                mask = state_dict["state"].get(index, {}).get("frozen")
                if mask is None:
                    continue
                if not isinstance(mask, Tensor) or mask.shape != param.shape:
                    shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
                    raise ValueError(
                        f"the state's group {number} has at {place} a frozen mask of shape {shape}, but this "
                        f"optimizer's parameter has {list(param.shape)}: the state belongs to another network"
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
        """Perform one step.

        Args:
            closure: Reevaluates the model and returns the loss.

        Returns:
            The result of ``closure``, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param, momentum in step_group(group, self._weights(group)).items():
                self.state[param]["momentum_buffer"] = momentum
        return loss

    def _weights(self, group: dict[str, Any]) -> list[Weights]:
        """Return the parameters of a group that have a gradient and a live weight."""
        weights = []
        for param in group["params"]:
            live = self._live.get(param)
            if param.grad is None or (live is None and param in self._live):
                continue
            if live is not None and (live.device, live.stride()) != (param.device, param.stride()):
                # The model was moved meanwhile, or changed its memory format.
                live = self._live[param] = torch.empty_like(param, dtype=torch.uint8).copy_(live)
            has_momentum = group["momentum"] != 0 and param in self.state
            momentum = self.state[param].get("momentum_buffer") if has_momentum else None
            weights.append(Weights(param, param.grad, live, momentum))
        return weights

    def _drop_momentum(self, param: Tensor) -> None:
        buffer = self.state[param].get("momentum_buffer") if param in self.state else None
        if buffer is None:
            return
        live = self._live[param]
        if live is None:
            buffer.zero_()
        else:
            keep_live(buffer, live)


def unwrapped(optimizer: object) -> SGD:
    """Return the SGD itself, or the one inside a trainer's wrapper (its attribute ``optimizer``).

    Raises:
        ValueError: There is none.
    """
    inner, seen = optimizer, 0
    while not isinstance(inner, SGD) and hasattr(inner, "optimizer") and seen < MOST_WRAPPERS:
        inner, seen = inner.optimizer, seen + 1
    if not isinstance(inner, SGD):
        raise ValueError(
            f"optimizer must be an inq_ray.SGD, which leaves frozen weights unchanged, or a wrapper with one as its "
            f"attribute 'optimizer'; got {type(optimizer)}"
        )
    return inner


def _warn_of_vectors(groups: list[dict[str, Any]], weight_bits: int) -> None:
    """Warn about biases and normalization if all parameters of a network are to be quantized."""
    params = [
        (name, param)
        for group in groups
        for name, param in zip(group.get("param_names") or [""] * len(group["params"]), group["params"], strict=True)
    ]
    vectors = [name or f"shape {list(param.shape)}" for name, param in params if param.dim() < 2]
    if 0 < len(vectors) < len(params):
        shown = ", ".join(vectors[:3])[:100] + (", ..." if len(vectors) > 3 else "")
        warnings.warn(
            f"{weight_bits=} also quantizes {len(vectors)} tensors of fewer than two dimensions, such as biases and "
            f"normalization ({shown}): inq_ray.param_groups(model, {weight_bits}) leaves them float",
            stacklevel=3,
        )


def _check_group(index: int, saved: dict[str, Any], own: dict[str, Any], known: set[str]) -> None:
    """Refuse a saved group with other bits, or with another of this optimizer's parameters at some position.

    INQ-pytorch's is refused too: its masks define which weights are frozen, but not their stage and codebook.
    """
    if "Ts" in saved:
        raise ValueError(
            "this is the state of an optimizer of INQ-pytorch (its groups have masks 'Ts'), which cannot be "
            "converted: load only the model's weights, and begin INQ again with a new SGD and INQScheduler"
        )
    bits = (saved.get("weight_bits"), own["weight_bits"])
    if None not in bits and bits[0] != bits[1]:
        raise ValueError(
            f"the state's group {index} has weight_bits {bits[0]}, this optimizer's has {bits[1]}: create the "
            "optimizer with those of the state"
        )
    for option in ("levels", "codebook_per"):
        if bits[0] is not None and saved.get(option, own[option]) != own[option]:
            raise ValueError(
                f"the state's group {index} has {option} {saved[option]!r}, this optimizer's {own[option]!r}: create "
                "the optimizer with those of the state"
            )
    for there, here in zip(saved.get("param_names", ()), own.get("param_names", ()), strict=False):
        if there != here and there in known:
            raise ValueError(
                f"the state has {there!r} in group {index} where this optimizer has {here!r}: add the parameters in "
                "the order of the state"
            )
