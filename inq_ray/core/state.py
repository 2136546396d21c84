"""INQ state of one weight tensor: its codebook, which weights are frozen, and their codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook, Per, codebook_of, undecided
from inq_ray.core.codebook import Levels


@dataclass
class TensorState:
    """INQ state of one weight tensor; a run has one per parameter name.

    Attributes:
        codebook: Levels of this tensor, fixed at the first stage in which it (or a channel) has a non-zero weight.
        frozen: bool, the weight's shape, contiguous; True = frozen.
        codes: uint8, the weight's shape, contiguous; 0 for live weights.
    """

    codebook: AnyCodebook
    frozen: Tensor
    codes: Tensor

    @classmethod
    def live(cls, weight: Tensor, num_bits: int, levels: Levels = "paper", per: Per = "tensor") -> "TensorState":
        """Return the state of a tensor without frozen weights."""
        return cls(
            codebook=undecided(weight, num_bits, levels, per),
            frozen=torch.zeros(weight.shape, dtype=torch.bool, device=weight.device),
            codes=torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device),
        )

    @property
    def num_frozen(self) -> int:
        """Number of frozen weights."""
        return int(torch.count_nonzero(self.frozen))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, strings and copies of tensors."""
        return {
            "num_bits": self.codebook.num_bits,
            "n_1": self.codebook.n_1,
            "levels": self.codebook.levels,
            "frozen": self.frozen.clone(),
            "codes": self.codes.clone(),
        }

    def loaded(self, name: str, param: Tensor, saved: Mapping[str, Any]) -> "TensorState":
        """Return a saved state of the same parameter, on its device.

        Args:
            name: The parameter's name, for errors.
            param: The parameter.
            saved: Result of :meth:`state_dict`.

        Raises:
            ValueError: It is not a state of this parameter, or has other bits, levels or another kind of codebook.
        """
        check_entries(f"the state of {name}", saved, ("num_bits", "n_1", "frozen", "codes"))
        levels = saved.get("levels", "paper")  # old states have none
        try:
            codebook = codebook_of(saved["num_bits"], saved["n_1"], levels)
        except ValueError as error:
            raise ValueError(f"the state of {name}: {error}") from None
        if codebook.num_bits != (num_bits := self.codebook.num_bits):
            raise ValueError(
                f"the state of {name} has {codebook.num_bits} bits, but its group's weight_bits is {num_bits}"
            )
        if (codebook.levels, type(codebook)) != (self.codebook.levels, type(self.codebook)):
            raise ValueError(f"the state of {name} has other levels or another codebook_per than its group")
        frozen, codes = saved["frozen"], saved["codes"]
        for what, tensor, dtype in (("frozen", frozen, torch.bool), ("codes", codes, torch.uint8)):
            if not isinstance(tensor, Tensor):
                raise ValueError(f"the state of {name} has {what} that is a {type(tensor).__name__}, not a tensor")
            if tensor.shape != param.shape:
                raise ValueError(
                    f"the state of {name} has shape {tuple(tensor.shape)}, the parameter {tuple(param.shape)}"
                )
            if tensor.dtype != dtype:
                raise ValueError(f"the state of {name} has {what} of {tensor.dtype}, expected {dtype}")
        state = type(self)(
            codebook=codebook,
            frozen=frozen.to(param.device, copy=True, memory_format=torch.contiguous_format),
            codes=codes.to(param.device, copy=True, memory_format=torch.contiguous_format),
        )
        if codebook.strange_code(state.codes) is not None or bool((state.codes != 0).logical_and_(~state.frozen).any()):
            raise ValueError(f"the state of {name} has codes that are not in its codebook, or codes of live weights")
        return state


def check_entries(what: str, saved: object, wanted: tuple[str, ...]) -> None:
    """Refuse anything but a dictionary with these entries.

    Args:
        what: What it should be, for errors.
        saved: The dictionary.
        wanted: Names of its entries; it may have others.

    Raises:
        ValueError: It is something else, such as the state of an optimizer or of INQ-pytorch, or lacks an entry.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"{what} must be a dictionary, got a {type(saved).__name__}")
    if "param_groups" in saved:
        raise ValueError(f"expected {what}, got that of an optimizer: load it with optimizer.load_state_dict")
    if "iterative_steps" in saved:
        raise ValueError(
            f"expected {what}, got that of INQ-pytorch's INQScheduler, which has no codes and cannot be converted: "
            "load only the model's weights, and begin INQ again with a new SGD and INQScheduler"
        )
    missing = sorted(set(wanted) - saved.keys())
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}")
