"""Moving averages of live weights."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from inq_ray.core.unwrap import unwrap
from inq_ray.distributed.replica import broadcast_tensors


class Ema:
    """Exponential moving averages of trained weights and float buffers: s <- s + (1 - decay) · (w - s) at each step.

    As in torchvision's reference (ExponentialMovingAverage of references/classification/utils.py), BatchNorm's
    statistics are averaged too, integer buffers are not, and there is no bias correction, because averages begin as the
    weights themselves. The decay is per update, and updates follow every step (torchvision's ``--model-ema-steps 1``).

    Frozen weights keep their bits: with s = w the difference is +0.0 for any decay, and adding or subtracting it gives
    s. (Only -0.0 would turn into +0.0, and no level is -0.0.) Therefore averages have to begin again after weights were
    frozen: :meth:`reset` after each stage's quantization, :meth:`store` before it.

    Weights are the same bits on every rank, so their averages are too. BatchNorm's statistics differ between ranks
    during training; when averages are loaded into the model, they are rank 0's.

    Args:
        model: The network, wrapped or not.
        decay: Fraction of the average that an update keeps, in [0, 1); 0 gives the network itself.

    Raises:
        ValueError: The decay is out of range.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of averages must be in [0, 1), got {decay}: use a value near 1, such as 0.999")
        self.model = unwrap(model)
        self.decay = decay
        self._averages: dict[str, Tensor] = {}
        self._places: dict[str, tuple[nn.Module, str]] = {}
        self.reset()

    def reset(self) -> None:
        """Begin again with the current network: after a stage's quantization, or if other weights are trained.

        A tensor shared by modules has its first name, as in ``named_parameters()``.
        """
        places: dict[Tensor, tuple[str, nn.Module, str]] = {}
        for path, module in self.model.named_modules():
            for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if tensor.requires_grad or (tensor.is_floating_point() and not isinstance(tensor, nn.Parameter)):
                    places.setdefault(tensor, (f"{path}.{key}" if path else key, module, key))
        self._places = {name: (module, key) for name, module, key in places.values()}
        self._averages = {
            name: tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
            for name, tensor in self._current().items()
        }

    @property
    def averages(self) -> list[Tensor]:
        """The averages themselves; later updates write to the same tensors until :meth:`reset`."""
        return list(self._averages.values())

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the current network; called after every optimizer step."""
        averages = self.averages
        tensors = [tensor.to(average.dtype) for tensor, average in zip(self._current().values(), averages, strict=True)]
        torch._foreach_lerp_(averages, tensors, 1 - self.decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Replace the network by its average during the block, for validation; its own bits are restored afterwards.

        All ranks enter it together.
        """
        own = {name: tensor.detach().clone() for name, tensor in self._current().items()}
        self.store()
        try:
            yield
        finally:
            _copy(own, self._current())

    def store(self) -> None:
        """Replace the network by its average, at the end of a stage, so that the next stage quantizes the average.

        Every rank calls it.
        """
        broadcast_tensors(
            {
                name: average
                for (name, average), tensor in zip(self._averages.items(), self._current().values(), strict=True)
                if not isinstance(tensor, nn.Parameter)
            }
        )
        _copy(self._averages, self._current())

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the averages, float32 (float64 for float64), by the names of parameters and buffers."""
        return {name: average.clone() for name, average in self._averages.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load averages of :meth:`state_dict`; raises as :meth:`to_load` does, and nothing is changed then."""
        _copy(state_dict, self.to_load(state_dict))

    def to_load(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the averages themselves, to load values into.

        Args:
            saved: Tensors of the saved averages, maybe without values.

        Raises:
            ValueError: They belong to another network, or other weights are trained; names them.
        """
        for name, average in self._averages.items():
            if name not in saved:
                raise ValueError(f"the averages lack {name}")
            if saved[name].shape != average.shape:
                shapes = f"{tuple(saved[name].shape)}, the network's {tuple(average.shape)}"
                raise ValueError(f"the average of {name} has shape {shapes}")
        unknown = sorted(saved.keys() - self._averages.keys())
        if unknown:
            raise ValueError(f"there are averages of tensors that are not averaged: {', '.join(unknown[:5])}")
        return self._averages

    def _current(self) -> dict[str, Tensor]:
        """Return the averaged tensors of the network: trained parameters and float buffers."""
        return {name: getattr(module, key) for name, (module, key) in self._places.items()}


def decay_of_horizon(num_steps: float) -> float:
    """Return the decay of averages with a mean age of this many steps; 0 for one step or less."""
    return max(0.0, 1 - 1 / num_steps) if num_steps else 0.0


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], to: Mapping[str, Tensor]) -> None:
    """Copy tensors into those of the same names, in place."""
    for name, tensor in tensors.items():
        to[name].copy_(tensor)
