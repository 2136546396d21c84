"""Detection of weights that a forward pass changes before it uses them.

A weight that is rounded, standardized or scaled in forward is not a power of two where it is used, even if the
parameter is. Many classes do so (QAT layers of torch.ao and torchao, weight standardization, equalized learning rates),
so one forward pass is traced, operation by operation: a stored weight has to be combined with the input, or with a
value computed from it, directly.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations of torch that only copy or rearrange values. (Views are recognized by their storage.)
_COPIES = re.compile(
    r"(clone|_?to_copy|copy_?|contiguous|cat|stack|constant_pad_nd|index|index_select|gather|take|flip|roll|repeat"
    r"|_to_dense|to_mkldnn|mkldnn_reorder_\w+|\w+_copy|lift_fresh|detach_?|_unsafe_view|_reshape_copy)"
)

_Storage = int


def transformed_weights(
    model: nn.Module, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> set[str]:
    """Return the names of weights that are combined with the input only after something else was computed from them.

    Runs one forward pass without gradients, in the model's current mode. It works on copies of parameters and buffers
    and restores torch's random state.

    Args:
        model: The network, or a layer.
        weights: Parameters of the model, by any name.
        args: Positional arguments of its forward: tensors, or containers of tensors.
        kwargs: Keyword arguments of its forward.

    Raises:
        Exception: Any error of the forward pass.
    """
    copies = {id(tensor): tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())}
    own = {name: copies[id(tensor)] for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    tracer = _Tracer({name: copies[id(weight)] for name, weight in weights.items()}, (args, kwargs))
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices if torch.cuda.is_initialized() else []))  # type: ignore[no-untyped-call]
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(tracer)
        torch.func.functional_call(model, own, args, dict(kwargs or {}))
    return {name for name in tracer.used_otherwise if name not in tracer.used_as_stored}


def is_transformed(layer: nn.Module, key: str) -> bool:
    """Return whether a convolution, linear layer or attention of a subclass transforms its weight before use.

    The layer alone is tried on ones. Returns False if it takes other inputs than torch's.
    """
    if type(layer).__module__.startswith("torch.nn.modules."):
        return False
    try:
        inputs = _inputs(layer)
        return inputs is not None and bool(transformed_weights(layer, {key: layer.get_parameter(key)}, inputs))
    except Exception:  # noqa: BLE001  # a user's forward may take anything and raise anything
        return False


def _inputs(layer: nn.Module) -> tuple[Tensor, ...] | None:
    """Return an input for torch's layer of this kind, or None; two samples, because BatchNorm refuses one."""
    weight = next((param for param in layer.parameters(recurse=False) if param.dim() > 1), None)
    if weight is None:
        return None
    options: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    if isinstance(layer, nn.Linear):
        return (torch.ones(2, layer.in_features, **options),)
    if isinstance(layer, _ConvNd):
        extents = [dilation * (size - 1) + 2 for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return (torch.ones(2, layer.in_channels, *extents, **options),)
    if isinstance(layer, nn.MultiheadAttention):
        sizes = (layer.embed_dim, layer.kdim or layer.embed_dim, layer.vdim or layer.embed_dim)
        return tuple(torch.ones(2, 2, size, **options) for size in sizes)
    return None


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Traces stored weights, values computed from them alone, and values computed from the input.

    Attributes:
        used_as_stored: Names of weights that are combined with the input, or values computed from it, as stored.
        used_otherwise: Names of weights for which only a value computed from them is combined.
    """

    def __init__(self, weights: Mapping[str, Tensor], inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used_as_stored: set[str] = set()
        self.used_otherwise: set[str] = set()
        self._keep = [*tree_leaves(inputs)]  # frees nothing meanwhile: a new tensor would reuse an old one's storage
        self._of_input = _storages(self._keep)
        self._stored: dict[_Storage, set[str]] = {}
        self._computed: dict[_Storage, set[str]] = {}
        for name, weight in weights.items():
            for storage in _storages([weight]):
                self._stored.setdefault(storage, set()).add(name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record what its results are computed from."""
        sources = _storages(tree_leaves((args, kwargs)))
        stored, computed = self._names(self._stored, sources), self._names(self._computed, sources)
        written = _written(func, args, kwargs or {})
        before = [tensor.clone() for tensor in written if stored]
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves(result)
        targets = (_storages(leaves) | _storages(written)) - sources | _storages(written)
        self._keep += [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if sources & self._of_input:
            self.used_as_stored |= stored
            self.used_otherwise |= computed
            self._of_input |= targets
            return result
        is_copy = _COPIES.fullmatch(func.__name__.partition(".")[0]) is not None
        for storage in targets:
            if storage in self._stored and all(map(torch.equal, before, written)):
                continue
            if stored and is_copy and storage not in self._stored:
                self._stored.setdefault(storage, set()).update(stored)
            elif stored:
                self._stored.pop(storage, None)
                self._computed.setdefault(storage, set()).update(stored)
            if computed:
                self._computed.setdefault(storage, set()).update(computed)
        return result

    @staticmethod
    def _names(known: Mapping[_Storage, set[str]], storages: Iterable[_Storage]) -> set[str]:
        return {name for storage in storages for name in known.get(storage, ())}


def _written(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation changes in place."""
    known = dict(zip((arg.name for arg in func._schema.arguments), args, strict=False)) | dict(kwargs)  # noqa: SLF001
    names = [arg.name for arg in func._schema.arguments if arg.alias_info is not None and arg.alias_info.is_write]  # noqa: SLF001
    return [leaf for name in names for leaf in tree_leaves(known.get(name)) if isinstance(leaf, Tensor)]


def _storages(leaves: Iterable[Any]) -> set[_Storage]:
    """Return the identities of the tensors' storages, the same for views; other leaves are ignored."""
    return {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor) and _has_storage(leaf)}  # noqa: SLF001


def _has_storage(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided
