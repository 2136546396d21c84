"""Owners of an optimizer's parameters, by weak references, which keep no model alive and are never pickled."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

_models: list["weakref.ref[nn.Module]"] = []


class Owner(NamedTuple):
    """Where a parameter was found.

    Attributes:
        model: The whole network.
        holders: Modules in it that hold the parameter themselves.
    """

    model: "weakref.ref[nn.Module]"
    holders: tuple["weakref.ref[nn.Module]", ...]

    def is_gone(self) -> bool:
        """Return whether neither the network nor one of those modules exists any more."""
        return all(known() is None for known in (self.model, *self.holders))


def remember(model: nn.Module) -> None:
    """Make a model known to :func:`find_owners` as long as it exists."""
    _models[:] = [known for known in _models if known() is not None and known() is not model]
    _models.append(weakref.ref(model))


def find_owners(params: Mapping[str, Tensor], models: Iterable[nn.Module] | None = None) -> dict[str, Owner]:
    """Return the owners of parameters by name; parameters without an owner are not included.

    Args:
        params: Parameters by any name.
        models: Models to search, the first match counts; None = the remembered ones, latest first.
    """
    if models is None:
        models = [model for known in reversed(_models) if (model := known()) is not None]
    owners: dict[str, Owner] = {}
    for model in models:
        holders: dict[int, list[weakref.ref[nn.Module]]] = {}
        for module, held in _held(model.modules()):
            holders.setdefault(id(held), []).append(weakref.ref(module))
        for name, param in params.items():
            if name not in owners and id(param) in holders:
                owners[name] = Owner(weakref.ref(model), tuple(holders[id(param)]))
    return owners


def find_orphan(params: Mapping[str, Tensor], owners: Mapping[str, Owner]) -> tuple[str, str] | None:
    """Return the name of a parameter that its model no longer holds, and what happened; None if all are held.

    If the model no longer exists, the modules that held the parameter are checked, if any exists.
    """
    held: dict[int, set[int]] = {}
    for name, param in params.items():
        owner = owners.get(name)
        if owner is None or not (model := owner.model()):
            modules = [module for holder in (owner.holders if owner else ()) if (module := holder()) is not None]
            if modules and not any(param is each for _, each in _held(modules)):
                return name, "its layer has another tensor now"
            continue
        if id(model) not in held:
            held[id(model)] = {id(each) for _, each in _held(model.modules())}
        if id(param) not in held[id(model)]:
            return name, _what_happened(name, param, model)
    return None


def _held(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, nn.Parameter]]:
    """Yield the parameters that modules own directly, except those from which a weight is computed.

    Parametrizations own such tensors, and torch's pruning and spectral_norm rename the parameter to KEY_orig.
    """
    for module in modules:
        if not isinstance(module, ParametrizationList):
            own = module._parameters  # noqa: SLF001  # parameters(recurse=False) drops duplicates
            for key, param in own.items():
                plain_key = key.removesuffix("_orig")
                is_computed_from = plain_key != key and plain_key not in own and hasattr(module, plain_key)
                if param is not None and not is_computed_from:
                    yield module, param


def _what_happened(name: str, param: Tensor, model: nn.Module) -> str:
    now = dict(model.named_parameters()).get(name)
    if now is None or now is param:
        return "the model has no parameter of that name now (a layer was replaced, sharded, parametrized or pruned)"
    kind = type(now.data).__name__
    facts = (("device", param.device.type, now.device.type), ("shape", list(param.shape), list(now.shape)))
    for what, before, after in (("type", "Tensor", kind), ("dtype", param.dtype, now.dtype), *facts):
        if before != after:
            return f"the model has another tensor there now, of {what} {after} in place of {before}"
    return "the model has another tensor there now, as after load_state_dict(assign=True) or a replaced layer"


def shown(name: str) -> str:
    """Return a name for a message: without control characters, shortened if it is long."""
    return repr(name if len(name) <= 100 else f"{name[:97]}...")
